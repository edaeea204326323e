"""The demo's steps one by one on a small sample; the whole command is a long test."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.judgments import record_judgments
from labeling.models import Candidate, Document, Judgment, Pair, Project, Query
from labeling.records import ImportedDocument, NewJudgment
from scoring.rating import rate_stale
from tests.factories.working import judge_all
from tests.factories.world.panels import make_panel
from workers.models import JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.transitions import pause_run, resume_run
from zelo_site.demo import comparison, steps
from zelo_site.demo.announcing import add_to_story, forget_story, story_of
from zelo_site.demo.sample.panel import Panel

ROOT = Path(__file__).resolve().parents[3]
TEXTS = (
    "goldfish live in ponds",
    "bread is baked from flour",
    "tax returns are due",
    "what is question",
    "water and salt",
)
pytestmark = pytest.mark.django_db(transaction=True)  # votes are read in a transaction of their own


@pytest.fixture
def documents() -> list[ImportedDocument]:
    return [ImportedDocument(id=f"d{n:02}", text=f"{TEXTS[n % 5]} {n}", metadata={}) for n in range(50)]


@pytest.fixture
def panel(
    documents: list[ImportedDocument], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Panel:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    made = make_panel(tmp_path / "panel", documents)
    monkeypatch.setattr(steps, "sample_panel", lambda: made)
    monkeypatch.setattr(steps, "sample_documents", lambda: documents)
    monkeypatch.setattr(steps, "LOCAL_JUDGES", ("bm25", "query-likelihood"))
    return made


@pytest.fixture
def project(panel: Panel) -> Project:
    """The demo's project with three test questions and six to learn from."""
    project = steps.make_demo(User.objects.create_user("owner"), panel)
    steps.import_documents(project)
    return project


def work(project: Project) -> None:
    """What workers would do meanwhile."""
    for run in Run.objects.filter(project=project):
        advance(run.pk)
        judge_all(run)
    rate_stale(project.pk)


def test_project_is_found_again_under_any_name(project: Project) -> None:
    Project.objects.update(name="renamed", slug="renamed")
    assert steps.find_demo() == project
    assert Query.objects.filter(project=project, metadata__split="test").count() == 3


def test_documents_candidates_and_grades_are_imported_once(project: Project) -> None:
    before = Document.objects.count(), Candidate.objects.count()
    steps.import_documents(project)
    assert (Document.objects.count(), Candidate.objects.count()) == before == (50, 45)
    first = project.queries.order_by("id").first()
    assert first is not None
    ranked = list(first.candidates.order_by("first_stage_rank").values_list("document__external_id", "grade"))
    assert ranked == [("d04", 0), ("d03", 0), ("d02", 1), ("d01", 2), ("d00", 3)]
    assert not Candidate.objects.exclude(query__metadata__split="test").filter(query=first, grade=None).exists()


