"""The arithmetic of a large project: calls, tokens, money, time, disk and hosts, from measured rates. Imports no Django.

`manage.py plan_scale` prints it, and docs/scale.md explains it. Each rate is a field of `Rates`, which the reader can replace by a
measurement of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

WEEK_S = 7 * 24 * 3600.0
TOKENS = 1e6
BYTES = 1e9


class BadScale(ValueError):
    """A size or rate that no plan can be made for; the message says which, and what is expected."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured rates (docs/scale.md), on a quiet machine of two cores. Rows a second of one process, unless the name says otherwise;
    bytes with indexes.

    `database_s`: judgments a second that one PostgreSQL claims and stores. `host_calls_s`: calls over HTTP a second of one host with
    two worker processes. `gpu_calls_s`: questions a second of one GPU; 0 where nobody has measured the model.
    `adaptive_share` and `student_share`: calls to the paper's quality as a share of its three judges' on four pairs a document.
    """

    import_rows_s: float = 19_579.0
    plan_pairs_s: float = 37_256.0
    database_s: float = 7_966.0
    fit_queries_s: float = 253.0
    host_calls_s: float = 456.0
    gpu_calls_s: float = 0.0
    candidate_bytes: float = 1_330.0
    pair_bytes: float = 167.0
    judgment_bytes: float = 250.0
    call_bytes: float = 421.0
    adaptive_share: float = 0.21
    student_share: float = 0.111

    def replaced(self, changes: dict[str, float]) -> Rates:
        """These rates with some changed. Raises BadScale for an unknown name or a value below 0."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise BadScale(f"{name!r} is not a rate; expected one of {', '.join(known)}")
            if not (math.isfinite(value) and (value > 0.0 or (name == "gpu_calls_s" and value == 0.0))):
                raise BadScale(f"{name} is {value}; expected a number above 0")
        return Rates(**{**known, **changes})


@dataclass(frozen=True, slots=True)
class Project:
    """The size of a project, and what a question reads and writes; prices in dollars for a million tokens."""

    queries: int = 112_000
    candidates: int = 100
    pairs: int = 400
    judges: int = 3
    orders: int = 1
    document_tokens: float = 250.0
    other_tokens: float = 200.0
    output_tokens: float = 1.0
    input_price: float = 0.0
    output_price: float = 0.0

    def check(self) -> None:
        """Raise BadScale for a size that makes no sense."""
        for name, least in (("queries", 1), ("candidates", 2), ("pairs", 1), ("judges", 1)):
            if getattr(self, name) < least:
                raise BadScale(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.orders not in (1, 2):
            raise BadScale(f"orders is {self.orders}; expected 1 or 2")
        most = self.candidates * (self.candidates - 1) // 2
        if self.pairs > most:
            raise BadScale(f"pairs is {self.pairs}; {self.candidates} candidates have {most} pairs")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: the share of the calls that it needs, and what follows from it. `gpu_hours`: None without a rate.
    `hosts` make the calls within a week, beside the host of the database; `databases`: the share of its week that storing takes."""

    name: str
    share: float
    calls: float
    input_tokens: float
    output_tokens: float
    dollars: float
    gpu_hours: float | None
    database_gb: float
    import_hours: float
    plan_hours: float
    store_hours: float
    fit_hours: float
    hosts: int
    databases: float


def ways(project: Project, rates: Rates) -> list[Way]:
    """The paper's design, every pair once by rotated judges, `adaptive`, and `adaptive` with a distilled student."""
    project.check()
    everything = float(project.queries * project.pairs * project.judges * project.orders)
    shares = {
        "every judge, every pair": 1.0,
        "rotated judges": 1.0 / project.judges,
        "adaptive": rates.adaptive_share,
        "adaptive with a student": rates.student_share,
    }
    return [_way(name, share, share * everything, project, rates) for name, share in shares.items()]


def _way(name: str, share: float, calls: float, project: Project, rates: Rates) -> Way:
    rows = float(project.queries * project.candidates)
    pairs = min(float(project.queries * project.pairs), calls)
    reads = calls * (2.0 * project.document_tokens + project.other_tokens)
    writes = calls * project.output_tokens
    stored = rows * rates.candidate_bytes + pairs * rates.pair_bytes + calls * (rates.judgment_bytes + rates.call_bytes)
    return Way(
        name=name,
        share=share,
        calls=calls,
        input_tokens=reads,
        output_tokens=writes,
        dollars=(reads * project.input_price + writes * project.output_price) / TOKENS,
        gpu_hours=calls / rates.gpu_calls_s / 3600.0 if rates.gpu_calls_s else None,
        database_gb=stored / BYTES,
        import_hours=rows / rates.import_rows_s / 3600.0,
        plan_hours=pairs / rates.plan_pairs_s / 3600.0,
        store_hours=calls / rates.database_s / 3600.0,
        fit_hours=project.queries / rates.fit_queries_s / 3600.0,
        hosts=math.ceil(calls / (rates.host_calls_s * WEEK_S)),
        databases=calls / (rates.database_s * WEEK_S),
    )
