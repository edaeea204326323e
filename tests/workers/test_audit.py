"""The audit log: what is noted, by whom, together with the change itself; who may read it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from labeling import audit
from labeling.models import AuditEntry, Role
from labeling.records import Failure, FailureKind
from tests.factories.api import Api
from tests.factories.rows import make_member, make_project, make_run, make_tasks, make_user
from workers.judging import queue
from workers.judging.pausing import pause_judge, resume_judge
from workers.models import JudgingTask
from workers.runs import transitions

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


# What building a test's rows writes by itself.
BUILDING = ("project.created", "run.started", "account.signed_in", "key.made")


def entries() -> Any:
    return AuditEntry.objects.exclude(action__in=BUILDING).order_by("id")


def noted() -> list[tuple[str, str]]:
    return list(entries().values_list("action", "actor_name"))


def dead_task() -> JudgingTask:
    (task,) = make_tasks()
    (claimed,) = queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=1)
    queue.fail([(claimed, Failure(FailureKind.REFUSAL, "no", retryable=False))])
    task.refresh_from_db()
    return task


def test_moving_a_run_is_noted_with_who_did_it() -> None:
    owner = make_user("olga")
    run = make_run(make_project(queries=1))
    transitions.pause_run(run, by=owner)
    transitions.resume_run(run, by=owner)
    transitions.cancel_run(run)
    assert noted() == [("run.paused", "olga"), ("run.resumed", "olga"), ("run.cancelled", "")]
    assert entries().filter(project=run.project, subject=f"run {run.pk}").count() == 3


def test_a_move_that_came_too_late_leaves_no_entry() -> None:
    run = make_run(make_project(queries=1))
    transitions.cancel_run(run)
    assert not transitions.pause_run(run) and not transitions.resume_run(run) and not transitions.cancel_run(run)
    assert noted() == [("run.cancelled", "")]


def test_entry_is_undone_with_its_change() -> None:
    run = make_run(make_project(queries=1))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        transitions.pause_run(run)
        raise ZeroDivisionError
    run.refresh_from_db()
    assert (run.state, noted()) == ("judging", [])


def test_requeueing_dead_questions_says_how_many_and_why_they_had_died() -> None:
    task = dead_task()
    owner = make_user(is_superuser=True)
    path = f"/runs/{task.run_id}/failures/retry?reason=refusal"
    assert Api(owner).post(path).json() == {"opened": 1}
    assert Api(owner).post(path).json() == {"opened": 0}
    entry = entries().get()
    assert (entry.action, entry.actor_id, entry.subject) == ("tasks.requeued", owner.pk, f"run {task.run_id}")
    assert entry.details == {"questions": 1, "reason": "refusal", "judge": None}
    task.refresh_from_db()
    assert (task.state, task.attempts) == ("open", 0)


def test_pausing_a_judge_is_noted() -> None:
    (task,) = make_tasks()
    pause_judge(task.annotator, "drifted")
    resume_judge(task.annotator, by=make_user("olga"))
    assert noted() == [("judge.paused", ""), ("judge.resumed", "olga")]


def test_entry_keeps_the_name_of_a_user_who_is_gone() -> None:
    owner = make_user("olga")
    audit.note("run.paused", project=make_project(), actor=owner)
    owner.delete()
    assert noted() == [("run.paused", "olga")]


def test_only_owners_read_the_log_of_a_project(client: Client) -> None:
    owner: Any = make_user()
    project = make_project(owner=owner)
    audit.note("run.paused", project=project, subject="run 17 <b>")
    audit.note("run.paused", project=make_project(), subject="of somebody else")
    address = reverse("audit", args=[project.slug])
    for user, status in ((make_member(project, Role.VIEWER), 403), (make_user(), 404), (owner, 200)):
        client.force_login(user)
        answer = client.get(address)
        assert answer.status_code == status
        assert Api(user).get(f"/projects/{project.slug}/audit").status_code == status
    html = answer.content.decode()
    assert "run 17 &lt;b&gt;" in html and "of somebody else" not in html
    listed = Api(owner).get(f"/projects/{project.slug}/audit").json()
    assert [each["subject"] for each in listed] == ["run 17 <b>", project.slug]
    assert client.get(reverse("server-audit")).status_code == 403


def test_superusers_read_everything(client: Client) -> None:
    audit.note("run.paused", project=make_project(), subject="of somebody else")
    audit.note("server.started", project=None)
    deleted = make_project()
    audit.note("run.paused", project=deleted)
    deleted.delete()
    client.force_login(make_user(is_superuser=True))
    html = client.get(reverse("server-audit")).content.decode()
    assert "of somebody else" in html and "server.started" in html
    assert "Run paused" in html
    assert deleted.name in html, "the name outlives the project"
