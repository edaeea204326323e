"""Each failure stands on the project's page: what happens, when it is tried again, and what to do about it."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.models import Annotator, DatasetImport, Membership, Project
from scoring.models import QueryFit, Snapshot
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts
from tests.factories.pages import make_query, make_run, make_user, page, score
from tests.fake_judge.process import FakeJudge, running_fake_judge
from trainer.models import Reranker, TrainingRun
from trainer.training.memory import OutOfMemory
from workers.jobs import leasing
from workers.jobs.leasing import JobClaim
from workers.judging import batches, streaming
from workers.models import Job, JudgingTask
from workers.monitoring.heartbeats import beat
from workers.runs.advancing import advance
from workers.runs.ordering import start_run
from zelo_site.pages.project.attention.causes import Cause, cause_of, words_of


class Said(NamedTuple):
    """Parts of a problem's box."""

    who: str
    trouble: str
    again: str
    todo: str


TESTED, PAUSED = "tests the endpoint with one call", "No automatic retry"
# What the page says of each fault of the fake judge.
OF_FAULT = {
    "http_500": Said("http_500 waits for it", "server error", TESTED, "restart the server"),
    "rate_limited": Said("rate_limited waits for it", "(HTTP 429)", "Calls resume automatically", "a higher limit"),
    "hang": Said("hang waits for it", "no answer in time", TESTED, "raise its timeout_s"),
    "gpu_memory": Said("gpu_memory waits for it", "out of GPU memory", TESTED, "choose a smaller model"),
    "unauthorized": Said("unauthorized is paused", "key refused", PAUSED, "Replace the key"),
}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("attention") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY, "--retry-after", "40") as judge:
        for fault in OF_FAULT:
            judge.set_judge(fault, fault_rates={fault: 1.0})
        yield judge


def box_of(shown: str, key: str) -> str:
    """The text of one problem's box."""
    found = re.search(rf'<section class="notice need \w+" role="\w+" id="{key}">(.*?)</section>', shown, re.DOTALL)
    assert found is not None, f"no box {key}"
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[1])))


def _work(judge: Annotator) -> None:
    """What a worker's thread does with the judge's questions."""
    batches.judge_open(judge.pk, worker="w@host:1")
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_each_failure_of_an_endpoint_says_what_happens_when_it_is_tried_again_and_what_to_do(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    monkeypatch.setattr(streaming, "PATIENCE_S", 0.5)
    changes: list[dict[str, Any]] = [{}, {"name": "impatient", "timeout_s": 0.25}]
    define_endpoints(monkeypatch, fake, *({"limits_per_model": True} | change for change in changes))
    owner = make_user()
    client.force_login(owner)
    project = make_texts(documents=4)
    Membership.objects.create(project=project, user=owner, role="owner")
    judges = {
        fault: make_judge(project, fault, **({"endpoint": "impatient"} if fault == "hang" else {}))
        for fault in OF_FAULT
    }
    run = start_run(project, judges=list(judges.values()), sampler="all", seed=1)
    advance(run.pk)
    with ThreadPoolExecutor(len(judges)) as workers:
        list(workers.map(_work, judges.values()))
    shown = page(client, "project", project.slug)
    for fault, judge in judges.items():
        box = box_of(shown, f"trouble-{judge.pk}")
        for part in OF_FAULT[fault]:
            assert part in box, (fault, part, box)
    assert "data-until" in shown, "the time of the next try runs down"
    assert KEY not in shown


@pytest.mark.django_db
@pytest.mark.usefixtures("broker_down")
def test_a_missing_broker_says_that_no_work_is_lost(client: Client, project: Project) -> None:
    score(make_query(project), [0.3, 0.2, 0.1])
    box = box_of(page(client, "project", project.slug), "broker")
    for part in ("No work is lost", "tries to reconnect every few seconds", "Start Valkey or Redis"):
        assert part in box


@pytest.mark.django_db
def test_a_missing_worker_says_what_waits_and_how_to_start_it(client: Client, project: Project) -> None:
    score(make_query(project), [0.3, 0.2, 0.1])
    make_run(project)
    beat("rating@here", "rating")
    shown = page(client, "project", project.slug)
    box = box_of(shown, "queues")
    for part in ("judges are not asked", "begins within seconds", "python manage.py worker judging-cpu"):
        assert part in box
    assert "worker rating" not in box


def _fails(project: Project, stage: str, work: Any) -> Job:
    """A job that a worker carried out, and that failed so."""
    job = Job.objects.create(project=project, stage=stage)
    leasing.carry_out(job.pk, stage, work, worker="w@host:1", given_up="given up")
    job.refresh_from_db()
    return job


def _fill_the_disk(claim: JobClaim) -> str:
    with Path("/dev/full").open("w") as full:
        full.write("a result")
        full.flush()
    return "unreached"


def _need_more_memory(claim: JobClaim) -> str:
    raise OutOfMemory("out of memory with one row at a time; choose a shorter max_length")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("stage", "work", "said"),
    [
        ("evaluate", _fill_the_disk, Said("Evaluate failed", "Disk full", PAUSED, "Free some space")),
        ("train", _need_more_memory, Said("Train failed", "Out of GPU memory", PAUSED, "max_length")),
    ],
)
def test_a_failed_job_says_its_cause_and_what_helps(
    stage: str, work: Any, said: Said, client: Client, project: Project
) -> None:
    score(make_query(project), [0.3, 0.2, 0.1])
    job = _fails(project, stage, work)
    box = box_of(page(client, "project", project.slug), f"job-{job.pk}")
    for part in (*said, "arlier results are kept"):
        assert part in box
    Job.objects.create(project=project, stage=stage, state="finished")
    assert f'id="job-{job.pk}"' not in page(client, "project", project.slug), "a later job of the stage went well"


