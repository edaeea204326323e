"""How far a run is, how fast it goes and what it has cost: the same figures for terminal, page and API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef

from workers.books import totals_of_run
from workers.models import JudgingTask, Run

WINDOW_S = 30
# Longer than judges pause between two batches; one that loads a model or embeds texts answers nothing for a minute.
SILENT_S = 6


@dataclass(frozen=True, slots=True)
class RunProgress:
    """`answered` + `unfinished` + `dead` = `planned` while a run's tasks are its own. `rate` in answers
    a second over the last half minute; `eta_s` seconds until the planned ones are done, None while
    unknown; `waits_for` the judges that are still asked where none of them has answered for a while, so that there is
    nothing to reckon with; cost in millionths of a dollar.
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

_RECENT = """
SELECT count(*), EXTRACT(EPOCH FROM LEAST(make_interval(secs => %s), clock_timestamp() - min(started_at))),
       EXTRACT(EPOCH FROM clock_timestamp() - max(finished_at))
FROM workers_attempt
WHERE run_id = %s AND finished_at > clock_timestamp() - make_interval(secs => %s)
  AND outcome IN ('preference', 'both_irrelevant', 'cannot_judge')
"""


def run_progress(run: Run) -> RunProgress:
    """The figures of one run, read now."""
    run.refresh_from_db()
    with connection.cursor() as cursor:
        unfinished, dead = _row(cursor, _TASKS, [run.pk])
        recent, seconds, silence = _row(cursor, _RECENT, [WINDOW_S, run.pk, WINDOW_S])
    spent = totals_of_run(run.pk)
    rate = recent / max(float(seconds or 0.0), 1.0) if recent else 0.0
    is_silent = run.state == Run.State.JUDGING and unfinished and (silence is None or silence > SILENT_S)
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


def _still_asked(run: Run) -> tuple[str, ...]:
    """The names of the run's judges with questions left."""
    left = JudgingTask.objects.filter(run=run, annotator=OuterRef("pk")).exclude(state=JudgingTask.State.DEAD)
    return tuple(run.judges.filter(Exists(left), paused_at=None).order_by("id").values_list("name", flat=True))


def _row(cursor: Any, sql: str, parameters: list[Any]) -> Any:
    cursor.execute(sql, parameters)
    return cursor.fetchone()
