"""The counts of a run's tasks, kept by triggers, equal a count of the rows after every transition."""

from __future__ import annotations

import pytest
from django.db.models import Count, Sum

from labeling.records import Failure, FailureKind, Verdict
from tests.factories.rows import make_judges, make_project, make_run
from workers.judging import queue
from workers.models import JudgingTask, Run, TaskCount
from workers.runs import transitions
from workers.runs.progress import TaskCounts, count_tasks

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def counted() -> dict[tuple[int, int], int]:
    rows = TaskCount.objects.order_by().values("run", "annotator_id").annotate(number=Sum("tasks"))
    return {(row["run"], row["annotator_id"]): row["number"] for row in rows if row["number"]}


def rows_of_tasks() -> dict[tuple[int, int], int]:
    rows = JudgingTask.objects.order_by().values("run", "annotator").annotate(number=Count("pk"))
    return {(row["run"], row["annotator"]): row["number"] for row in rows}


def test_counts_follow_planning_answers_failures_takeovers_and_ends() -> None:
    project = make_project(queries=2, documents=5)
    judges = make_judges(project, 2)
    run = make_run(project, judges=judges)
    planned = run.tasks_planned
    assert count_tasks([run.pk]) == {run.pk: TaskCounts(unfinished=planned)}
    claimed = queue.claim(annotator_id=judges[0].pk, worker="w@host:1", limit=6)
    assert count_tasks([run.pk]) == {run.pk: TaskCounts(unfinished=planned, in_flight=6)}
    queue.finish([(task, Verdict(0.7)) for task in claimed[:3]])
    queue.fail([(claimed[3], Failure(FailureKind.REFUSAL, "no", retryable=False))])
    queue.release(claimed[4:5])
    assert count_tasks([run.pk]) == {run.pk: TaskCounts(unfinished=planned - 4, in_flight=1, dead=1)}
    assert counted() == rows_of_tasks()

    Run.objects.filter(pk=run.pk).update(state=Run.State.FINISHED)
    later = make_run(project, judges=judges)
    assert counted() == rows_of_tasks() and later.pk in {key[0] for key in counted()}, "it took tasks over"
    transitions.cancel_run(later)
    assert counted() == rows_of_tasks()
    JudgingTask.objects.all().delete()
    assert counted() == {} and count_tasks([run.pk, later.pk]) == {}


def test_counts_leave_with_their_run() -> None:
    run = make_run(make_project(queries=1, documents=4))
    run.delete()
    assert not TaskCount.objects.exists()
