"""How far a run is, how fast it goes and what it has cost: the same figures for terminal, page and API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef

from workers.budgets.spend import totals_of_run
from workers.models import JudgingTask, Run

# A rate is that of the last half minute, and a run is silent after six seconds without an answer, as while a judge loads
# a model. A slow judge with few calls in flight pauses for as long as its calls take: both spans are then as long as
# two calls, by the longest of the latest ones.
WINDOW_S = 30
SILENT_S = 6
CALLS = 2.0
LATEST = 20
LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class RunProgress:
    """`answered` + `unfinished` + `dead` = `planned` while a run's tasks are its own. `rate` in answers
    a second over the last half minute, or over two calls' time where that is longer; `eta_s` seconds until the
    planned ones are done, None while unknown; `waits_for` the judges that are still asked where none of them has
    answered for a while, so that there is nothing to reckon with; cost in millionths of a dollar.
    """

    run_id: int
    state: str
    reason: str
    round: int
    pairs: int
    planned: int
    answered: int
    unfinished: int
    dead: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    rate: float
    eta_s: float | None
    waits_for: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.state in (Run.State.FINISHED, Run.State.CANCELLED, Run.State.FAILED)


_TASKS = """
SELECT count(*) FILTER (WHERE state <> 'dead'), count(*) FILTER (WHERE state = 'dead')
FROM workers_judgingtask WHERE run_id = %s
"""

_ANSWERED = "run_id = %(run)s AND outcome IN ('preference', 'both_irrelevant', 'cannot_judge')"
_RECENT = f"""
WITH latest AS (
    SELECT finished_at, finished_at - started_at AS length FROM workers_attempt
    WHERE {_ANSWERED} AND finished_at > statement_timestamp() - %(longest)s * interval '1 second'
    ORDER BY finished_at DESC LIMIT %(latest)s
), pace AS (
    SELECT %(calls)s * COALESCE(max(length), interval '0') AS pause, statement_timestamp() - max(finished_at) AS silence FROM latest
), reach AS (
    SELECT *, GREATEST(pause, %(window)s * interval '1 second') AS span FROM pace
)
SELECT count(answer.id), EXTRACT(EPOCH FROM LEAST(span, statement_timestamp() - min(started_at))),
       silence IS NULL OR silence > GREATEST(pause, %(silent)s * interval '1 second')
FROM reach LEFT JOIN workers_attempt answer ON {_ANSWERED} AND finished_at > statement_timestamp() - span
GROUP BY span, silence, pause
"""


def run_progress(run: Run) -> RunProgress:
    """The figures of one run, read now."""
    run.refresh_from_db()
    with connection.cursor() as cursor:
        unfinished, dead = _row(cursor, _TASKS, [run.pk])
        recent, seconds, is_quiet = _row(cursor, _RECENT, _recent_of(run))
    spent = totals_of_run(run.pk)
    rate = recent / max(float(seconds or 0.0), 1.0) if recent else 0.0
    is_silent = run.state == Run.State.JUDGING and unfinished and is_quiet
    return RunProgress(
        run_id=run.pk,
        state=run.state,
        reason=run.reason,
        round=run.round,
        pairs=run.pairs_planned,
        planned=run.tasks_planned,
        answered=max(0, run.tasks_planned - unfinished - dead),
        unfinished=unfinished,
        dead=dead,
        calls=spent.calls,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        cost_micros=spent.cost_micros,
        rate=round(rate, 2),
        eta_s=unfinished / rate if rate and not is_silent else None,
        waits_for=_still_asked(run) if is_silent else (),
    )


def _recent_of(run: Run) -> dict[str, float]:
    return {
        "run": run.pk, "window": WINDOW_S, "silent": SILENT_S, "calls": CALLS, "latest": LATEST, "longest": LONGEST_S,
    }  # fmt: skip


def _still_asked(run: Run) -> tuple[str, ...]:
    """The names of the run's judges with questions left."""
    left = JudgingTask.objects.filter(run=run, annotator=OuterRef("pk")).exclude(state=JudgingTask.State.DEAD)
    return tuple(run.judges.filter(Exists(left), paused_at=None).order_by("id").values_list("name", flat=True))


def _row(cursor: Any, sql: str, parameters: list[Any] | dict[str, float]) -> Any:
    cursor.execute(sql, parameters)
    return cursor.fetchone()
