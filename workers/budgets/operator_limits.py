"""The operator's limits: what judges at an endpoint may spend a day or in total, and which projects may use an endpoint.

`workers.budgets.limits` enforces them together with the budgets of runs and the caps of projects;
`workers.budgets.operator_changes` changes them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.db import connection
from django.db.models import Q

from labeling.models import Project
from workers.budgets.spend import JudgeSpend
from workers.models import EndpointRestriction, EndpointSpend, OperatorLimit

DAY = OperatorLimit.Period.DAY.value
# Stands for all days that were merged; limits in total still count them.
MERGED_DAY = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """A limit that applies to a judge. `endpoint`, `project_id`: whose spend counts; "" and None stand for all."""

    endpoint: str
    project_id: int | None
    period: str
    calls: int | None
    tokens: int | None
    cost_micros: int | None

    @property
    def is_daily(self) -> bool:
        return self.period == DAY


@dataclass(frozen=True, slots=True)
class OperatorRules:
    """All limits of one judge, those in total first; `barred_from`: its endpoint, where its project may not use it."""

    rules: tuple[OperatorRule, ...] = ()
    barred_from: str = ""

    def __bool__(self) -> bool:
        return bool(self.rules or self.barred_from)


_RULES = """
SELECT rule.endpoint, rule.project_id, rule.period, rule.calls, rule.tokens, rule.cost_micros
FROM workers_operatorlimit rule JOIN labeling_annotator judge ON judge.id = %(judge)s
WHERE judge.options ->> 'endpoint' <> ''
  AND (rule.endpoint = '' OR rule.endpoint = judge.options ->> 'endpoint')
  AND (rule.project_id IS NULL OR rule.project_id = judge.project_id)
ORDER BY rule.period DESC, rule.id
"""

_BARRED = """
SELECT closed.endpoint
FROM workers_endpointrestriction closed JOIN labeling_annotator judge ON judge.id = %(judge)s
WHERE closed.endpoint = judge.options ->> 'endpoint'
  AND NOT EXISTS (SELECT 1 FROM workers_endpointrestriction_projects allowed
                  WHERE allowed.endpointrestriction_id = closed.id AND allowed.project_id = judge.project_id)
"""

# Whether there is any limit; statements that run thousands of times include it and skip the rest without one.
ANY_LIMIT = "EXISTS (SELECT 1 FROM workers_operatorlimit) OR EXISTS (SELECT 1 FROM workers_endpointrestriction)"


def has_operator_limits() -> bool:
    """Whether the operator limits anything."""
    found: bool = _rows(f"SELECT {ANY_LIMIT}", {})[0][0]
    return found


def rules_of(annotator_id: int) -> OperatorRules:
    """The operator's limits that apply to a judge; none for a judge without an endpoint."""
    rules = tuple(OperatorRule(*row) for row in _rows(_RULES, {"judge": annotator_id}))
    barred = _rows(_BARRED, {"judge": annotator_id})
    return OperatorRules(rules, barred[0][0] if barred else "")


def rules_for(project_id: int, endpoints: Set[str]) -> OperatorRules:
    """The operator's limits that would apply to judges of a project at these endpoints."""
    if not endpoints:
        return OperatorRules()
    found = OperatorLimit.objects.filter(Q(project=None) | Q(project=project_id), endpoint__in=["", *endpoints])
    names = ("endpoint", "project_id", "period", "calls", "tokens", "cost_micros")
    return OperatorRules(tuple(OperatorRule(*row) for row in found.order_by("-period", "id").values_list(*names)))


def closed_endpoints(project: Project) -> set[str]:
    """The endpoints that this project may not use."""
    allowed = EndpointRestriction.objects.filter(projects=project).values("pk")
    return set(EndpointRestriction.objects.exclude(pk__in=allowed).values_list("endpoint", flat=True))


_SPENT = """
SELECT annotator_id, sum(calls)::bigint, sum(in_flight)::bigint, sum(lost)::bigint,
       sum(input_tokens + output_tokens)::bigint, sum(cost_micros)::bigint, sum(unreached)::bigint, sum(answers)::bigint,
       (sum(answer_tokens) / NULLIF(sum(answers), 0))::float8, (sum(answer_cost_micros) / NULLIF(sum(answers), 0))::float8
FROM workers_endpointspend
WHERE (%(endpoint)s = '' OR endpoint = %(endpoint)s) AND (%(project)s::bigint IS NULL OR project_id = %(project)s)
  AND (NOT %(daily)s OR day = (statement_timestamp() AT TIME ZONE 'UTC')::date)
GROUP BY annotator_id
"""


