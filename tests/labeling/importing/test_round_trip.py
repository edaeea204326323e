"""What was imported leaves again: scores in every format, judgments, and the way back in."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from labeling.importing.dataset import export_judgments, import_dataset
from labeling.judgments import record_judgments
from labeling.models import Annotator, Candidate, Pair, Project, Query, config_hash
from labeling.records import AnswerKind, NewJudgment
from scoring.exports import ExportFailed
from scoring.exports.exporting import export
from scoring.models import Score
from tests.labeling.importing.files import load, row

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return Project.objects.create(name="Ponds", slug="ponds")


@pytest.fixture
def rated(project: Project) -> Project:
    """Two queries with scores: a tie in the first, an unrated document in the second."""
    load(project, row("q1", "b", "a", "c", metadata={"k": "ü"}), row("q2", "c", "d"))
    for (query, document), elo in {
        ("q1", "a"): 1500.0,
        ("q1", "b"): 1500.0,
        ("q1", "c"): 1673.7177927613004,
        ("q2", "d"): 1400.0,
    }.items():
        Score.objects.create(
            candidate=Candidate.objects.get(query__external_id=query, document__external_id=document),
            theta=0.1,
            stderr=0.2,
            elo=elo,
            elo_stderr=9.0,
            relevance=0.5,
            comparisons=4,
            judged_version=1,
        )
    return project


def exported(write: Callable[..., int], *arguments: Any, **options: Any) -> tuple[int, bytes]:
    stream = io.BytesIO()
    return write(*arguments, stream, **options), stream.getvalue()


def test_annotated_export_adds_scores_best_first_and_can_be_imported_again(rated: Project) -> None:
    count, data = exported(export, rated, "zbench-annotated-jsonl")
    lines = [json.loads(item) for item in data.splitlines()]
    assert count == 2
    assert [document["id"] for document in lines[0]["documents"]] == ["c", "b", "a"]
    best = lines[0]["documents"][0]
    assert best["score"] == pytest.approx(1.0)  # 400 / ln 10 points are one logit
    assert {
        key: best[key] for key in ("content", "metadata", "elo", "relevance", "theta", "stderr", "comparisons")
    } == {
        "content": "text of c",
        "metadata": {"k": "ü"},
        "elo": 1673.7177927613004,
        "relevance": 0.5,
        "theta": 0.1,
        "stderr": 0.2,
        "comparisons": 4,
    }
    assert lines[1]["documents"][1] | {"metadata": 0} == {
        "id": "c",
        "content": "text of c",
        "metadata": 0,
        "score": None,
        "elo": None,
        "relevance": None,
        "theta": None,
        "stderr": None,
        "comparisons": 0,
        "rank": None,
        "first_stage_score": None,
        "grade": None,
    }
    assert import_dataset(rated, io.BytesIO(data), filename="again").changed_nothing


def test_an_own_export_restores_rank_first_stage_score_and_grade(rated: Project) -> None:
    """D6: the export's own `score` is a result and not the first stage's."""
    rated.queries.get(external_id="q1").candidates.filter(document__external_id="a").update(
        first_stage_rank=7, first_stage_score=-1.25, grade=3
    )
    _, data = exported(export, rated, "zbench-annotated-jsonl")
    elsewhere = Project.objects.create(name="Elsewhere", slug="elsewhere")
    assert import_dataset(elsewhere, io.BytesIO(data), filename="again").grades_created == 1
    names = ("query__external_id", "document__external_id", "first_stage_rank", "first_stage_score", "grade")
    here, there = (
        set(Candidate.objects.filter(query__project=each).values_list(*names)) for each in (rated, elsewhere)
    )
    assert here == there and ("q1", "a", 7, -1.25, 3) in there


def test_annotated_export_without_unrated_documents_is_what_zbench_reads(rated: Project) -> None:
    _, data = exported(export, rated, "zbench-annotated-jsonl", options={"unrated": False})
    documents = [document for item in data.splitlines() for document in json.loads(item)["documents"]]
    assert [document["id"] for document in documents] == ["c", "b", "a", "d"]
    assert all(isinstance(document["score"], float) for document in documents)


def test_trec_run_has_ranks_from_one_ties_by_descending_id_and_no_unrated_documents(rated: Project) -> None:
    _, data = exported(export, rated, "trec-run", options={"tag": "mine"})
    assert data.decode().splitlines() == [
        "q1 Q0 c 1 1673.7178 mine",
        "q1 Q0 b 2 1500.0 mine",
        "q1 Q0 a 3 1499.9999 mine",  # the next smaller 32-bit float
        "q2 Q0 d 1 1400.0 mine",
    ]


def test_exports_are_the_same_every_time(rated: Project) -> None:
    for exporter in ("zbench-annotated-jsonl", "trec-run"):
        assert exported(export, rated, exporter) == exported(export, rated, exporter)


def test_an_id_with_a_blank_cannot_go_into_a_trec_run(rated: Project) -> None:
    Query.objects.filter(external_id="q2").update(external_id="q 2")
    with pytest.raises(ExportFailed, match="'q 2' contains a space"):
        exported(export, rated, "trec-run")


def test_an_export_reads_all_queries_in_one_statement(rated: Project) -> None:
    with CaptureQueriesContext(connection) as statements:
        exported(export, rated, "trec-run")
    assert sum("SELECT" in statement["sql"] for statement in statements) == 1


def test_judgments_are_exported_with_ids_rationale_and_order(rated: Project) -> None:
    judge = Annotator.objects.create(project=rated, name="judge", plugin="bm25", config_hash=config_hash(n=1))
    a, b = Candidate.objects.filter(query__external_id="q1").order_by("id")[:2]
    other = Candidate.objects.filter(query__external_id="q2").latest("id")
    pair = Pair.objects.create(a=a, b=b, query=a.query)
    cross = Pair.objects.create(a=a, b=other)
    record_judgments(
        [
            NewJudgment(pair.pk, judge.pk, True, 0.25, rationale="zu kurz"),
            NewJudgment(cross.pk, judge.pk, False, None, kind=AnswerKind.CANNOT_JUDGE),
        ]
    )
    count, data = exported(export_judgments, rated)
    first, second = (json.loads(item) for item in data.splitlines())
    assert count == 2
    assert first.pop("created_at").endswith("+00:00")
    assert first == {
        "query_a": "q1",
        "document_a": "b",
        "query_b": "q1",
        "document_b": "a",
        "annotator": "judge",
        "annotator_id": judge.pk,
        "by_person": False,
        "swapped": True,
        "kind": "preference",
        "preference": 0.25,
        "rationale": "zu kurz",
    }
    assert (second["query_b"], second["document_b"], second["preference"], second["kind"]) == (
        *("q2", "d", None, "cannot_judge"),
    )
