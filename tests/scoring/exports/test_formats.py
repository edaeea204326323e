"""Exports in every format: they come back to the same rows, and the libraries that they are for read them."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from labeling.importing.dataset import import_dataset
from labeling.judgments import record_judgments
from labeling.models import Annotator, Candidate, Document, Judgment, Pair, Project, Query, UnmatchedGrade, config_hash
from labeling.plugin_checks import check_plugin
from labeling.plugins import registered
from labeling.records import NewJudgment
from scoring.exports import ExportFailed
from scoring.exports.exporting import export
from scoring.models import Score
from tests.labeling.importing.files import load, row

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    """Two queries, graded and judged; a title, odd texts, a document without comparisons, one that is no candidate."""
    made = Project.objects.create(name="Ponds", slug="ponds")
    load(made, row("q1", "d1", "d2", "d3", metadata={"k": ["ü", 1]}), row("q2", "d1", "d4"))
    Document.objects.create(project=made, external_id="d9", text="Alone\nand free", metadata={"title": "Alone", "n": 1})
    UnmatchedGrade.objects.create(project=made, query_external_id="q1", document_external_id="d9", grade=2)
    Document.objects.filter(external_id="d3").update(text='comma, "quote"\nline \U0001f41f')
    Query.objects.filter(external_id="q1").update(metadata={"domain": "ponds"}, domain="ponds")
    relevance = {("q1", "d1"): 0.9, ("q1", "d2"): 0.4, ("q2", "d4"): 0.2}
    for candidate in Candidate.objects.select_related("query", "document"):
        key = (candidate.query.external_id, candidate.document.external_id)
        compared = key in relevance
        Score.objects.create(
            candidate=candidate, theta=0.1, stderr=0.2, elo=1500 + 400 * relevance.get(key, 0.0), elo_stderr=9.0,
            relevance=relevance.get(key, 0.5), comparisons=2 if compared else 0, judged_version=1,
        )  # fmt: skip
    Candidate.objects.filter(query__external_id="q1", document__external_id="d1").update(
        grade=3, first_stage_rank=1, first_stage_score=7.25
    )
    judge = Annotator.objects.create(project=made, name="judge", plugin="bm25", config_hash=config_hash(n=1))
    a, b = Candidate.objects.filter(query__external_id="q1").order_by("id")[:2]
    pair = Pair.objects.create(a=a, b=b, query=a.query)
    record_judgments(
        [NewJudgment(pair.pk, judge.pk, False, 0.9, rationale='so, "so"'), NewJudgment(pair.pk, judge.pk, True, 0.7)]
    )
    return made


def exported(project: Project, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    export(project, name, stream, options=options)
    return stream.getvalue()


def lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines()]


def state(project: Project) -> dict[str, set[Any]]:
    """Everything that a data set holds, by imported ids."""
    texts = ("external_id", "text", "metadata")
    candidates = ("query__external_id", "document__external_id", "first_stage_rank", "first_stage_score", "grade")
    kept = ("query_external_id", "document_external_id", "grade")
    return {
        "queries": {(a, b, json.dumps(c)) for a, b, c in project.queries.values_list(*texts)},
        "documents": {(a, b, json.dumps(c)) for a, b, c in project.documents.values_list(*texts)},
        "candidates": set(Candidate.objects.filter(query__project=project).values_list(*candidates)),
        "kept": set(project.unmatched_grades.values_list(*kept)),
    }


def elsewhere(data: bytes, importer: str = "auto") -> Project:
    made = Project.objects.create(name="Elsewhere", slug=f"elsewhere-{Project.objects.count()}")
    import_dataset(made, io.BytesIO(data), importer=importer, filename="export")
    return made


@pytest.mark.parametrize("name", sorted(registered("exporter")))
def test_every_exporter_keeps_the_contract_and_repeats_itself(project: Project, name: str) -> None:
    assert check_plugin(registered("exporter")[name]) == []
    assert exported(project, name) == exported(project, name)


def test_a_hugging_face_export_comes_back_whole(project: Project) -> None:
    assert state(elsewhere(exported(project, "hugging-face"))) == state(project)


def test_a_beir_export_comes_back_with_texts_and_grades(project: Project) -> None:
    found, here = state(elsewhere(exported(project, "beir"))), state(project)
    assert found["queries"] == here["queries"] and found["documents"] == here["documents"]
    assert found["kept"] == here["kept"] | {("q1", "d1", 3)}
    with zipfile.ZipFile(io.BytesIO(exported(project, "beir", split="dev"))) as made:
        assert made.namelist() == ["corpus.jsonl", "queries.jsonl", "qrels/dev.tsv"]
        alone = json.loads(made.read("corpus.jsonl").splitlines()[-1])
        assert alone == {"_id": "d9", "title": "Alone", "text": "and free", "metadata": {"n": 1}}


def test_qrels_come_back_and_refuse_ids_with_blanks(project: Project) -> None:
    data = exported(project, "trec-qrels")
    assert data.decode().splitlines() == ["q1 0 d1 3", "q1 0 d9 2"]
    assert import_dataset(project, io.BytesIO(data), importer="auto", filename="qrels").changed_nothing
    Document.objects.filter(external_id="d1").update(external_id="d 1")
    with pytest.raises(ExportFailed, match="'d 1' contains a space"):
        exported(project, "trec-qrels")


@pytest.mark.parametrize("identifier", ['"q"', '""', '"', 'a "b" c', '"q', "#", "#1"])
def test_grades_of_ids_with_quotes_and_hashes_come_back_or_are_refused(project: Project, identifier: str) -> None:
    Query.objects.filter(project=project, external_id="q1").update(external_id=identifier)
    assert (identifier, "d1", 3) in state(elsewhere(exported(project, "beir")))["kept"]
    if identifier in ('"', '"q', "#1"):
        data = exported(project, "trec-qrels")
        assert import_dataset(project, io.BytesIO(data), importer="trec-qrels", filename="qrels").changed_nothing
        return
    with pytest.raises(ExportFailed, match=re.escape(repr(identifier))):
        exported(project, "trec-qrels")


def test_judgments_have_the_same_cells_in_all_three_formats(project: Project) -> None:
    first = lines(exported(project, "judgments-jsonl"))
    table = pq.read_table(io.BytesIO(exported(project, "judgments-parquet"))).to_pylist()
    assert first == table and len(first) == 2 and first[0]["rationale"] == 'so, "so"'
    cells = list(csv.DictReader(io.StringIO(exported(project, "judgments-csv").decode())))
    assert [float(each["preference"]) for each in cells] == [0.9, 0.7]
    assert [each["swapped"] for each in cells] == ["false", "true"]


def test_training_sets_hold_documents_with_comparisons_alone(project: Project) -> None:
    pairs = lines(exported(project, "st-pairs"))
    assert [(each["document"], each["label"]) for each in pairs] == [
        ("text of d1", 0.9), ("text of d2", 0.4), ("text of d4", 0.2),
    ]  # fmt: skip
    assert lines(exported(project, "st-triplets")) == [
        {"anchor": "about q1", "positive": "text of d1", "negative": "text of d2"}
    ]
    assert lines(exported(project, "st-triplets", margin=0.6)) == []
    assert lines(exported(project, "st-lists"))[0] == {
        "query": "about q1", "docs": ["text of d1", "text of d2"], "labels": [0.9, 0.4],
    }  # fmt: skip


def answered(tasks: list[dict[str, Any]], tool: str) -> bytes:
    """The tasks as the tool exports them once somebody has answered the first."""
    if tool == "argilla":
        question, value = ("winner", "document_b") if "document_b" in tasks[0]["fields"] else ("grade", 2)
        tasks[0]["responses"] = {question: [{"value": value, "user_id": "5c1c9f0a-0000-4000-8000-000000000001"}]}
    else:
        is_pair = "document_b" in tasks[0]["data"]
        result = (
            {"type": "pairwise", "value": {"selected": "right"}}
            if is_pair
            else {"type": "rating", "value": {"rating": 2}}
        )
        tasks[0]["annotations"] = [
            {"id": 1, "completed_by": 1, "result": [{"from_name": "c", "to_name": "t", **result}]}
        ]
    return json.dumps(tasks).encode()


@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_tasks_for_other_tools_come_back_with_answers(project: Project, tool: str) -> None:
    tasks = json.loads(exported(project, f"{tool}-pairs"))
    before = state(project)
    summary = import_dataset(project, io.BytesIO(answered(tasks, tool)), importer="auto", filename="tasks")
    assert (len(tasks), summary.judgments_created) == (1, 1)
    assert Judgment.objects.latest("id").preference == 0.0
    assert state(project) == before, "the texts are those of the project"
    tasks = json.loads(exported(project, f"{tool}-ratings"))
    assert len(tasks) == Candidate.objects.count()
    summary = import_dataset(project, io.BytesIO(answered(tasks, tool)), importer="auto", filename="ratings")
    assert summary.ratings_created == 1 and summary.grades_changed == 1
    key = "predictions" if tool == "label-studio" else "suggestions"
    assert not json.loads(exported(project, f"{tool}-pairs"))[0].get(key)
    assert json.loads(exported(project, f"{tool}-pairs", predictions=True))[0][key]


def test_the_libraries_read_what_is_for_them(project: Project, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    with zipfile.ZipFile(io.BytesIO(exported(project, "hugging-face", title='A "set"'))) as made:
        made.extractall(tmp_path / "set")
    cache = {"cache_dir": str(tmp_path / "cache"), "split": "test"}
    assert set(datasets.get_dataset_config_names(str(tmp_path / "set"))) == {
        "corpus",
        "queries",
        "grades",
        "candidates",
    }
    candidates = datasets.load_dataset(str(tmp_path / "set"), "candidates", **cache)
    assert len(candidates) == Candidate.objects.count()
    elo = {(each["query_id"], each["document_id"]): each["elo"] for each in candidates}
    assert elo["q1", "d1"] == 1860.0 and elo["q1", "d3"] is None
    assert len(datasets.load_dataset(str(tmp_path / "set"), "corpus", **cache)) == Document.objects.count()
    for name, columns in {
        "st-pairs": ["query", "document", "label"],
        "st-triplets": ["anchor", "positive", "negative"],
        "st-lists": ["query", "docs", "labels"],
    }.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(exported(project, name))
        found = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
        assert found.column_names == columns