def spend_of_rule(rule: OperatorRule) -> dict[int, JudgeSpend]:
    """The spend that counts towards a limit, by judge."""
    values = {"endpoint": rule.endpoint, "project": rule.project_id, "daily": rule.is_daily}
    return {row[0]: JudgeSpend(*row[1:]) for row in _rows(_SPENT, values)}


_ADD = """
INSERT INTO workers_endpointspend AS spend (endpoint, project_id, annotator_id, day, shard, calls, input_tokens,
                                            output_tokens, cost_micros)
SELECT options ->> 'endpoint', project_id, id, %(day)s, 0,
       %(calls)s, %(read)s, %(written)s, %(cost)s
FROM labeling_annotator WHERE id = %(judge)s AND options ->> 'endpoint' <> ''
ON CONFLICT (annotator_id, day, shard) DO UPDATE
SET calls = spend.calls + EXCLUDED.calls, input_tokens = spend.input_tokens + EXCLUDED.input_tokens,
    output_tokens = spend.output_tokens + EXCLUDED.output_tokens, cost_micros = spend.cost_micros + EXCLUDED.cost_micros
"""


def today() -> date:
    """The day that limits count now: of the database's clock, in UTC."""
    found: date = _rows("SELECT (statement_timestamp() AT TIME ZONE 'UTC')::date", {})[0][0]
    return found


def add_spend(
    annotator_id: int, *, day: date, calls: int, read: int = 0, written: int = 0, cost_micros: int = 0
) -> None:
    """Count calls of a trial, a teaching or a probe on this day; they have no `Attempt`."""
    values: dict[str, Any] = {
        "judge": annotator_id,
        "day": day,
        "calls": calls,
        "read": read,
        "written": written,
        "cost": cost_micros,
    }
    with connection.cursor() as cursor:
        cursor.execute(_ADD, values)


_MERGE = """
WITH past AS (DELETE FROM workers_endpointspend WHERE id = ANY(%(ids)s) RETURNING *)
INSERT INTO workers_endpointspend AS spend (endpoint, project_id, annotator_id, day, shard, {names})
SELECT endpoint, project_id, annotator_id, %(day)s, 0, {sums} FROM past GROUP BY 1, 2, 3 ORDER BY 3
ON CONFLICT (annotator_id, day, shard) DO UPDATE SET {raised}
"""
_TOTALS = (
    *("calls", "in_flight", "lost", "answers", "answer_tokens", "answer_cost_micros", "unreached"),
    *("input_tokens", "output_tokens", "cost_micros"),
)


def merge_days(ids: Sequence[int]) -> None:
    """Add these rows of past days to their judge's row of MERGED_DAY; sums over all days stay as they are.

    Locks them in the order in which the triggers do, so that a call of a past day that ends now waits, or is waited for.
    """
    locked = EndpointSpend.objects.select_for_update().order_by("annotator_id", "day", "shard")
    found = list(locked.filter(pk__in=ids).exclude(day=MERGED_DAY).values_list("pk", flat=True))
    parts = {
        "names": ", ".join(_TOTALS),
        "sums": ", ".join(f"sum({name})" for name in _TOTALS),
        "raised": ", ".join(f"{name} = spend.{name} + EXCLUDED.{name}" for name in _TOTALS),
    }
    with connection.cursor() as cursor:
        cursor.execute(_MERGE.format(**parts), {"ids": found, "day": MERGED_DAY})


def lock_operator_limits() -> None:
    """Let one transaction at a time read and spend what a limit of the operator leaves, until it ends.

    Take this lock before those of projects and runs. Rejected: a lock for each limit; a teaching spends at two endpoints in
    one transaction, and two of them would wait for each other.
    """
    _rows("SELECT pg_advisory_xact_lock(hashtext('zelo.operator'), 0)", {})


def lock_for(annotator_ids: Sequence[int]) -> None:
    """Take the lock where a limit applies to one of these judges."""
    if any(rules_of(each) for each in annotator_ids):
        lock_operator_limits()


def _rows(sql: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