def test_answers_about_changed_docstrings_are_left_out_and_said(
    panel: Panel, documents: list[ImportedDocument], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = [ImportedDocument("d00", "another wording"), *documents[1:]]
    monkeypatch.setattr(steps, "sample_documents", lambda: changed)
    project, said = steps.make_demo(User.objects.create_user("owner"), panel), io.StringIO()
    steps.import_documents(project, stream=said)
    assert (
        "12 of 150 recorded answers are about docstrings that this Python version words differently" in said.getvalue()
    )
    steps.judge_by_panel(project, tick=lambda: work(project), stream=io.StringIO())
    assert Judgment.objects.count() == 138
    assert not JudgingTask.objects.exists()


def test_project_of_ones_own_is_not_the_demo(db: None) -> None:
    own = Project.objects.create(name="own", slug="demo")
    Query.objects.create(project=own, external_id="q", text="?", metadata={"domain": "mine"})
    assert steps.find_demo() is None


def test_weak_judges_then_the_panel_then_only_the_panel_counts(project: Project) -> None:
    def tick() -> None:
        work(project)

    said = io.StringIO()
    steps.judge_weakly(project, tick=tick, stream=said)
    weak = comparison.weak_rows(project)
    assert [row.name for row in weak][-1] == "Elo of the weak judges"
    steps.judge_by_panel(project, tick=tick, stream=said)
    rows = {row.name: row.value for row in comparison.comparison_rows(project)}
    assert list(rows) == [
        "BM25", "query likelihood", "first stage", "panel judge critic", "panel judge direct", "panel judge task",
        "Elo of the weak judges", "Elo of all judges", "Elo of the panel", "judge-aware Elo of all",
    ]  # fmt: skip
    assert rows["Elo of the panel"] == 1.0 > rows["Elo of the weak judges"]
    assert Judgment.objects.filter(annotator__plugin="recorded").count() == 150
    stored = {c.document.external_id: c.score.elo for c in project.queries.order_by("id")[0].candidates.all()}
    assert sorted(stored, key=lambda name: -stored[name]) == ["d00", "d01", "d02", "d03", "d04"]
    text = comparison.comparison_table(comparison.comparison_rows(project), 3)
    assert text.splitlines()[2].startswith("BM25  ") and text.endswith("bootstrap over questions")
    runs = Run.objects.count()
    steps.judge_weakly(project, tick=tick)
    steps.judge_by_panel(project, tick=tick)
    assert Run.objects.count() == runs == 3


def test_a_run_paused_on_the_page_is_said_once_and_goes_on_when_resumed(project: Project) -> None:
    said, ticks = io.StringIO(), iter(range(100))

    def tick() -> None:
        run = steps.DemoRuns(project).weak()
        match next(ticks):
            case 0:
                assert pause_run(run)
            case 3:
                assert resume_run(run)
            case turn if turn > 3:
                work(project)

    steps.judge_weakly(project, tick=tick, stream=said)
    assert said.getvalue().count("3-5 Weak     the run is paused; resume it on the project's page\n") == 1
    assert "judgments on" in said.getvalue()


def test_fewer_questions_take_fewer_lessons(panel: Panel) -> None:
    assert [each.part for each in steps.chosen_panel(1).questions] == ["graded", "training", "training"]
    assert steps.chosen_panel(0) == steps.chosen_panel(3) == panel
    with pytest.raises(steps.BadQuestions, match="pass 1 to 3"):
        steps.chosen_panel(4)


def test_reset_deletes_the_demo_with_all_that_hangs_on_it_and_nothing_else(project: Project) -> None:
    own = Project.objects.create(name="own", slug="own")
    Document.objects.create(project=own, external_id="d", text="kept")
    run = steps.DemoRuns(project).weak()
    advance(run.pk)
    task = JudgingTask.objects.filter(run=run).first()
    assert task is not None
    record_judgments([NewJudgment(task.pair_id, task.annotator_id, task.swapped, 0.7)])

    steps.delete_demo(project)

    assert list(Project.objects.all()) == [own] and Document.objects.count() == 1
    for table in (Judgment, Pair, Run, JudgingTask, Candidate):
        assert not table.objects.exists()


def test_the_page_tells_the_same_story(project: Project, client: Client) -> None:
    client.force_login(User.objects.get(username="owner"))
    page = reverse("project", args=[project.slug])
    forget_story(project.pk)
    assert 'id="story"' not in client.get(page).content.decode()
    said = io.StringIO()
    teller = steps.Teller(project, said)
    teller.step("First this.")
    teller.step("Then that.")
    add_to_story(
        project.pk, rows=tuple(comparison._measured(project, [("BM25", "baseline", comparison.bm25_order(project))]))
    )
    assert said.getvalue() == "\nFirst this.\n\nThen that.\n"
    html = client.get(page).content.decode()
    assert html.index("First this.") < html.index("Then that.") < html.index('<th scope="row">BM25</th>')
    part = reverse("project-story", args=[project.slug])
    assert "Then that." in client.get(part, headers={"HX-Request": "true"}).content.decode()
    assert client.get(part).status_code == 302
    add_to_story(project.pk, is_over=True, student=7)
    html = client.get(page).content.decode()
    assert "hx-get" not in html[html.index('id="story"') :].partition(">")[0] and "/rerankers/7/try/" in html
    forget_story(project.pk)
    assert story_of(project.pk) is None


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
    assert "1 Import" in first and "/enter/" in first and "3-5 Panel" in first
    for order in ("BM25  ", "embedding (MiniLM)  ", "Elo of the panel  "):
        assert any(line.startswith(order) for line in first.splitlines()), order
    second = run()
    assert "1 Import" not in second and "3-5 Panel" not in second
    assert second.splitlines()[-7:] == first.splitlines()[-7:]
    assert "1 Import" in run("--reset")
