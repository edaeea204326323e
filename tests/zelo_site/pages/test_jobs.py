"""The jobs page: what waits in which queue and who serves it, the command where nobody does, runs, dead questions, GPUs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.models import Annotator, Membership, Project
from tests.factories.pages import candidates_of, make_judge, make_pair, make_project, make_query, make_user, page
from workers.models import Attempt, EndpointState, JudgingTask, Run, Worker
from workers.monitoring import result_cache
from workers.monitoring.heartbeats import beat
from workers.monitoring.queue_depth import read_backlog
from workers.monitoring.result_cache import costly
from workers.runs.progress import run_progress
from zelo_site.cli.worker_command import worker_command

pytestmark = pytest.mark.django_db


def make_work(project: Project, *, plugin: str = "openai-http", documents: int = 5) -> tuple[Run, Annotator]:
    """A run that is being judged: two questions due, one in flight, one that waits, the others dead."""
    judge = make_judge(project, name="Qwen3", plugin=plugin)
    run = Run.objects.create(project=project, state="judging", tasks_planned=10, started_at=timezone.now())
    run.judges.add(judge)
    ids = candidates_of(make_query(project, size=documents))
    pairs = [make_pair(a, b) for at, a in enumerate(ids) for b in ids[at + 1 :]]
    for place, pair in enumerate(pairs):
        fields: dict[str, Any] = {"state": "dead", "reason": "refusal", "message": "I would rather not"}
        if place < 2:
            fields = {}
        elif place == 2:
            fields = {"state": "leased", "leased_by": "w@host:1", "lease_until": timezone.now()}
        elif place == 3:
            fields = {"next_at": timezone.now() + timedelta(hours=1)}
        JudgingTask.objects.create(run=run, pair=pair, annotator=judge, **fields)
    return run, judge


def test_queue_that_has_work_and_no_worker_shows_the_exact_command(client: Client, project: Project) -> None:
    make_work(project)
    html = page(client, "jobs")
    assert "2 tasks are waiting, but no worker serves “judging-http”" in html
    assert 'id="stuck-judging-http"' in html and 'id="stuck-judging-gpu"' not in html
    assert "python manage.py worker judging-http</code>" in html
    beat("judging-http@here", "judging-http")
    html = page(client, "jobs")
    assert "stuck-" not in html and "judging-http@here" in html


def test_command_names_this_installation_but_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://zelo:s3cret@db.example:5432/zelo")
    monkeypatch.setenv("BROKER_URL", "redis://cache.example:6379/0")
    monkeypatch.setenv("STORAGE_URL", "s3://bucket/some folder")
    assert worker_command("rating", in_full=True) == (
        "DATABASE_URL=postgresql://zelo:PASSWORD@db.example:5432/zelo BROKER_URL=redis://cache.example:6379/0 "
        "STORAGE_URL='s3://bucket/some folder' python manage.py worker rating"
    )
    assert worker_command("rating", in_full=False) == "python manage.py worker rating"


def test_queues_tell_what_is_due_in_flight_and_waiting(project: Project, owner: Any) -> None:
    make_work(project)
    make_work(make_project())  # of somebody else
    queues = {each.queue: each for each in read_backlog(owner)}
    http = queues["judging-http"]
    assert (http.due, http.in_flight, http.later) == (2, 1, 1)
    assert http.oldest is not None
    assert not queues["judging-cpu"].has_work and not queues["training"].has_work


def test_paused_judges_and_resting_runs_have_no_work_that_is_due(project: Project, owner: Any) -> None:
    run, judge = make_work(project)
    Annotator.objects.filter(pk=judge.pk).update(paused_at=timezone.now(), pause_reason="drifted")
    assert not any(each.due for each in read_backlog(owner))
    Annotator.objects.filter(pk=judge.pk).update(paused_at=None, pause_reason="")
    Run.objects.filter(pk=run.pk).update(state="paused")
    cache.clear()  # a slow machine keeps what it has counted
    assert {each.queue for each in read_backlog(owner) if each.has_work} == {"judging-http"}, "one is still in flight"
    assert not any(each.due for each in read_backlog(owner))


def test_page_shows_answers_of_the_last_minute_and_the_time_left_by_the_runs_own_rate(
    client: Client, project: Project
) -> None:
    run, judge = make_work(project)
    for number in range(6):
        Attempt.objects.create(
            task_id=number, fence=1, run=run, annotator=judge, outcome="preference",
            started_at=timezone.now() - timedelta(seconds=30), finished_at=timezone.now(),
        )  # fmt: skip
    old = timezone.now() - timedelta(minutes=5)
    Attempt.objects.create(task_id=99, fence=1, run=run, annotator=judge, outcome="preference", finished_at=old)
    Attempt.objects.create(task_id=98, fence=1, run=run, annotator=judge, outcome="timeout", finished_at=timezone.now())
    html = page(client, "jobs")
    assert '<div class="big">6 <small>per minute</small></div>' in html
    assert re.search(r"\b2[0-4] s\b", html), "four questions left, six answered in half a minute"
    assert run_progress(run).eta_s == pytest.approx(20.0, rel=0.2)


def test_dead_questions_are_listed_by_reason_and_asked_again_with_one_press(client: Client, project: Project) -> None:
    run, _ = make_work(project)
    html = page(client, "jobs")
    address = reverse("failures", args=[project.slug])
    assert f'href="{address}?reason=refusal"' in html and f'action="{address}"' in html
    client.post(address, {"reason": "refusal"})
    assert not JudgingTask.objects.filter(run=run, state="dead").exists()
    assert "Dead letters" not in page(client, "jobs")


def test_members_who_may_only_look_get_no_button_and_others_see_nothing(client: Client, project: Project) -> None:
    make_work(project)
    viewer = make_user("viewer")
    Membership.objects.create(project=project, user=viewer, role="viewer")
    client.force_login(viewer)
    html = page(client, "jobs")
    assert "the model declined" in html and "Retry" not in html
    client.force_login(make_user("stranger"))
    html = page(client, "jobs")
    assert "the model declined" not in html and project.name not in html and "stuck-" not in html


def test_gpus_of_workers_are_shown_where_there_are_any(client: Client, project: Project) -> None:
    beat("judging-gpu@far", "judging-gpu")
    assert "busy" not in page(client, "jobs")
    gpus = [{"name": "NVIDIA H200", "memory_mib": 143771, "used_mib": 5120, "utilisation": 37}]
    Worker.objects.filter(name="judging-gpu@far").update(gpus=gpus, host="far.example")
    html = page(client, "jobs")
    assert "NVIDIA H200" in html and "5,120 of 143,771 MiB · 37% busy" in html and "far.example" in html


@pytest.mark.parametrize("role", ["viewer", "annotator"])
def test_hosts_are_shown_to_staff_and_owners_alone(client: Client, project: Project, role: str) -> None:
    make_work(project)
    beat("judging-http@gpu-7.example", "judging-http")
    Worker.objects.update(host="gpu-7.example", pid=4711)
    assert "gpu-7.example" in page(client, "jobs") and "4711" in page(client, "jobs")
    assert client.get("/api/v1/server").json()["workers"] == ["judging-http@gpu-7.example"]
    member = make_user("member")
    Membership.objects.create(project=project, user=member, role=role)
    client.force_login(member)
    html = page(client, "jobs")
    assert "judging-http" in html and "gpu-7" not in html and "4711" not in html
    assert client.get("/api/v1/server").json()["workers"] == ["judging-http"]
    assert "gpu-7" not in client.get(reverse("project", args=[project.slug]), follow=True).content.decode()


def test_what_another_projects_calls_met_is_told_to_staff_alone(client: Client, project: Project, owner: Any) -> None:
    _, judge = make_work(project)
    Annotator.objects.filter(pk=judge.pk).update(options={"endpoint": "shared"})
    EndpointState.objects.create(
        identity="x", name="shared", mode="closed", last_error="too long: 'the private text of another project'",
        last_error_at=timezone.now(), seen_at=timezone.now(),
    )  # fmt: skip
    assert not owner.is_staff
    html = page(client, "jobs")
    assert "shared" in html and "private text" not in html
    client.force_login(make_user("admin", is_staff=True, is_superuser=True))
    assert "private text" in page(client, "jobs")


def test_nothing_changes_on_the_page_while_nothing_changes(client: Client, project: Project) -> None:
    make_work(project)
    html = client.get(reverse("jobs-live")).content.decode()
    version = html.split("?v=")[1].split('"')[0]
    assert client.get(reverse("jobs-live"), {"v": version}).status_code == 204, "though the form's token is another"
    JudgingTask.objects.filter(state="dead").delete()
    assert client.get(reverse("jobs-live"), {"v": version}).status_code == 200


def test_jobs_page_costs_the_same_for_many_runs(
    client: Client, project: Project, owner: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        make_work(project if number % 2 else make_project(owner), documents=4)
    beat("judging-http@here", "judging-http")
    with django_assert_max_num_queries(17):
        page(client, "jobs")


def test_what_takes_long_to_count_is_counted_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count() -> int:
        counted.append(1)
        return len(counted)

    assert [costly("zelo:test:quick", count), costly("zelo:test:quick", count)] == [1, 2]
    monkeypatch.setattr(result_cache, "QUICK_S", -1.0)
    monkeypatch.setattr(result_cache, "KEPT_FACTOR", 1e9)
    assert [costly("zelo:test:slow", count), costly("zelo:test:slow", count)] == [3, 3]
