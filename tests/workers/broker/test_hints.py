"""Hints: at most one waits, none carries data, all may be lost; with the broker down nothing stops."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.utils import timezone

from labeling.models import Project
from scoring.models import QueryFit
from scoring.rating import stale_query_ids
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_run, make_tasks
from workers import reconciler, tasks
from workers.broker import client, hints
from workers.judging import queue
from workers.models import JudgingTask, Run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Tasks sent to the broker, instead of sending them; the keys of earlier hints are gone."""
    messages: list[tuple[str, int]] = []

    def send(name: str, args: list[int], **options: Any) -> None:
        assert options["expires"] > timezone.now()
        messages.append((name.rpartition(".")[2], args[0]))

    monkeypatch.setattr(current_app, "send_task", send)
    broker = client.valkey()
    for key in broker.scan_iter("zelo:hint:*"):
        broker.delete(key)
    return messages


@pytest.fixture
def broker_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A broker's address at which nobody listens."""
    nobody = redis.Redis.from_url(f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setattr(client, "valkey", lambda: nobody)
    yield
    nobody.close()


def judged_project() -> Project:
    project = make_project(queries=1)
    judge_pair(make_pair(project.queries.get()), make_judges(project)[0])
    return project


def test_stored_judgments_leave_a_hint_to_rate_their_project(sent: list) -> None:
    project = judged_project()
    assert sent == [("rate", project.pk)]


def test_a_hint_that_waits_is_not_left_twice(sent: list) -> None:
    assert hints.leave_hint("rate", 1)
    assert hints.leave_hint("rate", 1)
    assert hints.leave_hint("rate", 2)
    assert sent == [("rate", 1), ("rate", 2)]


def test_once_taken_the_next_change_leaves_a_new_hint(sent: list) -> None:
    hints.leave_hint("rate", 1)
    hints.hint_taken("rate", 1)
    hints.leave_hint("rate", 1)
    assert sent == [("rate", 1), ("rate", 1)]


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


def test_reconciler_hints_at_all_that_no_hint_leads_to(sent: list) -> None:
    (task,) = make_tasks()
    project = judged_project()
    sent.clear()
    for key in client.valkey().scan_iter("zelo:hint:*"):
        client.valkey().delete(key)
    reconciler.reconcile_once()
    assert set(sent) == {("judge", task.annotator_id), ("rate", project.pk), ("advance", task.run_id)}


def test_reconciler_opens_what_a_dead_worker_held(sent: list) -> None:
    (task,) = make_tasks()
    queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=1, lease_s=-1.0)
    reconciler.reconcile_once()
    assert JudgingTask.objects.get().state == JudgingTask.State.OPEN
    assert ("judge", task.annotator_id) in sent


def test_rating_task_moves_the_runs_that_waited_for_it(sent: list) -> None:
    project = make_project(queries=1)
    run = make_run(project)
    (judge,) = run.judges.all()
    hints.hint_taken("advance", run.pk)  # the one that the order left
    sent.clear()
    tasks.judge.apply(args=[judge.pk])
    assert ("rate", project.pk) in sent
    tasks.rate.apply(args=[project.pk])
    assert ("advance", run.pk) in sent
    tasks.advance.apply(args=[run.pk])
    assert Run.objects.get(pk=run.pk).state == Run.State.FINISHED
