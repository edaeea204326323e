"""Answers from files against a real PostgreSQL: annotators, idempotence, changes, raters' grades, what is left out."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from labeling.importing.dataset import ImportFailed, ImportSummary, import_dataset, preview_dataset
from labeling.importing.reports import left_out_file
from labeling.judgments import record_judgments
from labeling.models import (
    Annotator,
    AuditEntry,
    Candidate,
    DatasetImport,
    Judgment,
    Pair,
    Project,
    RaterGrade,
    UnmatchedGrade,
    config_hash,
)
from labeling.records import NewJudgment
from scoring.annotators.agreement import judge_figures
from scoring.annotators.rater_agreement import rater_figures
from scoring.exports.exporting import export
from scoring.rating import rate_stale
from tests.labeling.importing.files import load, row

pytestmark = pytest.mark.django_db
HEADER = "query,a,b,winner,annotator\n"


@pytest.fixture
def project() -> Project:
    made = Project.objects.create(name="Ponds", slug="ponds")
    load(made, row("q1", "d1", "d2", "d3"), row("q2", "d1", "d4"))
    return made


def take(project: Project, data: str | bytes, importer: str = "auto", file: str = "f", **rest: Any) -> ImportSummary:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return import_dataset(project, stream, importer=importer, filename=file, **rest)


def votes(project: Project) -> set[tuple[str, str, str, bool, str, float | None]]:
    """Annotator, better-known ids of the pair in its stored order, swapped, kind, preference of each live judgment."""
    names = ("annotator__name", "pair__a__document__external_id", "pair__b__document__external_id")
    live = Judgment.objects.filter(annotator__project=project, superseded_at__isnull=True)
    return set(live.values_list(*names, "swapped", "kind", "preference"))


def test_each_annotator_of_a_file_is_one_and_a_repeat_changes_nothing(project: Project) -> None:
    data = (
        HEADER + "q1,d1,d2,a,anna\nq1,d2,d1,a,anna\nq1,d3,d2,tie,ben\nq1,d1,d3,neither,ben\nq2,d4,d1,cannot_judge,ben\n"
    )
    summary = take(project, data)
    assert (summary.judgments, summary.judgments_created) == (5, 5)
    assert votes(project) == {
        ("anna", "d1", "d2", False, "preference", 1.0),
        ("anna", "d1", "d2", True, "preference", 0.0),
        ("ben", "d2", "d3", True, "preference", 0.5),
        ("ben", "d1", "d3", False, "both_irrelevant", None),
        ("ben", "d1", "d4", True, "cannot_judge", None),
    }
    assert {(each.name, each.plugin, each.is_person) for each in Annotator.objects.all()} == {
        ("anna", "imported", False),
        ("ben", "imported", False),
    }
    again = take(project, data, file="the same under another name")
    assert again.changed_nothing and again.judgments == 5
    assert Judgment.objects.count() == 5
    assert AuditEntry.objects.filter(action="data.imported", details__judgments=5).count() == 1
    assert project.queries.get(external_id="q1").judged_version > 0


def test_a_changed_file_supersedes_and_says_what_changed(project: Project) -> None:
    take(project, HEADER + "q1,d1,d2,a,anna\nq1,d1,d3,a,anna\n")
    summary = take(project, HEADER + "q1,d1,d2,b,anna\nq1,d1,d3,a,anna\nq1,d2,d3,a,anna\n")
    assert (summary.judgments, summary.judgments_created, summary.judgments_changed) == (3, 1, 1)
    assert "3 judgments (1 new), 1 judgments changed" in str(summary)
    assert Judgment.objects.filter(superseded_at__isnull=False).count() == 1
    assert ("anna", "d1", "d2", False, "preference", 0.0) in votes(project)
    assert AuditEntry.objects.get(action="judgments.replaced").details["judgments"] == 1


def test_people_answer_a_pair_once_and_both_orders_are_one_judgment(project: Project) -> None:
    data = HEADER + "q1,d1,d2,a,anna\nq1,d2,d1,a,anna\n"
    summary = take(project, data, options={"annotators_are": "people"})
    assert summary.judgments == 1
    assert votes(project) == {("anna", "d1", "d2", False, "preference", 0.5)}
    assert Annotator.objects.get().is_person
    assert take(project, data, options={"annotators_are": "people"}).changed_nothing


@pytest.mark.parametrize(("repeated", "expected"), [("last", 0.0), ("mean", 0.5), ("refuse", None)])
def test_two_answers_of_one_annotator_to_a_question(project: Project, repeated: str, expected: float | None) -> None:
    data = HEADER + "q1,d1,d2,a,anna\nq1,d1,d2,b,anna\n"
    if expected is None:
        with pytest.raises(ImportFailed, match=r"line 3, answer: 'anna' gives 0.0 here, and 1.0 on line 2"):
            take(project, data)
        assert not Judgment.objects.exists() and not Annotator.objects.exists()
        return
    take(project, data, options={"repeated_answers": repeated})
    assert votes(project) == {("anna", "d1", "d2", False, "preference", expected)}


def test_unknown_queries_documents_and_candidates_are_refused_or_left_out_by_reason(project: Project) -> None:
    data = HEADER + "q9,d1,d2,a,anna\nq1,d1,dx,a,anna\nq1,d1,d4,a,anna\nq1,d1,d2,a,anna\n"
    with pytest.raises(ImportFailed, match=r"f, line 2, query: the project has no query 'q9'"):
        take(project, data)
    assert not Annotator.objects.exists()
    found = preview_dataset(io.BytesIO(data.encode()), importer="auto", filename="f", project=project)
    assert (found.importer, found.judgments, len(found.errors), found.annotators) == ("preferences", 1, 3, ("anna",))
    summary = take(project, data, leave_out_bad_rows=True)
    assert summary.judgments_created == 1
    assert {each.reason.split(":")[0]: each.lines for each in summary.left_out} == {
        "query": (2,),
        "document": (3,),
        "candidate": (4,),
    }
    report = DatasetImport.objects.get(pk=summary.import_id)
    assert (report.left_out, report.importer) == (3, "preferences")
    lines = [json.loads(line) for line in left_out_file(report, "jsonl")]
    assert [each["line"] for each in lines] == [2, 3, 4] and "is not a candidate of" in lines[2]["problem"]
    cells = list(csv.reader(io.StringIO(b"".join(left_out_file(report, "csv")).decode())))
    assert cells[0] == ["line", "field", "problem", "expected", "remedy"] and len(cells) == 4
    with pytest.raises(ImportFailed, match="no good rows"):
        take(project, HEADER + "q9,d1,d2,a,anna\n", leave_out_bad_rows=True)


def test_a_report_takes_no_cell_for_a_formula(project: Project) -> None:
    summary = take(project, HEADER + "q1,d1,d2,a,anna\nq1,=cmd|x,d2,a,anna\n", leave_out_bad_rows=True)
    report = DatasetImport.objects.get(pk=summary.import_id)
    assert all(
        not cell.startswith(("=", "@", "+")) for cell in b"".join(left_out_file(report, "csv")).decode().split(",")
    )


def test_the_own_export_comes_back_here_and_elsewhere(project: Project) -> None:
    user = User.objects.create_user("anna")
    anna = Annotator.objects.create(
        project=project, name="Anna", is_person=True, user=user, config_hash=config_hash(person=user.pk)
    )
    twins = [
        Annotator.objects.create(project=project, name="strict", plugin="bm25", config_hash=config_hash(n=number))
        for number in (1, 2)
    ]
    a, b, c = Candidate.objects.filter(query__external_id="q1").order_by("id")
    other = Candidate.objects.filter(query__external_id="q2").latest("id")
    pair, cross = Pair.objects.create(a=a, b=b, query=a.query), Pair.objects.create(a=c, b=other)
    record_judgments(
        [
            NewJudgment(pair.pk, anna.pk, True, 0.1, rationale='="short",\nline'),
            NewJudgment(pair.pk, twins[0].pk, False, 0.3),
            NewJudgment(pair.pk, twins[0].pk, True, 0.7),
            NewJudgment(pair.pk, twins[1].pk, False, 0.9),
            NewJudgment(cross.pk, twins[1].pk, False, 0.2),
        ]
    )
    elsewhere = Project.objects.create(name="Elsewhere", slug="elsewhere")
    load(elsewhere, row("q1", "d1", "d2", "d3"), row("q2", "d1", "d4"))
    for form in ("judgments-jsonl", "judgments-csv", "judgments-parquet"):
        stream = io.BytesIO()
        assert export(project, form, stream) == 5
        if form == "judgments-csv":
            assert ""","'=""short"",""" in stream.getvalue().decode(), "no spreadsheet takes it for a formula"
        assert take(project, stream.getvalue()).changed_nothing, form
        summary = take(elsewhere, stream.getvalue())
        assert summary.judgments == 5 and summary.changed_nothing is (form != "judgments-jsonl"), form
    assert votes(elsewhere) == votes(project)
    assert elsewhere.annotators.filter(name="strict").count() == 2
    assert elsewhere.annotators.get(name="Anna").is_person
    assert project.annotators.count() == 3


