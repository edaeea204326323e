"""What is stored of a request, how long, and how it becomes queries of the project."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from labeling.importing.bulk import upsert_lines
from labeling.models import AuditEntry, Candidate, Document, Query
from tests.factories.rows import make_project, make_user
from tests.factories.world.deployments import make_logged_request
from trainer.deployments import request_log
from trainer.deployments.request_log import answered, import_logged, purge_due, to_log, trim
from trainer.deployments.routing import target_of
from trainer.models import Deployment, LoggedRequest, Reranker
from trainer.serving.registry import TRAINED

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment() -> Deployment:
    project = make_project(owner=make_user("owner"), queries=0)
    made = Reranker.objects.create(project=project, name="v1", kind=TRAINED, location="x", checksum="0" * 64)
    return Deployment.objects.create(project=project, name="search", current=made, log_share=100, log_days=7)


REPLY = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
TEI = [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]
SCORED = {"data": [{"index": 0, "score": 0.1}, {"index": 1, "score": 0.9}]}


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        ("/v2/rerank", {"documents": ["a", {"text": "b"}]}, REPLY),
        ("/rerank/", {"texts": ["a", "b"]}, TEI),
        ("/score", {"text_1": "q", "text_2": ["a", "b"]}, SCORED),
    ],
)
def test_every_dialect_is_read_alike(path: str, body: dict[str, Any], reply: Any) -> None:
    found = answered(path, json.dumps({"query": "q"} | body).encode(), json.dumps(reply).encode())
    assert found is not None
    assert (found.query, found.documents, dict(found.scores)) == ("q", ("a", "b"), {0: 0.1, 1: 0.9})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "a"}),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c", "d"]}),
        ("/v2/rerank", {"documents": 1}),
    ],
)
def test_what_is_no_single_ranking_is_not_stored(path: str, body: dict[str, Any]) -> None:
    assert answered(path, json.dumps({"query": "q"} | body).encode(), b"{}") is None


def test_texts_are_redacted_shortened_and_the_best_documents_kept(deployment: Deployment) -> None:
    documents = [f"document {row} of emmy@example.org" for row in range(300)]
    scores = [{"index": row, "relevance_score": 1 - row / 1000} for row in reversed(range(300))]
    body = {"query": "who is\u0000 emmy@example.org " + "x" * 30_000, "documents": documents}
    request = answered("/v2/rerank", json.dumps(body).encode(), json.dumps({"results": scores}).encode())
    assert request is not None
    row = to_log(request, target_of(deployment).route("1"), milliseconds=12)
    row.save()
    row.refresh_from_db()
    assert row.query.startswith("who is  [email] ") and len(row.query) <= request_log.LONGEST_TEXT
    assert [each["place"] for each in row.documents] == list(range(1, 201))
    assert row.documents[1] == {"text": "document 1 of [email]", "place": 2, "score": pytest.approx(0.999)}
    assert row.redactions == 201 and (row.expires_at - row.at).days in (6, 7)


@pytest.mark.parametrize("before", [0, 400])
def test_what_stands_at_the_cut_is_redacted_too(deployment: Deployment, before: int) -> None:
    mails = "emmy.noether.of.erlangen@mathematics.example.org " * before
    for cut in (request_log.LONGEST_TEXT, request_log.LONGEST_TEXT + request_log.BEYOND):
        text = (mails + "x" * cut)[: cut - 8] + " emmy.noether@example.org and more" + "y" * 1000
        request = request_log.Answered("q", (text,), {0: 1.0})
        (stored,) = to_log(request, target_of(deployment).route("1"), milliseconds=1).documents
        assert "emmy" not in stored["text"] and len(stored["text"]) <= request_log.LONGEST_TEXT


def test_old_requests_go(deployment: Deployment) -> None:
    make_logged_request(deployment, days=-0.01)
    kept = [make_logged_request(deployment).pk for _ in range(3)]
    assert purge_due() == 1
    trim(deployment.pk, most=2)
    assert sorted(LoggedRequest.objects.values_list("pk", flat=True)) == kept[1:]


def test_logged_requests_become_queries_with_candidates(deployment: Deployment) -> None:
    project = deployment.project
    Document.objects.create(project=project, external_id="bread", text=" Bread. ")
    make_logged_request(deployment, documents=["Gills take oxygen.", "Bread.", "Gills take oxygen."])
    make_logged_request(deployment, query="how do fish breathe ", documents=["Gills take oxygen.", "Water."])
    make_logged_request(deployment, query="what do carp eat", documents=["Worms."])
    found = import_logged(deployment)
    assert (found.requests, found.queries, found.documents, found.known) == (3, 2, 3, 0)
    fish = Query.objects.get(project=project, text="how do fish breathe")
    texts = set(Candidate.objects.filter(query=fish).values_list("document__text", flat=True))
    assert texts == {"Gills take oxygen.", " Bread. ", "Water."}
    assert fish.candidates.filter(document__external_id="bread").exists()
    assert fish.metadata["deployment"] == "search" and set(fish.candidates.values_list("grade", flat=True)) == {None}
    assert AuditEntry.objects.filter(action="data.imported").count() == 1
    again = import_logged(deployment)
    assert (again.requests, again.queries) == (0, 0) and Query.objects.filter(project=project).count() == 2


def test_later_requests_of_an_imported_query_add_documents_to_it(deployment: Deployment) -> None:
    make_logged_request(deployment, documents=["Bread."])
    import_logged(deployment)
    make_logged_request(deployment, documents=["Bread.", "Water."])
    found = import_logged(deployment)
    assert (found.queries, found.documents, found.known) == (0, 1, 0)
    assert Candidate.objects.filter(query__project=deployment.project).count() == 2


def test_queries_of_the_project_are_left_as_they_are(deployment: Deployment) -> None:
    upsert_lines(deployment.project, "queries", io.BytesIO(b'{"id": "q1", "text": "how do fish breathe"}'))
    make_logged_request(deployment)
    found = import_logged(deployment)
    assert (found.requests, found.queries, found.known) == (1, 0, 1)
    assert not Candidate.objects.filter(query__project=deployment.project).exists()
