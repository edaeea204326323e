"""Spend of runs, projects and judges: sums of the few `Spend` rows that triggers keep up to date.

`workers.budgets.limits` compares the sums with the budgets. Rejected: adding up the attempts at each claim, which takes
longer with every call that was ever made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.db import connection

from labeling.models import Annotator
from labeling.plugins import Judge, UnknownPlugin, get_plugin
from workers.endpoints.conversation import ConversingJudge
from workers.endpoints.limiter import read_learned
from workers.models import Attempt

RECENT_CALLS = 500
# A judge has this property where a question may take more calls than `calls_per_comparison` expects.
MOST_CALLS = "most_calls_per_comparison"


@dataclass(frozen=True, slots=True)
class JudgeSpend:
    """The spend of one judge. `tokens` and `cost_micros` are totals; `tokens_a_call` and `cost_a_call` are means over its
    answered calls, None before the first. `unreached` calls failed before a model read them, at no cost. The price of
    calls `in_flight` and of `lost` ones (their worker crashed, and they may have been paid) is not known.
    """

    calls: int = 0
    in_flight: int = 0
    lost: int = 0
    tokens: int = 0
    cost_micros: int = 0
    unreached: int = 0
    answers: int = 0
    tokens_a_call: float | None = None
    cost_a_call: float | None = None

    @property
    def made(self) -> int:
        """Calls that a model may have answered."""
        return self.calls - self.unpriced - self.unreached

    @property
    def unpriced(self) -> int:
        """Questions whose price is not known."""
        return self.in_flight + self.lost


@dataclass(frozen=True, slots=True)
class Totals:
    """The totals of a run or a project; cost in millionths of a dollar."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int


# Probes, trials and teachings belong to no run, but the project pays for their calls, as it did for those of deleted runs:
# they are counted under judge 0.
_BY_JUDGE = """
SELECT annotator_id, sum(calls)::bigint, sum(in_flight)::bigint, sum(lost)::bigint,
       sum(input_tokens + output_tokens)::bigint, sum(cost_micros)::bigint, sum(unreached)::bigint, sum(answers)::bigint,
       (sum(answer_tokens) / NULLIF(sum(answers), 0))::float8, (sum(answer_cost_micros) / NULLIF(sum(answers), 0))::float8
FROM workers_spend WHERE {which} GROUP BY annotator_id
"""

_OF_RUN = "run_id = %(id)s"
_OF_PROJECT = "run_id IN (SELECT id FROM workers_run WHERE project_id = %(id)s)"

_CHECKS = """
    SELECT calls, input_tokens, output_tokens, cost_micros FROM workers_injectionprobe WHERE project_id = %(id)s
    UNION ALL
    SELECT calls, input_tokens, output_tokens, cost_micros FROM workers_judgetrial WHERE project_id = %(id)s
    UNION ALL
    SELECT calls, input_tokens, output_tokens, cost_micros FROM workers_judgeteaching WHERE project_id = %(id)s
    UNION ALL
    SELECT calls, input_tokens, output_tokens, cost_micros FROM workers_deletedspend WHERE project_id = %(id)s
"""

_OF_CHECKS = f"""
SELECT COALESCE(sum(calls), 0)::bigint, COALESCE(sum(input_tokens), 0)::bigint,
       COALESCE(sum(output_tokens), 0)::bigint, COALESCE(sum(cost_micros), 0)::bigint
FROM ({_CHECKS}) checks
"""

_TOTALS = """
SELECT COALESCE(sum(calls), 0)::bigint, COALESCE(sum(input_tokens), 0)::bigint,
       COALESCE(sum(output_tokens), 0)::bigint, COALESCE(sum(cost_micros), 0)::bigint
FROM workers_spend WHERE {which}
"""

_PROJECT_TOTALS = f"""
SELECT COALESCE(sum(calls), 0)::bigint, COALESCE(sum(input_tokens), 0)::bigint,
       COALESCE(sum(output_tokens), 0)::bigint, COALESCE(sum(cost_micros), 0)::bigint
FROM (
    SELECT calls, input_tokens, output_tokens, cost_micros FROM workers_spend WHERE {_OF_PROJECT}
    UNION ALL {_CHECKS}
) paid
"""

_LATEST = """
FROM (SELECT * FROM workers_attempt WHERE annotator_id = %s AND outcome NOT IN ('', 'reserved') ORDER BY id DESC LIMIT %s) recent
"""
_RECENT = f"""
SELECT avg(input_tokens::bigint + output_tokens)::float8, avg(cost_micros)::float8 {_LATEST} WHERE outcome = ANY(%s)
"""
_WITH_FAILURES = f"""
SELECT sum(cost_micros)::float8 / NULLIF(count(*) FILTER (WHERE outcome = ANY(%s)), 0) {_LATEST}
"""


def spend_of_run(run_id: int) -> dict[int, JudgeSpend]:
    """The spend of a run, by judge."""
    return _read(_OF_RUN, run_id)


def spend_of_project(project_id: int) -> dict[int, JudgeSpend]:
    """The spend of all runs of a project, by judge; its probes, trials and teachings are under 0."""
    calls, read, written, cost = _row(_OF_CHECKS, {"id": project_id})
    return {**_read(_OF_PROJECT, project_id), 0: JudgeSpend(calls=calls, tokens=read + written, cost_micros=cost)}


