"""REST of texts and keys: bulk upserts with errors by line, pages by cursor, imported ids, comparisons behind a score."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labeling.models import AuditEntry, Candidate, Document, Query
from tests.factories.api import Api
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def send(api: Api, slug: str, kind: str, *rows: Any) -> Any:
    lines = b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    address = f"/api/v1/projects/{slug}/{kind}/bulk"
    return api.client.post(address, lines, content_type="application/x-ndjson", headers=api.headers)


def test_bulk_upserts_build_a_project_and_replace_what_differs() -> None:
    owner = make_user()
    api, slug = Api(owner), make_project(owner=owner).slug
    assert send(api, slug, "queries", {"id": "q1", "text": "who"}).json()["created"] == 1
    documents = [{"id": f"d{n}", "text": f"text {n}", "metadata": {"n": n}} for n in range(3)]
    assert send(api, slug, "documents", *documents).json() == {
        "rows": 3, "created": 3, "replaced": 0, "unmatched": 0,
    }  # fmt: skip
    candidates = [{"query_id": "q1", "document_id": f"d{n}", "score": n} for n in range(2)]
    assert send(api, slug, "candidates", *candidates).json()["created"] == 2
    grades = [{"query_id": "q1", "document_id": f"d{n}", "grade": n} for n in range(3)]
    found = send(api, slug, "grades", *grades).json()
    assert (found["rows"], found["unmatched"]) == (3, 1)
    assert list(Candidate.objects.order_by("document__external_id").values_list("first_stage_rank", "grade")) == [
        (2, 0), (1, 1),
    ]  # fmt: skip
    found = send(api, slug, "documents", {"id": "d0", "text": "another"}, documents[1]).json()
    assert (found["created"], found["replaced"]) == (0, 1)
    assert Document.objects.get(external_id="d0").text == "another"
    entries = AuditEntry.objects.filter(action="data.imported")
    assert {entry.subject for entry in entries} == {"queries", "documents", "candidates", "grades"}
    before = entries.count()
    assert send(api, slug, "grades", *grades).json()["created"] == 0
    assert entries.count() == before, "what changes nothing leaves no entry"


def test_judgments_by_bulk_are_votes_of_their_annotators_and_repeats_change_nothing() -> None:
    owner = make_user()
    api, project = Api(owner), make_project(owner=owner, queries=1)
    query = project.queries.get()
    a, b = query.candidates.order_by("id").values_list("document__external_id", flat=True)[:2]
    row = {"query_id": query.external_id, "a_id": a, "b_id": b, "preference": 0.9, "annotator": "anna"}
    rows = [row, {**row, "annotator": "ben", "preference": None, "kind": "both_irrelevant", "by_person": True}]
    found = send(api, project.slug, "judgments", *rows).json()
    assert (found["rows"], found["created"], found["replaced"]) == (2, 2, 0)
    assert send(api, project.slug, "judgments", *rows).json()["created"] == 0
    assert send(api, project.slug, "judgments", {**row, "preference": 0.2}).json()["replaced"] == 1
    candidate = query.candidates.order_by("id")[0]
    answers = api.get(f"/candidates/{candidate.pk}/comparisons").json()
    assert {(each["annotator"], each["preference"]) for each in answers} == {("anna", 0.2), ("ben", None)}
    bad = [{**row, "preference": 2}, {**row, "b_id": a}, {**row, "kind": "maybe"}, {**row, "kind": "cannot_judge"}]
    assert [each["line"] for each in send(api, project.slug, "judgments", *bad).json()["errors"]] == [1, 2, 3, 4]
    assert send(api, project.slug, "judgments", {**row, "a_id": "none"}).status_code == 422


def test_bad_lines_are_all_listed_and_nothing_is_stored() -> None:
    owner = make_user()
    api, slug = Api(owner), make_project(owner=owner).slug
    rows = [{"id": "q1", "text": "who"}, b"oops", {"id": "q2"}, {"id": "q3", "text": "x", "txt": 1}, b"[]"]
    answer = send(api, slug, "queries", *rows)
    assert answer.status_code == 422 and answer["Content-Type"] == "application/problem+json"
    assert [each["line"] for each in answer.json()["errors"]] == [2, 3, 4, 5]
    assert not Query.objects.exists()
    assert send(api, slug, "queries").status_code == 422
    assert len(send(api, slug, "queries", *[b"x"] * 300).json()["errors"]) == 100
    assert (
        send(api, slug, "grades", {"query_id": "q", "document_id": "d", "grade": -1}).json()["errors"][0]["line"] == 1
    )
    twice = send(api, slug, "queries", rows[0], rows[0])
    assert [each["line"] for each in twice.json()["errors"]] == [2]


def test_pages_by_cursor_show_every_row_once_and_imported_ids_find_it() -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1, documents=5)
    api, seen = Api(owner), []
    for kind, id_of in (("documents", "external_id"), ("candidates", "document"), ("queries", "external_id")):
        address, seen = f"/projects/{project.slug}/{kind}?limit=2", []
        while address:
            answer = api.get(address)
            seen += [row[id_of] for row in answer.json()]
            link = answer.headers.get("Link", "")
            address = link.partition("/api/v1")[2].partition(">")[0]
        assert len(seen) == len(set(seen)) == (1 if kind == "queries" else 5)
    first = Document.objects.order_by("pk")[0].external_id
    assert [
        row["external_id"] for row in api.get(f"/projects/{project.slug}/documents?external_id={first}").json()
    ] == [first]
    assert len(api.get(f"/projects/{project.slug}/queries?external_id={seen[0]}").json()) == 1
    assert len(api.get(f"/projects/{project.slug}/candidates?document={first}").json()) == 1
    assert api.get(f"/projects/{project.slug}/documents?cursor=x").status_code == 422


def test_comparisons_behind_a_score() -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1, documents=3)
    query = project.queries.get()
    pair = make_pair(query)
    judge_pair(pair, make_judges(project)[0], 0.9)
    rows = Api(owner).get(f"/candidates/{pair.a_id}/comparisons").json()
    assert [(row["pair_id"], row["preference"], row["document_a"]) for row in rows] == [
        (pair.pk, 0.9, pair.a.document.external_id)
    ]
    assert Api(owner).get(f"/candidates/{query.candidates.last().pk}/comparisons").json() == []


def test_keys_are_made_listed_and_revoked_and_never_gain_scopes() -> None:
    owner = make_user()
    api = Api(owner)
    made = api.post("/keys", {"name": "ci", "scopes": ["read"]})
    assert made.status_code == 201 and made.json()["key"].startswith("zelo_")
    assert api.post("/keys", {"name": "more", "scopes": ["rerank"]}).status_code == 403
    keys = {row["name"]: row["id"] for row in api.get("/keys").json()}
    address = f"/api/v1/keys/{keys['ci']}"
    assert Api(make_user()).client.delete(address, headers=Api(make_user()).headers).status_code == 404
    assert api.client.delete(address, headers=api.headers).status_code == 204
    assert "ci" not in {row["name"] for row in api.get("/keys").json()}
