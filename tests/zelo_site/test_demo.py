"""The demo's steps one by one on a small sample; the whole command is a long test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from labeling.judgments import record_judgments
from labeling.models import Candidate, Document, Judgment, Pair, Project, Query
from labeling.records import ImportedDocument, NewJudgment
from workers.models import JudgingTask, Run
from workers.pipeline import advance
from zelo_site import demo
from zelo_site.sample import sample_documents, sample_questions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def few_documents() -> list[ImportedDocument]:
    """A tenth of the docstrings, and all that are graded for the first three questions."""
    graded = {name for question in sample_questions()[:3] for name in question.grades}
    return [each for row, each in enumerate(sample_documents()) if row % 10 == 0 or each.id in graded]


@pytest.fixture
def project(db: None, few_documents: list[ImportedDocument], monkeypatch: pytest.MonkeyPatch) -> Project:
    """The demo's project with three questions over few documents."""
    monkeypatch.setattr(demo, "sample_documents", lambda: few_documents)
    monkeypatch.setattr(demo, "FIRST_QUESTIONS", 2)
    project = demo.make_demo(User.objects.create_user("owner"), sample_questions()[:3])
    demo.import_documents(project)
    return project


def test_project_is_found_again_under_any_name(project: Project) -> None:
    Project.objects.update(name="renamed", slug="renamed")
    assert demo.find_demo() == project
    assert Query.objects.filter(project=project).count() == 3


def test_documents_are_imported_once(project: Project) -> None:
    before = Document.objects.count()
    demo.import_documents(project)
    assert Document.objects.count() == before > 400


def test_project_of_ones_own_is_not_the_demo(db: None) -> None:
    own = Project.objects.create(name="own", slug="demo")
    Query.objects.create(project=own, external_id="q", text="?", metadata={"domain": "mine"})
    assert demo.find_demo() is None


def test_first_questions_are_judged_before_anything_is_embedded(project: Project) -> None:
    run = demo.begin(project)
    asked = list(Query.objects.filter(project=project).order_by("id").values_list("id", flat=True)[:2])
    assert run.query_ids == asked
    for query in asked:
        ranks = sorted(Candidate.objects.filter(query=query).values_list("first_stage_rank", flat=True))
        assert ranks == list(range(1, len(ranks) + 1)) and 2 <= len(ranks) <= demo.FIRST_CANDIDATES
    assert Candidate.objects.filter(query__in=asked, grade__gt=0).exists()


def test_beginning_twice_orders_one_run(project: Project) -> None:
    assert demo.begin(project) == demo.begin(project)
    assert Run.objects.count() == 1


def test_fused_ranking_keeps_candidates_that_are_there(project: Project) -> None:
    query = Query.objects.filter(project=project).first()
    assert query is not None
    documents = list(Document.objects.filter(project=project).values_list("id", flat=True)[: demo.CANDIDATES + 20])
    Candidate.objects.create(query=query, document_id=documents[-1], first_stage_rank=1, first_stage_score=9.0)
    demo._store_ranking(query.pk, [(document, 1.0 / place) for place, document in enumerate(documents, start=1)])

    ranked = list(Candidate.objects.filter(query=query).order_by("first_stage_rank"))
    assert [each.document_id for each in ranked] == [*documents[: demo.CANDIDATES], documents[-1]]
    assert [each.first_stage_rank for each in ranked] == list(range(1, demo.CANDIDATES + 2))
    assert ranked[-1].first_stage_score == 1.0 / len(documents)


def test_reset_deletes_the_demo_with_all_that_hangs_on_it_and_nothing_else(project: Project) -> None:
    own = Project.objects.create(name="own", slug="own")
    Document.objects.create(project=own, external_id="d", text="kept")
    run = demo.begin(project)
    advance(run.pk)
    task = JudgingTask.objects.filter(run=run).first()
    assert task is not None
    record_judgments([NewJudgment(task.pair_id, task.annotator_id, task.swapped, 0.7)])

    demo.delete_demo(project)

    assert list(Project.objects.all()) == [own] and Document.objects.count() == 1
    for table in (Judgment, Pair, Run, JudgingTask, Candidate):
        assert not table.objects.exists()


@pytest.mark.django_db(transaction=True)  # votes are read in a transaction of their own
def test_closing_table_compares_with_bm25(project: Project) -> None:
    demo.begin(project)
    text = demo.proof(project)
    assert text.splitlines()[2].startswith("BM25  ")
    assert "first stage" in text and "graded queries" in text


def test_embedding_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: object) -> None:
        raise LookupError("no weights here")

    monkeypatch.setattr(demo, "load_embedder", broken)
    with demo.Embedding([], []) as embedding, pytest.raises(LookupError, match="no weights here"):
        embedding.watch(tick=lambda: None)


@pytest.mark.long
def test_demo_from_nothing_to_the_table_and_again(tmp_path: Path) -> None:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("ZELO_", "DATABASE", "BROKER"))
    }
    environ |= {"ZELO_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(ROOT / "manage.py"), "demo", "--port", "8178", "--questions", "10", "--exit"]

    def run(*more: str) -> str:
        done = subprocess.run([*command, *more], env=environ, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = run()
    assert "1 Import" in first and "/enter/" in first and "rank fusion" in first
    for order in ("BM25  ", "judge Embeddings (", "Elo  "):
        assert any(line.startswith(order) for line in first.splitlines()), order
    second = run()
    assert "1 Import" not in second and "3-5 Judging" not in second
    assert second.splitlines()[-7:] == first.splitlines()[-7:]
    assert "1 Import" in run("--reset")