def totals_of_run(run_id: int) -> Totals:
    """The totals of a run over all its judges."""
    return Totals(*_row(_TOTALS.replace("{which}", _OF_RUN), {"id": run_id}))


def totals_of_project(project_id: int) -> Totals:
    """The totals of all runs, probes, trials and teachings of a project."""
    return Totals(*_row(_PROJECT_TOTALS, {"id": project_id}))


def recent_price(annotator_id: int) -> tuple[float | None, float | None]:
    """Mean tokens and cost (millionths of a dollar) of a judge's latest answered calls in any run; None without any."""
    tokens, cost = _row(_RECENT, [annotator_id, RECENT_CALLS, list(Attempt.ANSWERED)])
    return tokens, cost


def price_with_failures(annotator_id: int) -> float | None:
    """Cost (millionths of a dollar) of a judge's latest calls, failed ones included, per answered call; None without any."""
    return cast("float | None", _row(_WITH_FAILURES, [list(Attempt.ANSWERED), annotator_id, RECENT_CALLS])[0])


def lock_run(run_id: int) -> None:
    """Let one claim of a run at a time through until the transaction ends: two would spend the same money."""
    _row("SELECT pg_advisory_xact_lock(hashtext('zelo.budget'), %s)", [run_id])


def lock_project(project_id: int) -> None:
    """The same for a project. Lock it before any of its runs, so that no two claims deadlock."""
    _row("SELECT pg_advisory_xact_lock(hashtext('zelo.caps'), %s)", [project_id])


def _read(which: str, key: int) -> dict[int, JudgeSpend]:
    with connection.cursor() as cursor:
        cursor.execute(_BY_JUDGE.replace("{which}", which), {"id": key})
        return {row[0]: JudgeSpend(*row[1:]) for row in cursor.fetchall()}


def _row(sql: str, parameters: list[Any] | Mapping[str, Any]) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


_calls_each: dict[int, int | ConversingJudge] = {}


def calls_a_question(annotator_id: int) -> int:
    """The most paid calls that one question to this judge takes: one, unless its plugin says otherwise (votes, for example).

    A judge that may take several is constructed once a process, since an annotator never changes its options; whether its
    endpoint makes it take several is read each time from what all workers have learned. Plugins without
    `calls_per_comparison` are not constructed, because that may load a model.
    """
    if annotator_id not in _calls_each:
        judge = Annotator.objects.filter(pk=annotator_id).values_list("plugin", "options").first()
        _calls_each[annotator_id] = 1 if judge is None else _calls_of(*judge)
    found = _calls_each[annotator_id]
    return found if isinstance(found, int) else _learned_calls(found)[1]


_set_sizes: dict[int, int] = {}


def set_size_of(annotator_ids: Sequence[int]) -> int:
    """Documents of one question that all these judges can read: 2 unless every plugin reads sets (`Judge.set_size`)."""
    for missing in [each for each in annotator_ids if each not in _set_sizes]:
        judge = Annotator.objects.filter(pk=missing).values_list("plugin", "options").first()
        _set_sizes[missing] = 2 if judge is None else set_size_of_plugin(*judge)
    return min((_set_sizes[each] for each in annotator_ids), default=2)


def set_size_of_plugin(plugin: str, options: dict[str, Any]) -> int:
    """The set size of a judge with these options; plugins that read pairs are not constructed, which may load a model."""
    try:
        judge = cast("type[Judge]", get_plugin("judge", plugin))
        if judge.set_size is Judge.set_size:
            return 2
        return max(2, int(cast(Judge, judge.from_dict(options)).set_size))
    except (UnknownPlugin, ValueError):  # such a judge fails its questions without a call
        return 2


def calls_of_options(plugin: str, options: dict[str, Any]) -> tuple[int, int]:
    """Paid calls that one question takes: expected, and at most."""
    found = _calls_of(plugin, options)
    return (found, found) if isinstance(found, int) else _learned_calls(found)


def _learned_calls(judge: ConversingJudge) -> tuple[int, int]:
    """(expected, at most), by what all workers have learned about the judge's endpoint."""
    with contextlib.suppress(LookupError, ValueError):  # it cannot be called, which its answers report
        read_learned(judge.channel())
    return max(1, judge.calls_per_comparison), _most_calls(judge)


def _calls_of(plugin: str, options: dict[str, Any]) -> int | ConversingJudge:
    """The calls of a judge, or the judge itself where they depend on its endpoint."""
    try:
        plugin_class = get_plugin("judge", plugin)
        if not hasattr(plugin_class, "calls_per_comparison"):
            return 1
        judge = plugin_class.from_dict(options)
    except (UnknownPlugin, ValueError):  # such a judge fails its questions without a call
        return 1
    depends = isinstance(judge, ConversingJudge) and _most_calls(judge) > 1 and hasattr(judge, MOST_CALLS)
    return judge if depends else _most_calls(judge)  # type: ignore[return-value]


def _most_calls(judge: Any) -> int:
    return max(1, int(getattr(judge, MOST_CALLS, judge.calls_per_comparison)))
