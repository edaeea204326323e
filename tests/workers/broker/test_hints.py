"""Hints: at most one waits, none carries data, all may be lost; with the broker down nothing stops."""

from __future__ import annotations

import logging

import pytest

from labeling.models import Project
from scoring.models import QueryFit
from scoring.rating import stale_query_ids
from tests.factories.broker import WaitingHints
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_run, make_tasks
from workers import reconciler, tasks
from workers.broker import client, hints
from workers.judging import queue
from workers.models import JudgingTask, Run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def judged_project() -> Project:
    project = make_project(queries=1)
    judge_pair(make_pair(project.queries.get()), make_judges(project)[0])
    return project


def test_stored_judgments_leave_a_hint_to_rate_their_project(sent_hints: WaitingHints) -> None:
    project = judged_project()
    assert sent_hints == [("rate", project.pk)]


def test_a_hint_that_waits_is_not_left_twice(sent_hints: WaitingHints) -> None:
    assert hints.leave_hint("rate", 1)
    assert hints.leave_hint("rate", 1)
    assert hints.leave_hint("rate", 2)
    assert sent_hints == [("rate", 1), ("rate", 2)]


def test_once_taken_the_next_change_leaves_a_new_hint(sent_hints: WaitingHints) -> None:
    hints.leave_hint("rate", 1)
    hints.hint_taken("rate", 1)
    hints.leave_hint("rate", 1)
    assert sent_hints == [("rate", 1), ("rate", 1)]


@pytest.mark.usefixtures("broker_down")
def test_broker_down_is_said_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not hints.leave_hint("rate", 1)
    assert "broker unreachable" in caplog.text
    hints.hint_taken("rate", 1)
    assert not client.broker_answers()


@pytest.mark.usefixtures("broker_down")
def test_broker_down_is_not_asked_at_each_commit(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            hints.leave_hint("rate", 1)
    assert len(caplog.records) == 1
    hints._silent_until = 0.0
    hints.leave_hint("rate", 1)
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("broker_down")
def test_with_the_broker_down_judgments_are_stored_and_the_reconciler_rates_them() -> None:
    project = judged_project()
    assert stale_query_ids(project.pk)
    reconciler.reconcile_once()
    assert QueryFit.objects.filter(query__project=project, error="").count() == 1


def test_reconciler_hints_at_all_that_no_hint_leads_to(sent_hints: WaitingHints) -> None:
    (task,) = make_tasks()
    project = judged_project()
    sent_hints.clear()
    reconciler.reconcile_once()
    assert set(sent_hints) == {("judge", task.annotator_id), ("rate", project.pk), ("advance", task.run_id)}


def test_reconciler_opens_what_a_dead_worker_held(sent_hints: WaitingHints) -> None:
    (task,) = make_tasks()
    queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=1, lease_s=-1.0)
    reconciler.reconcile_once()
    assert JudgingTask.objects.get().state == JudgingTask.State.OPEN
    assert ("judge", task.annotator_id) in sent_hints


def test_rating_task_moves_the_runs_that_waited_for_it(sent_hints: WaitingHints) -> None:
    project = make_project(queries=1)
    run = make_run(project)
    (judge,) = run.judges.all()
    hints.hint_taken("advance", run.pk)  # the one that the order left
    sent_hints.clear()
    tasks.judge.apply(args=[judge.pk])
    assert ("rate", project.pk) in sent_hints
    tasks.rate.apply(args=[project.pk])
    assert ("advance", run.pk) in sent_hints
    tasks.advance.apply(args=[run.pk])
    assert Run.objects.get(pk=run.pk).state == Run.State.FINISHED
