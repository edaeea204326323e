"""Candidates as work in the background: ordered, carried out once, found again, its failures said."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.db.models import F

from labeling import plugins
from labeling.importing.dataset import ImportFailed, import_dataset
from labeling.models import Candidate, Document, Project, Query
from labeling.plugins import UnknownPlugin
from labeling.retrieval.bm25 import BM25Retriever
from tests.factories.api import Api
from tests.factories.broker import WaitingHints
from tests.factories.rows import make_member, make_project, make_user
from workers import reconciler
from workers.jobs import leasing
from workers.jobs.candidates import AlreadyFilling, FillRefused, fill, order_candidates, waiting_fill_ids
from workers.models import Job

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner() -> Any:
    return make_user()


@pytest.fixture
def project(owner: Any) -> Project:
    """Two queries without documents beside a corpus of three; one query shares no word with it."""
    project = make_project(owner=owner)
    Query.objects.create(project=project, external_id="q1", text="do goldfish grow")
    Query.objects.create(project=project, external_id="q2", text="zeppelin")
    for place, text in enumerate(["goldfish grow as long as they live", "goldfish eat", "bread is baked"]):
        Document.objects.create(project=project, external_id=f"d{place}", text=text)
    return project


def test_a_job_retrieves_what_is_missing_and_says_so(project: Project) -> None:
    job = order_candidates(project, "bm25", {}, 10)
    fill(job.pk, worker="here")
    job.refresh_from_db()
    assert (job.state, job.done, job.total, job.error) == (Job.State.FINISHED, 2, 2, "")
    assert job.message == "2 candidates retrieved; queries that found none in the project's documents: 1"
    assert Candidate.objects.filter(query__external_id="q1", first_stage_rank=1).get().document.external_id == "d0"


def test_two_unfinished_jobs_of_a_project_cannot_exist(project: Project) -> None:
    first = order_candidates(project, "bm25")
    with pytest.raises(AlreadyFilling, match=f"job {first.pk}"):
        order_candidates(project, "bm25")
    with pytest.raises(IntegrityError, match="job_unfinished_once_without_run"), transaction.atomic():
        Job.objects.create(project=project, stage="candidates")
    fill(first.pk)
    assert order_candidates(project, "bm25").pk != first.pk


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ({"retriever": "no-such"}, UnknownPlugin),
        ({"options": {"no_such": 1}}, pydantic.ValidationError),
        ({"k": 0}, FillRefused),
        ({"k": 10**9}, FillRefused),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused(
    project: Project, order: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        order_candidates(project, **order)
    assert not Job.objects.exists()


def test_a_retriever_that_fails_leaves_its_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZELO_MODELS", str(tmp_path))  # a folder without a model in it
    job = order_candidates(project, "dense", options={"model": str(tmp_path)})
    fill(job.pk)
    job.refresh_from_db()
    assert (job.state, job.lease_until) == (Job.State.FAILED, None)
    assert job.error.startswith(f"UnknownEmbedder: model '{tmp_path}' cannot be loaded")


def test_queries_may_come_without_documents_and_find_those_of_others(owner: Any) -> None:
    project = make_project(owner=owner)
    corpus = b'{"query": {"id": "q1", "query": "fish"}, "documents": [{"id": "d1", "content": "goldfish grow"}]}\n'
    bare = b'{"query": {"id": "q2", "query": "do goldfish grow"}, "documents": []}\n'
    import_dataset(project, io.BytesIO(corpus + bare))
    fill(order_candidates(project, "bm25").pk)
    assert Candidate.objects.get(query__external_id="q2").document.external_id == "d1"


def test_a_line_without_documents_is_told_how_to_have_them_retrieved(owner: Any) -> None:
    with pytest.raises(ImportFailed, match=re.escape("[] to retrieve them")):
        import_dataset(make_project(owner=owner), io.BytesIO(b'{"query": {"id": "q", "query": "fish"}}\n'))


def silent(job: Job) -> None:
    """As if its worker had died a while ago."""
    Job.objects.filter(pk=job.pk).update(state="leased", lease_until="2020-01-01T00:00Z", leased_by="gone")


def test_a_job_under_way_is_left_alone_and_that_of_a_dead_worker_done_again(
    project: Project, sent_hints: WaitingHints
) -> None:
    job = order_candidates(project, "bm25")
    sent_hints.clear()
    assert waiting_fill_ids() == [job.pk]
    Job.objects.filter(pk=job.pk).update(state="leased", lease_until="2100-01-01T00:00Z")
    fill(job.pk)
    reconciler.reconcile_once()
    assert not Candidate.objects.exists()
    assert not sent_hints
    silent(job)
    reconciler.reconcile_once()
    assert sent_hints == [("fill", job.pk)]
    fill(job.pk)
    assert Candidate.objects.count() == 2


def test_a_job_that_kills_its_workers_is_given_up(project: Project) -> None:
    job = order_candidates(project, "bm25")
    silent(job)
    Job.objects.filter(pk=job.pk).update(attempts=leasing.MOST_ATTEMPTS)
    fill(job.pk)
    job.refresh_from_db()
    assert (job.state, Candidate.objects.count()) == (Job.State.FAILED, 0)
    assert "crashed 3 times" in job.error


class OvertakenRetriever(BM25Retriever):
    """While it works, another worker takes the job over."""

    name = "test-overtaken"

    def retrieve(self, *args: Any, **options: Any) -> Any:
        Job.objects.update(fence=F("fence") + 1)
        return super().retrieve(*args, **options)


class TooLargeRetriever(BM25Retriever):
    """Runs out of memory."""

    name = "test-too-large"

    def retrieve(self, *args: Any, **options: Any) -> Any:
        raise MemoryError("the corpus is too large")


@pytest.fixture
def faulty_retrievers(monkeypatch: pytest.MonkeyPatch) -> None:
    for retriever in (OvertakenRetriever, TooLargeRetriever):
        monkeypatch.setitem(plugins._registry, ("retriever", retriever.name), retriever)


@pytest.mark.usefixtures("faulty_retrievers")
def test_who_lost_the_lease_leaves_the_job_to_the_other(project: Project) -> None:
    job = order_candidates(project, "test-overtaken")
    fill(job.pk)
    job.refresh_from_db()
    assert (job.state, job.fence) == (Job.State.LEASED, 2)


# --- REST --------------------------------------------------------------------------------


def test_rest_orders_and_follows_the_job_without_retrieving(project: Project, owner: Any) -> None:
    api, path = Api(owner), f"/projects/{project.slug}/candidates"
    answer = api.post(path, {"retriever": "bm25", "k": 5})
    assert (answer.status_code, answer.json()["state"], Candidate.objects.count()) == (202, "open", 0)
    assert api.post(path).status_code == 409
    job = f"/jobs/{answer.json()['job_id']}"
    fill(answer.json()["job_id"])
    assert (api.get(job).json()["state"], api.get(job).json()["total"]) == ("finished", 2)
    assert Api(make_user()).get(job).status_code == 404
    assert api.get(f"/jobs/{10**30}").status_code == 404


def test_rest_names_a_bad_order_and_refuses_those_who_may_only_look(project: Project, owner: Any) -> None:
    path = f"/projects/{project.slug}/candidates"
    assert Api(owner).post(path, {"retriever": "no-such"}).status_code == 422
    assert Api(owner).post(path, {"options": {"no_such": 1}}).status_code == 422
    assert Api(make_member(project)).post(path).status_code == 403


# --- terminal ----------------------------------------------------------------------------


@contextlib.contextmanager
def working_here() -> Iterator[Callable[[], None]]:
    """In place of worker processes: each look at the clock carries out what waits."""

    def tick() -> None:
        for job_id in waiting_fill_ids():
            fill(job_id)

    yield tick


def test_command_shows_the_job_to_its_end(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zelo_site.management.commands.candidates.working", working_here)
    call_command("candidates", project.slug, retriever="bm25", options='{"k1": 1.2}')
    assert "2 candidates retrieved" in capsys.readouterr().out
    assert Job.objects.get().payload["options"]["k1"] == 1.2
    with pytest.raises(CommandError, match="no retriever is named"):
        call_command("candidates", project.slug, retriever="no-such")
    with pytest.raises(CommandError, match="--options"):
        call_command("candidates", project.slug, options="[1]")


@pytest.mark.usefixtures("faulty_retrievers")
def test_command_says_why_a_job_failed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zelo_site.management.commands.candidates.working", working_here)
    with pytest.raises(CommandError, match="the corpus is too large"):
        call_command("candidates", project.slug, retriever="test-too-large")
