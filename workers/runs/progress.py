"""The progress, speed and cost of a run.

`RunPace` is the one definition of a run's rate and of its remaining time; the jobs page reads it for many runs at once.
`RunProgress` adds totals and cost, for the project's page, the REST API and the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from workers.budgets.limits import standing
from workers.budgets.operator_limits import has_operator_limits
from workers.budgets.spend import totals_of_run
from workers.models import Attempt, Run

# A rate is that of the last half minute, and a run is silent after six seconds without an answer, as while a judge loads
# a model. A slow judge with few calls in flight pauses for as long as its calls take: both spans are then as long as
# two calls, by the longest of the latest ones.
WINDOW_S = 30
SILENT_S = 6
CALLS = 2.0
LATEST = 20
LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The tasks of a run: `unfinished` ones (open or leased), those `in_flight` of them, and `dead` ones."""

    unfinished: int = 0
    in_flight: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class RunPace:
    """The speed at which the tasks of a run are answered.

    `rate`: answers a second over the last half minute, or over the time of two calls where that is longer. `is_silent`:
    nothing was answered for a while although tasks are left, so `rate` says nothing about the rest. `answers_a_minute`:
    answers stored in the last minute.
    """

    tasks: TaskCounts
    rate: float
    is_silent: bool
    answers_a_minute: int

    @property
    def eta_s(self) -> float | None:
        """Seconds until the planned tasks are done; None while unknown."""
        return self.tasks.unfinished / self.rate if self.rate and not self.is_silent else None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run; `answered` + `unfinished` + `dead` = `planned` while a run's tasks are its own.

    `rate`: answers a second over the last half minute, or over the time of two calls where that is longer. `eta_s`:
    seconds until the planned tasks are done, None while unknown. `waits_for`: the judges with tasks left, where none of
    them has answered for a while. Cost in millionths of a dollar. `estimate`: what the run was expected to spend when it
    was ordered, with upper bounds as `most_...`; empty for runs across queries.
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
    estimate: dict[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.state in (Run.State.FINISHED, Run.State.CANCELLED, Run.State.FAILED)


_ANSWERED = "run_id = wanted.id AND outcome = ANY(%(answered)s)"
_RECENT = f"""
SELECT wanted.id, recent.*
FROM unnest(%(runs)s::bigint[]) AS wanted (id) CROSS JOIN LATERAL (
    WITH latest AS (
        SELECT finished_at, finished_at - started_at AS length FROM workers_attempt
        WHERE {_ANSWERED} AND finished_at > statement_timestamp() - %(longest)s * interval '1 second'
        ORDER BY finished_at DESC LIMIT %(latest)s
    ), pace AS (
        SELECT %(calls)s * COALESCE(max(length), interval '0') AS pause,
               statement_timestamp() - max(finished_at) AS silence FROM latest
    ), reach AS (
        SELECT *, GREATEST(pause, %(window)s * interval '1 second') AS span FROM pace
    )
    SELECT count(answer.id), EXTRACT(EPOCH FROM LEAST(span, statement_timestamp() - min(started_at))),
           silence IS NULL OR silence > GREATEST(pause, %(silent)s * interval '1 second'),
           (SELECT count(*) FROM workers_attempt
            WHERE {_ANSWERED} AND finished_at > statement_timestamp() - interval '1 minute')
    FROM reach LEFT JOIN workers_attempt answer ON {_ANSWERED} AND finished_at > statement_timestamp() - span
    GROUP BY span, silence, pause
) AS recent
"""


def _reached_today(run: Run) -> str:
    """The operator's limit for which a run waits until the next day; empty without one."""
    is_asking = run.state == Run.State.JUDGING and has_operator_limits()
    return standing(run).waits_for if is_asking else ""


def run_progress(run: Run) -> RunProgress:
    """The progress of one run, read now."""
    run.refresh_from_db()
    counts = count_tasks([run.pk])
    pace = read_paces([run], counts)[run.pk]
    tasks, spent = pace.tasks, totals_of_run(run.pk)
    return RunProgress(
        run_id=run.pk,
        state=run.state,
        reason=run.reason or _reached_today(run),
        round=run.round,
        pairs=run.pairs_planned,
        planned=run.tasks_planned,
        answered=max(0, run.tasks_planned - tasks.unfinished - tasks.dead),
        unfinished=tasks.unfinished,
        dead=tasks.dead,
        calls=spent.calls,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        cost_micros=spent.cost_micros,
        rate=round(pace.rate, 2),
        eta_s=pace.eta_s,
        waits_for=_judges_with_tasks(run) if pace.is_silent else (),
        estimate=run.estimate,
    )


# What is in flight or dead is few and has indexes of its own; all tasks are counted by triggers.
_COUNTED = """
SELECT wanted.id, COALESCE((SELECT sum(tasks) FROM workers_taskcount WHERE run_id = wanted.id), 0)::bigint,
       (SELECT count(*) FROM workers_judgingtask WHERE state = 'leased' AND run_id = wanted.id),
       (SELECT count(*) FROM workers_judgingtask WHERE state = 'dead' AND run_id = wanted.id)
FROM unnest(%s::bigint[]) AS wanted (id)
"""


def count_tasks(run_ids: Sequence[int]) -> dict[int, TaskCounts]:
    """The tasks of these runs; a run without tasks is left out."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED, [list(run_ids)])
        return {run: TaskCounts(tasks - dead, leased, dead) for run, tasks, leased, dead in cursor.fetchall() if tasks}


def read_paces(runs: Sequence[Run], counts: Mapping[int, TaskCounts]) -> dict[int, RunPace]:
    """The pace of each of these runs, by its id; `counts` from `count_tasks`."""
    if not runs:
        return {}
    judging = {run.pk for run in runs if run.state == Run.State.JUDGING}
    parameters: dict[str, Any] = {
        "runs": [run.pk for run in runs], "answered": list(Attempt.ANSWERED), "window": WINDOW_S, "silent": SILENT_S,
        "calls": CALLS, "latest": LATEST, "longest": LONGEST_S,
    }  # fmt: skip
    found = {}
    with connection.cursor() as cursor:
        cursor.execute(_RECENT, parameters)
        for run, answers, seconds, is_quiet, last_minute in cursor.fetchall():
            tasks = counts.get(run, TaskCounts())
            rate = answers / max(float(seconds or 0.0), 1.0)
            is_silent = bool(run in judging and tasks.unfinished and is_quiet)
            found[run] = RunPace(tasks, rate=rate, is_silent=is_silent, answers_a_minute=last_minute)
    return found


# By the counts that triggers keep: one task of many that is not dead is found only by reading all of them.
_WITH_TASKS = """
SELECT annotator.name FROM workers_run_judges judge JOIN labeling_annotator annotator ON annotator.id = judge.annotator_id
WHERE judge.run_id = %(run)s AND annotator.paused_at IS NULL
  AND (SELECT sum(tasks) FROM workers_taskcount WHERE run_id = %(run)s AND annotator_id = annotator.id)
      > (SELECT count(*) FROM workers_judgingtask task
         WHERE task.state = 'dead' AND task.run_id = %(run)s AND task.annotator_id = annotator.id)
ORDER BY annotator.id
"""


def _judges_with_tasks(run: Run) -> tuple[str, ...]:
    """The names of the run's judges with tasks left."""
    with connection.cursor() as cursor:
        cursor.execute(_WITH_TASKS, {"run": run.pk})
        return tuple(row[0] for row in cursor.fetchall())
