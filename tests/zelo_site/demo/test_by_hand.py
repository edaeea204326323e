"""The demo measured by the older grades by hand as well: same orders, same questions, other grades."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from labeling.models import Project
from labeling.records import ImportedDocument
from scoring.rating import rate_stale
from tests.factories.working import judge_all
from tests.factories.world.panels import make_panel
from trainer.evaluation.leaderboard import evaluation_queries, record_evaluation
from trainer.models import Reranker
from trainer.serving.registry import TRAINED
from workers.models import Run
from workers.runs.advancing import advance
from zelo_site.demo import by_hand, steps
from zelo_site.demo.management.commands.hand_grades import MARKS
from zelo_site.demo.sample.questions import Question
from zelo_site.demo.student import SPLIT, NoStudent, frozen

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Project:
    """A judged demo of three test questions; the best document by hand is the panel's best, last, and none."""
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    documents = [ImportedDocument(id=f"d{n:02}", text=f"text {n}", metadata={}) for n in range(50)]
    made = make_panel(tmp_path / "panel", documents)
    monkeypatch.setattr(steps, "sample_panel", lambda: made)
    monkeypatch.setattr(steps, "sample_documents", lambda: documents)
    monkeypatch.setattr(steps, "LOCAL_JUDGES", ("bm25", "query-likelihood"))
    grades = {"graded-0": {"d00": 3}, "graded-1": {"d09": 2, "elsewhere": 3}, "graded-2": {"elsewhere": 3}}
    questions = [Question(name, name, "d", own) for name, own in grades.items()]
    monkeypatch.setattr(by_hand, "sample_questions", lambda: questions)
    project = steps.make_demo(User.objects.create_user("owner"), made)
    steps.import_documents(project)

    def work() -> None:
        for run in Run.objects.filter(project=project):
            advance(run.pk)
            judge_all(run)
        rate_stale(project.pk)

    steps.judge_weakly(project, tick=work, stream=io.StringIO())
    steps.judge_by_panel(project, tick=work, stream=io.StringIO())
    return project


def prove(project: Project) -> None:
    """Evaluate a base that ranks by the first stage, and a student that reverses it, as the panel does."""
    snapshot = frozen(project)
    queries = evaluation_queries(snapshot, SPLIT)
    for name, kind, sign in (("untrained base (minilm)", "base", -1.0), ("demo", TRAINED, 1.0)):
        reranker = Reranker.objects.create(project=project, name=name, kind=kind)
        scores = [sign * np.asarray(query.first_stage_rank) for query in queries]
        record_evaluation(reranker, snapshot, SPLIT, queries=queries, scores=scores)


def test_both_grades_measure_the_same_orders_on_the_questions_that_both_have(project: Project) -> None:
    with pytest.raises(NoStudent, match="has no evaluated student"):
        by_hand.measure_twice(project)
    prove(project)
    rows = {row.name: row for row in by_hand.measure_twice(project)}
    assert list(rows)[-3:] == ["judge-aware Elo of all", "untrained base (minilm)", "the student"]
    last = 1.0 / np.log2(6.0)  # NDCG of one good document at rank 5
    assert rows["Elo of the panel"].recorded == rows["the student"].recorded == (1.0, 1.0)
    assert rows["the student"].by_hand == rows["Elo of the panel"].by_hand == pytest.approx((1.0, last))
    assert rows["first stage"].by_hand == rows["untrained base (minilm)"].by_hand == pytest.approx((last, 1.0))
    said = by_hand.hand_report(list(rows.values()))
    assert "| the student less untrained base (minilm) | +" in said and "on 2 questions" in said
    assert f"| the student | 1.000 (no interval: no spread between queries) | {(1.0 + last) / 2:.3f} (" in said


def test_the_command_writes_between_the_marks_and_says_what_is_missing(project: Project, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"run `manage\.py demo` until its proof first"):
        call_command("hand_grades")
    prove(project)
    file = tmp_path / "sample.md"
    file.write_text("before\n" + "\n".join(MARKS) + "\nafter\n")
    call_command("hand_grades", write=file)
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith(f"{MARKS[1]}\nafter\n") and "| Elo of the panel |" in text
