"""Helpers that move runs, questions and leases forward in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

from labeling.models import Annotator, Project
from labeling.records import Comparison, Failure, Usage, Verdict
from scoring.rating import rate_stale
from tests.factories.http_panel import make_judge, make_texts
from tests.factories.rows import make_judges, make_run
from tests.factories.stubs.plugins import TestJudge
from workers.judging import batches, queue
from workers.judging.queue import ClaimedTask
from workers.models import JudgingTask, Run
from workers.runs import advancing
from workers.runs.advancing import advance
from workers.runs.ordering import start_run


def claim(task: JudgingTask, limit: int = 100, *, worker: str = "w@host:1", lease_s: float = 60.0) -> list[ClaimedTask]:
    return queue.claim(annotator_id=task.annotator_id, worker=worker, limit=limit, lease_s=lease_s)


def make_due(task_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_judgingtask SET next_at = clock_timestamp() WHERE id = %s", [task_id])


def end_lease(*tasks: ClaimedTask) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_judgingtask SET lease_until = clock_timestamp() - interval '1 second' WHERE id = ANY(%s)",
            [[task.id for task in tasks]],
        )


def open_questions(count: int) -> tuple[Project, Annotator]:
    """A project with so many open questions to one judge over HTTP."""
    documents = 2
    while documents * (documents - 1) // 2 < count:
        documents += 1
    project = make_texts(documents=documents)
    judge = make_judge(project, "fake")
    advance(start_run(project, judges=[judge], sampler="all", pair_budget=count, seed=1).pk)
    assert JudgingTask.objects.count() == count
    return project, judge


def judge_all(run: Run) -> int:
    return sum(batches.judge_open(judge.pk, worker="w@host:1") for judge in run.judges.all())


def work_until_over(run: Run, *, rounds: int = 10) -> Run:
    """Do what workers do, in order: advance, judge, rate."""
    for _ in range(rounds):
        advancing.advance(run.pk)
        judge_all(run)
        rate_stale(run.project_id)
        run.refresh_from_db()
        if run.state not in Run.ACTIVE:
            return run
    raise AssertionError(f"run {run.pk} is still {run.state} after {rounds} rounds")


TOKENS, COST = 110, 40


class PaidJudge(TestJudge):
    """Prefers the longer document; each answer is 100 tokens read, 10 written, and costs 40 millionths."""

    name = "test-paid"
    label = "Paid"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        usage = Usage(input_tokens=100, output_tokens=10, cost_micros=COST)
        return [Verdict(0.7 if len(each.a.text) > len(each.b.text) else 0.3, usage=usage) for each in comparisons]


def paid_run(project: Project, *, judges: int = 1, **order: Any) -> Run:
    return make_run(project, judges=make_judges(project, judges, plugin="test-paid"), **order)
