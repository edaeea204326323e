"""What has been spent, by run, project and judge: sums of a few rows that triggers keep beside the attempts.

`workers.budgets.limits` compares them with what may be spent. Rejected: adding up the attempts at each claim, which takes
longer with every call that was ever made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection

from labeling.models import Annotator
from labeling.plugins import UnknownPlugin, get_plugin
from workers.models import Attempt

RECENT_CALLS = 500


@dataclass(frozen=True, slots=True)
class JudgeBooks:
    """One judge's calls. `in_flight` and `lost` ones (with their worker, and perhaps paid) are questions whose price is not
    known. `tokens` and `cost_micros` are totals; expected by a call they are None before any call was answered.
    """

    calls: int = 0
    in_flight: int = 0
    lost: int = 0
    tokens: int = 0
    cost_micros: int = 0
    tokens_a_call: float | None = None
    cost_a_call: float | None = None

    @property
    def unpriced(self) -> int:
        return self.in_flight + self.lost


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything paid by a run or a project; cost in millionths of a dollar."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int


# Calls of probes are no judge's of a run, but the project's money; they stand under judge 0.
_BOOKS = """
SELECT annotator_id, sum(calls)::bigint, sum(in_flight)::bigint, sum(lost)::bigint,
       sum(input_tokens + output_tokens)::bigint, sum(cost_micros)::bigint,
       (sum(answer_tokens) / NULLIF(sum(answers), 0))::float8, (sum(answer_cost_micros) / NULLIF(sum(answers), 0))::float8
FROM workers_spend WHERE {which} GROUP BY annotator_id
"""

_OF_RUN = "run_id = %(id)s"
_OF_PROJECT = "run_id IN (SELECT id FROM workers_run WHERE project_id = %(id)s)"

_PROBES = """
SELECT COALESCE(sum(calls), 0)::bigint, COALESCE(sum(input_tokens), 0)::bigint,
       COALESCE(sum(output_tokens), 0)::bigint, COALESCE(sum(cost_micros), 0)::bigint
FROM workers_injectionprobe WHERE project_id = %s
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
    UNION ALL
    SELECT calls, input_tokens, output_tokens, cost_micros FROM workers_injectionprobe WHERE project_id = %(id)s
) paid
"""

_RECENT = """
SELECT avg(input_tokens::bigint + output_tokens)::float8, avg(cost_micros)::float8
FROM (SELECT * FROM workers_attempt WHERE annotator_id = %s AND outcome <> '' ORDER BY id DESC LIMIT %s) recent
WHERE outcome = ANY(%s)
"""


def books_of_run(run_id: int) -> dict[int, JudgeBooks]:
    """The books of a run by judge."""
    return _read(_OF_RUN, run_id)


def books_of_project(project_id: int) -> dict[int, JudgeBooks]:
    """The books of all runs of a project by judge, and under 0 those of its probes."""
    calls, read, written, cost = _row(_PROBES, [project_id])
    return {**_read(_OF_PROJECT, project_id), 0: JudgeBooks(calls=calls, tokens=read + written, cost_micros=cost)}


def totals_of_run(run_id: int) -> Totals:
    return Totals(*_row(_TOTALS.replace("{which}", _OF_RUN), {"id": run_id}))


def totals_of_project(project_id: int) -> Totals:
    """All runs and probes of a project."""
    return Totals(*_row(_PROJECT_TOTALS, {"id": project_id}))


def recent_price(annotator_id: int) -> tuple[float | None, float | None]:
    """Tokens and millionths of a dollar of a judge's last answered calls, wherever; None without any."""
    tokens, cost = _row(_RECENT, [annotator_id, RECENT_CALLS, list(Attempt.ANSWERED)])
    return tokens, cost


def lock_run(run_id: int) -> None:
    """One claimer of a run at a time until the transaction ends: two would spend the same room."""
    _row("SELECT pg_advisory_xact_lock(hashtext('zelo.budget'), %s)", [run_id])


def lock_project(project_id: int) -> None:
    """The same for a project; always before any of its runs, so that no two claims wait in a circle."""
    _row("SELECT pg_advisory_xact_lock(hashtext('zelo.caps'), %s)", [project_id])


def _read(which: str, key: int) -> dict[int, JudgeBooks]:
    with connection.cursor() as cursor:
        cursor.execute(_BOOKS.replace("{which}", which), {"id": key})
        return {row[0]: JudgeBooks(*row[1:]) for row in cursor.fetchall()}


def _row(sql: str, parameters: list[Any] | Mapping[str, Any]) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


_calls_each: dict[int, int] = {}


def calls_a_question(annotator_id: int) -> int:
    """Paid calls that one question to this judge takes: one, unless its plugin says otherwise (votes, for example).

    Looked up once a process, since changed options are another annotator; other plugins are not constructed, that may
    load a model.
    """
    if annotator_id not in _calls_each:
        judge = Annotator.objects.filter(pk=annotator_id).values_list("plugin", "options").first()
        _calls_each[annotator_id] = 1 if judge is None else _calls_of(*judge)
    return _calls_each[annotator_id]


def _calls_of(plugin: str, options: dict[str, Any]) -> int:
    try:
        judge = get_plugin("judge", plugin)
        if not hasattr(judge, "calls_per_comparison"):
            return 1
        return max(1, int(judge.from_dict(options).calls_per_comparison))  # type: ignore[attr-defined]
    except (UnknownPlugin, ValueError):  # such a judge fails its questions without a call
        return 1