@pytest.mark.django_db(transaction=True)
def test_imported_judgments_have_figures_of_their_own(project: Project) -> None:
    take(project, HEADER + "".join(f"q1,{a},{b},a,anna\nq1,{a},{b},b,ben\n" for a, b in (("d1", "d2"), ("d2", "d3"))))
    assert rate_stale(project.pk).queries == 1
    figures = {each.name: each for each in judge_figures(project).annotators}
    assert figures["anna"].answers == 2 and figures["anna"].with_others.value == 0.0


# --- grades of raters --------------------------------------------------------------------

RATINGS = "query_id,document_id,grade,rater\n"


def test_raters_grades_are_kept_and_their_lower_median_is_the_projects(project: Project) -> None:
    data = RATINGS + "q1,d1,3,anna\nq1,d1,1,ben\nq1,d1,2,eva\nq1,d2,0,anna\nq1,d2,1,ben\nq1,d9,2,anna\n"
    summary = take(project, data)
    assert (summary.ratings, summary.ratings_created, summary.grades_created) == (6, 6, 3)
    grades = dict(Candidate.objects.filter(query__external_id="q1").values_list("document__external_id", "grade"))
    assert grades == {"d1": 2, "d2": 0, "d3": None}
    assert UnmatchedGrade.objects.get().grade == 2
    assert take(project, data).changed_nothing
    changed = take(project, RATINGS + "q1,d1,3,ben\n")
    assert (changed.ratings_changed, changed.grades_changed) == (1, 1)
    assert Candidate.objects.get(query__external_id="q1", document__external_id="d1").grade == 3
    stream = io.BytesIO()
    export(project, "rater-grades-csv", stream)
    assert take(project, stream.getvalue()).changed_nothing
    found = {each.name: each for each in rater_figures(project)}
    assert (found["anna"].grades, found["anna"].same.count, found["anna"].same.hits) == (3, 3, 1.0)