@pytest.mark.django_db
@pytest.mark.parametrize(("free", "said"), [(10 * 1024**2, "disk is full: 0.0 GiB"), (1024**3, "almost full: 1.0 GiB")])
def test_a_disk_that_fills_is_said_before_work_stops(
    free: int, said: str, client: Client, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=free))
    cache.delete("zelo:free-bytes")
    box = box_of(page(client, "project", project.slug), "disk")
    assert said in box and "Free some space" in box
    cache.delete("zelo:free-bytes")


@pytest.mark.django_db
def test_people_students_and_imports_that_wait_stand_with_their_button(client: Client, project: Project) -> None:
    score(make_query(project), [0.3, 0.2, 0.1])
    person = Annotator.objects.create(
        project=project, name="Anna", is_person=True, user=make_user(), config_hash="p" * 64,
        paused_at=timezone.now(), pause_reason="3 of 10 gold answers were right",
    )  # fmt: skip
    snapshot = Snapshot.objects.create(name="frozen", location="snapshots/none", checksum="0" * 64, rows=1)
    training = TrainingRun.objects.create(
        project=project, snapshot=snapshot, trainer="pointwise-lora", state="held_back"
    )
    Reranker.objects.create(project=project, training_run=training, name="student-1", kind="lora", release="held_back")
    DatasetImport.objects.create(
        project=project, file="corpus.jsonl", importer="zbench-jsonl", summary="", left_out=7, left_out_rows=b"x"
    )
    shown = page(client, "project", project.slug)
    assert "3 of 10 gold answers were right" in box_of(shown, f"person-{person.pk}")
    assert "publish it anyway" in box_of(shown, f"student-{training.pk}")
    for address in (
        reverse("people", args=[project.slug]),
        reverse("training-run", args=[project.slug, training.pk]),
        reverse("imports", args=[project.slug]),
    ):
        assert f'href="{address}"' in shown
    assert "The import of corpus.jsonl left out 7 rows." in shown


@pytest.mark.django_db
def test_a_certainty_below_its_purpose_leads_to_a_run_on_those_queries(client: Client, project: Project) -> None:
    query = make_query(project, size=30)
    score(query, [0.01 * at for at in range(30)], stderr=1.0)
    QueryFit.objects.filter(query=query).update(judgments=30)
    page(client, "project-figures", project.slug)
    shown = page(client, "project", project.slug)
    assert "the top ten is reliable from" in shown
    address = f"{reverse('new-run', args=[project.slug])}?certainty_below=0.9"
    assert f'href="{address}"' in shown
    assert 'name="certainty_below" inputmode="decimal"' in (form := client.get(address).content.decode())
    assert 'value="0.9"' in form


@pytest.mark.django_db
def test_dead_letters_of_each_reason_have_their_own_button(client: Client, project: Project) -> None:
    query = make_query(project)
    score(query, [0.3, 0.2, 0.1])
    run = make_run(project)
    judge = Annotator.objects.create(project=project, name="gpt", plugin="openai-http", config_hash="j" * 64)
    first, second, third = query.candidates.order_by("id")
    for reason, (a, b) in {"timeout": (first, second), "refusal": (first, third)}.items():
        JudgingTask.objects.create(
            run=run,
            pair=query.pairs.create(a=a, b=b),
            annotator=judge,
            state="dead",
            reason=reason,
            message=f"a {reason}",
        )
    shown = page(client, "project", project.slug)
    for reason in ("timeout", "refusal"):
        assert "1 question got no answer" in (box := box_of(shown, f"dead-{reason}")) and f"a {reason}" in box
        assert f'id="retry-{reason}"' in shown


@pytest.mark.parametrize(
    ("kind", "message", "cause"),
    [
        ("bad_request", "HTTP 404: no model is named 'x'", Cause.OTHER),
        ("bad_request", "HTTP 401: Incorrect API key provided; correct the key", Cause.KEY_REFUSED),
        ("unavailable", "connection refused", Cause.UNREACHABLE),
        ("unavailable", "HTTP 503: overloaded", Cause.SERVER_ERROR),
        ("context_overflow", "900 tokens exceed the memory of the device; lower max_document_tokens", Cause.GPU_MEMORY),
        ("", "OSError: [Errno 28] No space left on device", Cause.DISK_FULL),
    ],
)
def test_the_cause_is_read_from_kind_and_message(kind: str, message: str, cause: Cause) -> None:
    assert cause_of(kind, message) is cause
    assert all((words := words_of(cause)).__getattribute__(part) for part in ("what", "again", "todo")), words
