"""REST of projects: what the list shows and costs; imports and exports over REST, on the page and by command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from labeling.models import Candidate, Project, UnmatchedGrade
from scoring.models import Score
from tests.factories.api import Api
from tests.factories.rows import make_project, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def listed(api: Api) -> tuple[list[dict[str, Any]], int]:
    """The rows of GET /projects, and how many statements they took."""
    with CaptureQueriesContext(connection) as statements:
        rows = api.get("/projects").json()
    return rows, len(statements)


def test_a_list_of_projects_costs_as_much_as_one() -> None:
    owner = make_user()
    api = Api(owner)
    first = make_project(owner=owner, queries=2, documents=3)
    listed(api)  # notes the key's use, once a minute
    rows, alone = listed(api)
    assert [(row["slug"], row["queries"], row["documents"], row["candidates"]) for row in rows] == [
        (first.slug, 2, 6, 6)
    ]
    for _ in range(3):
        make_project(owner=owner)
    rows, several = listed(api)
    assert [row["queries"] for row in rows] == [0, 0, 0, 2]
    assert several == alone


GOOD = {
    "query": {"id": "q 1", "query": "what"},
    "documents": [{"id": "d1", "content": "a"}, {"id": "d2", "content": "b"}],
}
FILE = b"oops\n" + json.dumps(GOOD).encode()
GRADES = b"q 1\t1\td1\t1\nq 1\t2\td1\t3\nq 1\t1\td2\t-1\n"
GRADE_OPTIONS = {"negative": "ungraded", "repeated": "maximum"}


def upload(api: Api, path: str, data: bytes) -> Any:
    return api.client.post(f"/api/v1{path}", {"file": SimpleUploadedFile("f", data)}, headers=api.headers)


def graded() -> list[tuple[str, int | None]]:
    return list(Candidate.objects.order_by("id").values_list("document__external_id", "grade"))


def test_rest_leaves_bad_rows_out_and_passes_options_on_where_asked() -> None:
    owner = make_user()
    api, path = Api(owner), f"/projects/{make_project(owner=owner).slug}/imports"
    assert upload(api, path, FILE).status_code == 422
    found = upload(api, f"{path}?leave_out_bad_rows=true", FILE).json()
    assert (found["queries"], found["candidates"]) == (1, 2)
    assert [(each["count"], each["lines"]) for each in found["left_out"]] == [(1, [1])]
    assert upload(api, f"{path}?importer=trec-qrels", GRADES).status_code == 422
    for refused in ('{"negative": "x"}', "[]", "{"):
        assert upload(api, f"{path}?importer=trec-qrels&options={refused}", GRADES).status_code == 422
    assert upload(api, f"{path}?importer=trec-qrels&options={json.dumps(GRADE_OPTIONS)}", GRADES).status_code == 200
    assert graded() == [("d1", 3), ("d2", None)]


def test_the_page_leaves_bad_rows_out_and_passes_options_on_where_chosen(client: Client) -> None:
    owner = make_user()
    project = make_project(owner=owner)
    client.force_login(owner)
    address = reverse("import", args=[project.slug])

    def send(**chosen: str) -> Any:
        files = {"file": SimpleUploadedFile("f", FILE), "grades": SimpleUploadedFile("g", GRADES)}
        return client.post(address, {**files, **chosen})

    assert send(negative_ungraded="on", repeated_maximum="on").status_code == 422
    assert graded() == []
    assert send(leave_out="on", negative_ungraded="on", repeated_maximum="on").status_code == 302
    assert graded() == [("d1", 3), ("d2", None)]
    assert "1 left out" in client.get(reverse("project", args=[project.slug])).content.decode()


def test_the_command_leaves_bad_rows_out_and_passes_options_on_where_asked(tmp_path: Path) -> None:
    slug = make_project(owner=make_user()).slug
    rows, grades, out = tmp_path / "rows", tmp_path / "grades", io.StringIO()
    rows.write_bytes(FILE)
    grades.write_bytes(GRADES)
    with pytest.raises(CommandError, match="line 1"):
        call_command("import", slug, rows)
    call_command("import", slug, rows, leave_out_bad_rows=True, stdout=out)
    assert "1 left out" in out.getvalue()
    for wrong in ("{", "[]", '{"negative": "x"}'):
        with pytest.raises(CommandError):
            call_command("import", slug, grades, importer="trec-qrels", options=wrong)
    call_command("import", slug, grades, importer="trec-qrels", options=json.dumps(GRADE_OPTIONS))
    assert graded() == [("d1", 3), ("d2", None)]


def test_an_id_that_a_format_cannot_write_is_a_message(tmp_path: Path) -> None:
    owner = make_user()
    project: Project = make_project(owner=owner, queries=1, documents=2)
    _rate(project)
    project.queries.update(external_id="q 1")
    answer = Api(owner).get(f"/projects/{project.slug}/exports/trec-run")
    assert answer.status_code == 422 and "q 1" in answer.json()["detail"]
    with pytest.raises(CommandError, match="'q 1' contains a space"):
        call_command("export", project.slug, format="trec-run", to=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def _rate(project: Project) -> None:
    for candidate in Candidate.objects.filter(query__project=project):
        Score.objects.create(
            candidate=candidate, theta=0.1, stderr=0.2, elo=1500.0, elo_stderr=9.0, relevance=0.5, comparisons=4,
            judged_version=1,
        )  # fmt: skip


TABLE = b"nr;frage;text;note\n1;who;a;3\n1;who;b;\n2;what;a;x\n"


def test_rest_and_the_command_preview_a_file_of_any_format_and_store_nothing(tmp_path: Path) -> None:
    owner = make_user()
    slug = make_project(owner=owner).slug
    api, file, out = Api(owner), tmp_path / "qrels.txt", io.StringIO()
    found = upload(api, f"/projects/{slug}/imports/preview", b"q1 0 d1 1\nq1 0 d2 x\n").json()
    assert found["importer"] == "trec-qrels" and found["errors"], "one column of grades is no number"
    options = json.dumps({"query_id": "nr", "query": "frage", "grade": "note"})
    found = upload(api, f"/projects/{slug}/imports/preview?importer=table&options={options}", TABLE).json()
    assert (found["queries"], found["candidates"], found["grades"]) == (1, 2, 1)
    assert [row["kind"] for row in found["rows"]] == [
        "query",
        "document",
        "candidate",
        "grade",
        "document",
        "candidate",
    ]
    assert [(each["count"], each["lines"]) for each in found["reasons"]] == [(1, [4])]
    file.write_bytes(b"q1 0 d1 1\n")
    call_command("import", slug, file, dry_run=True, stdout=out)
    assert out.getvalue() == "format trec-qrels: 1 grades\n"
    assert not Candidate.objects.exists() and not UnmatchedGrade.objects.exists()
    with pytest.raises(CommandError, match="1 left out, grade"):
        file.write_bytes(b"q1 0 d1 x\n")
        call_command("import", slug, file, importer="trec-qrels", dry_run=True)


def test_the_page_detects_the_format_and_imports_by_the_corrected_columns(client: Client) -> None:
    owner = make_user(is_staff=True)
    project = make_project(owner=owner)
    client.force_login(owner)

    def send(address: str, **chosen: str) -> Any:
        return client.post(address, {"file": SimpleUploadedFile("t.csv", TABLE), "importer": "auto", **chosen})

    preview, address = reverse("preview-import"), reverse("import", args=[project.slug])
    html = send(preview).content.decode()
    assert "Table (CSV, TSV, JSON, Parquet)" in html and 'value="table:t.csv"' in html
    assert '<option value="frage">frage</option>' in html, "an unknown column can be chosen"
    columns = {"query": "frage", "query_id": "nr", "document": "text", "grade": "note"}
    chosen = {f"format-{role}": name for role, name in columns.items()} | {"format_for_file": "table:t.csv"}
    html = send(preview, **chosen).content.decode()
    assert '<option value="frage" selected>' in html
    assert "grade: expected a whole number" in html
    assert send(address, **chosen).status_code == 422
    assert send(address, leave_out="on", **chosen).status_code == 302
    assert Candidate.objects.filter(query__text="who").count() == 2
    html = send(preview, **chosen | {"format_for_file": "table:other.csv"}).content.decode()
    assert '<option value="frage" selected>' not in html, "the columns of another file"


def test_rest_the_command_and_the_page_replace_what_has_changed_where_asked(client: Client, tmp_path: Path) -> None:
    owner = make_user()
    project = make_project(owner=owner)
    api, file, path = Api(owner), tmp_path / "rows.csv", f"/projects/{project.slug}/imports"
    client.force_login(owner)

    def table(text: str) -> bytes:
        return f"id,text\nd1,{text}\n".encode()

    def text() -> str:
        return project.documents.get().text

    assert upload(api, path, table("one")).status_code == 200
    assert upload(api, path, table("two")).status_code == 422
    assert upload(api, f"{path}?replaces=true", table("two")).status_code == 200 and text() == "two"
    file.write_bytes(table("three"))
    call_command("import", project.slug, file, replace=True)
    assert text() == "three"
    sent = {"file": SimpleUploadedFile("t.csv", table("four")), "replaces": "on"}
    assert client.post(reverse("import", args=[project.slug]), sent).status_code == 302 and text() == "four"