def test_grades_of_models_are_kept_and_not_the_projects(project: Project) -> None:
    summary = take(project, RATINGS + "q1,d1,3,gpt\n", options={"raters_are": "models"})
    assert (summary.ratings_created, summary.grades) == (1, 0)
    assert RaterGrade.objects.get().annotator.plugin == "imported"
    assert not Candidate.objects.filter(grade__isnull=False).exists()


def test_figures_of_raters_need_common_documents(project: Project) -> None:
    lines = "".join(f"q1,x{n},{n % 3},anna\nq1,x{n},{(n + n // 10) % 3},ben\n" for n in range(12))
    take(project, RATINGS + lines)
    anna, ben = rater_figures(project)
    assert anna.same.count == 12 and anna.same.hits == 10
    assert anna.kappa == ben.kappa and anna.leniency == -(ben.leniency or 0)
    assert anna.kappa is not None and 0.5 < anna.kappa < 1.0


# --- the GPT-4o pairs of TREC DL 2019 ----------------------------------------------------


@pytest.mark.long  # a minute
@pytest.mark.skipif("ZELO_DATA" not in os.environ, reason="set ZELO_DATA to the folder of the real data sets")
def test_the_gpt_pairs_of_trec_dl19_are_recognised_and_counted() -> None:
    folder = Path(os.environ["ZELO_DATA"]) / "trec_dl19"
    project = Project.objects.create(name="DL19", slug="dl19")
    import_dataset(project, folder / "candidates_judged100.jsonl", importer="auto")
    candidates = set(Candidate.objects.values_list("query__external_id", "document__external_id"))
    pairs = [json.loads(line) for line in (folder / "gpt4o_pairwise.jsonl").read_text().splitlines()]
    known = {
        (each["qid"], each["a"], each["b"])
        for each in pairs
        if {(each["qid"], each["a"]), (each["qid"], each["b"])} <= candidates
    }
    options = {"annotator": "gpt-4o", "repeated_answers": "mean"}
    path = folder / "gpt4o_pairwise.jsonl"
    found = preview_dataset(path, importer="auto", options=options, project=project, most_counted=10**6)
    assert found.importer == "preferences" and len(found.rows) == 10
    summary = import_dataset(project, path, importer="auto", options=options, leave_out_bad_rows=True)
    assert summary.judgments_created == len(known) > 1000
    assert sum(each.count for each in summary.left_out) == sum(
        (each["qid"], each["a"], each["b"]) not in known for each in pairs
    )
    assert import_dataset(project, path, importer="auto", options=options, leave_out_bad_rows=True).changed_nothing
