"""Files in and out on pages, over REST and by command: judgments, past imports, what was left out, downloads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from labeling.importing.dataset import import_dataset
from labeling.models import AuditEntry, DatasetImport, Document, Judgment, Membership, Project
from tests.factories.api import Api
from tests.factories.rows import make_project, make_user
from workers.runs.ordering import RunRefused, start_run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    return make_project(owner=make_user(), queries=1, documents=3)


def names(project: Project) -> tuple[str, list[str]]:
    query = project.queries.get()
    return query.external_id, [each.document.external_id for each in query.candidates.order_by("id")]


@pytest.fixture
def answers(project: Project) -> bytes:
    query, (a, b, c) = names(project)
    rows = [f"{query},{a},{b},a,anna", f"{query},{a},{c},b,ben", f"{query},{a},missing,b,ben"]
    return "\n".join(["query,a,b,winner,annotator", *rows, ""]).encode()


def test_judgments_come_in_on_the_page_and_what_was_left_out_is_downloaded(project: Project, answers: bytes) -> None:
    owner = Membership.objects.get(project=project).user
    client = Client()
    client.force_login(owner)
    form = {"file": SimpleUploadedFile("answers.csv", answers), "project": project.slug}
    preview = client.post(reverse("preview-import"), form, headers={"hx-request": "true"}).content.decode()
    assert "anna prefers" in preview and "Annotators: anna, ben" in preview and "a document of the project" in preview
    refused = client.post(reverse("import", args=[project.slug]), {"file": SimpleUploadedFile("answers.csv", answers)})
    assert refused.status_code == 422 and not Judgment.objects.exists() and not DatasetImport.objects.exists()
    form = {"file": SimpleUploadedFile("answers.csv", answers), "leave_out": "on"}
    assert client.post(reverse("import", args=[project.slug]), form).status_code == 302
    assert Judgment.objects.count() == 2
    page = client.get(reverse("imports", args=[project.slug])).content.decode()
    report = DatasetImport.objects.get()
    address = reverse("left-out", args=[project.slug, report.pk])
    assert "answers.csv" in page and address in page and "anna" in page and "ben" in page
    rows = b"".join(client.get(address, {"format": "jsonl"}).streaming_content).splitlines()  # type: ignore[attr-defined]
    assert [json.loads(line)["line"] for line in rows] == [4]
    table = b"".join(client.get(address).streaming_content).decode()  # type: ignore[attr-defined]
    assert table.startswith("line,field,problem,expected,remedy\r\n4,document,")


def test_judgments_come_in_over_rest_and_by_command(project: Project, answers: bytes, tmp_path: Path) -> None:
    api = Api(Membership.objects.get(project=project).user)

    def post(path: str, **query: Any) -> Any:
        address = f"/api/v1/projects/{project.slug}/imports{path}"
        data = {"file": SimpleUploadedFile("f", answers)}
        return api.client.post(address, data, query_params=query, headers=api.headers)

    found = post("/preview").json()
    assert (found["importer"], found["judgments"], len(found["errors"])) == ("preferences", 2, 1)
    assert found["rows"][0]["kind"] == "preference"
    assert post("").status_code == 422
    stored = post("", leave_out_bad_rows="true").json()
    assert (stored["judgments_created"], stored["judgments_changed"], stored["left_out"][0]["count"]) == (2, 0, 1)
    (listed,) = api.get(f"/projects/{project.slug}/imports").json()
    assert (listed["id"], listed["left_out"]) == (stored["import_id"], 1)
    rows = api.get(f"/projects/{project.slug}/imports/{listed['id']}/left-out")
    assert json.loads(b"".join(rows.streaming_content))["line"] == 4
    assert api.get(f"/projects/{project.slug}/imports?cursor={listed['id']}").json() == []
    path, left = tmp_path / "answers.csv", tmp_path / "left.csv"
    path.write_bytes(answers)
    with pytest.raises(CommandError, match="document: expected a document of the project"):
        call_command("import", project.slug, str(path), "--dry-run", stderr=io.StringIO(), stdout=io.StringIO())
    out = io.StringIO()
    call_command("import", project.slug, str(path), "--leave-out-bad-rows", "--left-out", str(left), stdout=out)
    assert "2 judgments (0 new), 1 left out" in out.getvalue() and left.read_text().count("\n") == 2


def test_raters_are_listed_with_their_agreement(project: Project) -> None:
    query, documents = names(project)
    lines = [f"{query},{each},{grade},{who}" for each in documents for who, grade in (("anna", 2), ("ben", 1))]
    data = "\n".join(["query_id,document_id,grade,rater", *lines, ""]).encode()
    api = Api(Membership.objects.get(project=project).user)
    api.client.post(
        f"/api/v1/projects/{project.slug}/imports", {"file": SimpleUploadedFile("g.csv", data)}, headers=api.headers
    )
    anna, _ben = api.get(f"/projects/{project.slug}/raters").json()
    assert (anna["name"], anna["grades"], anna["compared"], anna["same"]) == ("anna", 3, 3, 0.0)
    client = Client()
    client.force_login(Membership.objects.get(project=project).user)
    assert "lower median" in client.get(reverse("imports", args=[project.slug])).content.decode()


def test_exports_are_downloaded_with_options_and_a_failure_is_said(project: Project, answers: bytes) -> None:
    owner = Membership.objects.get(project=project).user
    client, api = Client(), Api(owner)
    client.force_login(owner)
    page = client.get(reverse("exports", args=[project.slug])).content.decode()
    for exporter in ("trec-run", "beir", "judgments-parquet", "st-triplets", "argilla-pairs", "hugging-face"):
        address = reverse("download", args=[project.slug, exporter])
        assert address in page
        response = client.get(address)
        assert response.status_code == 200 and project.slug in response["Content-Disposition"]
        b"".join(response.streaming_content)  # type: ignore[attr-defined]
        assert api.get(f"/projects/{project.slug}/exports/{exporter}").status_code == 200
    address = reverse("download", args=[project.slug, "beir"])
    made = b"".join(client.get(address, {"o-beir-split": "dev"}).streaming_content)  # type: ignore[attr-defined]
    assert b"qrels/dev.tsv" in made
    assert client.get(address, {"o-beir-split": "a b"}).status_code == 422
    options = json.dumps({"split": "dev"})
    assert api.get(f"/projects/{project.slug}/exports/beir?options={options}").status_code == 200
    assert api.get(f"/projects/{project.slug}/exports/beir?options={{}}x").status_code == 422
    document = Document.objects.filter(project=project).first()
    assert document is not None
    Document.objects.filter(pk=document.pk).update(external_id="d 1")
    document.candidates.update(grade=1)
    refused = client.get(reverse("download", args=[project.slug, "trec-qrels"]))
    assert refused.status_code == 422 and "contains a space" in refused.content.decode()
    assert AuditEntry.objects.filter(action="texts.exported", actor=owner).count() == 4


def test_the_command_exports_with_options(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "set.zip"
    options = ["--options", '{"split": "dev"}']
    call_command("export", project.slug, "--format", "beir", "--to", str(target), *options, stdout=io.StringIO())
    assert b"qrels/dev.tsv" in target.read_bytes()
    with pytest.raises(CommandError, match="split"):
        call_command("export", project.slug, "--format", "beir", "--to", str(target), "--options", '{"split": ""}')


@pytest.mark.django_db(transaction=True)
def test_pages_show_imported_people_and_models(project: Project, answers: bytes) -> None:
    client = Client()
    client.force_login(Membership.objects.get(project=project).user)
    for people in (False, True):
        data = answers if people else answers.replace(b"anna", b"model a").replace(b"ben", b"model b")
        options = {"annotators_are": "people" if people else "models"}
        import_dataset(
            project, io.BytesIO(data), importer="auto", options=options, leave_out_bad_rows=True, filename="f"
        )
    for name in (
        "project",
        "people",
        "people-agreement",
        "scorecard",
        "disagreements",
        "new-run",
        "queries",
        "imports",
    ):
        assert client.get(reverse(name, args=[project.slug])).status_code == 200, name
    assert "Imported judgments" not in client.get(reverse("new-run", args=[project.slug])).content.decode()
    scorecard = client.get(reverse("scorecard", args=[project.slug])).content.decode()
    assert "model a" in scorecard
    query = project.queries.get()
    assert client.get(reverse("query", args=[project.slug, query.pk])).status_code == 200
    with pytest.raises(RunRefused, match="its answers were imported"):
        start_run(project, judges=list(project.annotators.filter(is_person=False)[:1]))
