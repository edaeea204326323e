"""The end of the demo with a tiny model: it learns, is proved beside the others, and is there at the next start."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from labeling.models import Project
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions
from tests.factories.frozen import make_scored
from tests.factories.rows import make_user
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.models import Evaluation, Reranker, TrainingRun
from workers.jobs import training
from workers.jobs.evaluation import evaluate, order_evaluation, waiting_evaluation_ids
from workers.jobs.training import train, waiting_training_ids
from workers.models import Job
from zelo_site.demo import student as demo_student
from zelo_site.demo.student import NoStudent, closing_table, show_student
from zelo_site.pages.project.story import story_context

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def quick(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    base = save_tiny_bert(tmp_path / "base")
    lesson = {"base": str(base), "max_steps": 6, "eval_steps": 3, "max_length": 32, "rank": 4, "threads": 1}
    monkeypatch.setattr(demo_student, "LESSON", lesson)
    monkeypatch.setattr(demo_student, "FROZEN", SnapshotOptions(seed=1, test_share=0.3, shared_documents="keep"))
    monkeypatch.setattr(demo_student, "POLL_S", 0.0)
    monkeypatch.setattr(training, "POLL_S", 0.05)


@pytest.fixture
def without_dev(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dev questions: on a few, a head of random weights may win, and then nothing is published."""
    monkeypatch.setattr(demo_student, "FROZEN", demo_student.FROZEN.model_copy(update={"dev_share": 0.0}))


def work_on_trainings() -> None:
    for job in waiting_training_ids():
        train(job)


def work() -> None:
    """What workers would do meanwhile."""
    work_on_trainings()
    for job in waiting_evaluation_ids():
        evaluate(job)


def press() -> None:
    raise KeyboardInterrupt


def press_at_the_proof() -> None:
    work_on_trainings()
    if waiting_evaluation_ids():
        raise KeyboardInterrupt


@pytest.mark.usefixtures("without_dev")
def test_the_student_learns_is_proved_and_stays_however_often_it_was_stopped() -> None:
    project, owner = make_scored(), make_user()
    for stopped in (press, press, press_at_the_proof, press):
        with pytest.raises(KeyboardInterrupt):
            show_student(project, by=owner, tick=stopped, stream=io.StringIO())
    assert TrainingRun.objects.count() == Job.objects.filter(stage="evaluate").count() == 1
    drawn = io.StringIO()
    student = show_student(project, by=owner, tick=work, stream=drawn)
    assert student is not None
    assert "7 Train" in drawn.getvalue()
    said = closing_table(project)
    for each in ("the student", "BM25", "first stage", "Elo", "untrained base (minilm)"):
        assert any(line.startswith(f"{each}  ") for line in said.splitlines()), each
    assert "graded test questions" in said
    run = TrainingRun.objects.get()
    run.progress["ndcg"] = [[0, 0.4], [3, 0.6], [6, 0.5]]
    run.save()
    shown = story_context(project)
    assert shown is not None and shown["curve"] is not None
    assert (shown["dev_before"], shown["dev_best"]) == (0.4, 0.6)
    before = (Snapshot.objects.count(), TrainingRun.objects.count(), Evaluation.objects.count(), Job.objects.count())
    assert show_student(project, by=owner, tick=work) == student
    assert (
        Snapshot.objects.count(),
        TrainingRun.objects.count(),
        Evaluation.objects.count(),
        Job.objects.count(),
    ) == before


def test_an_evaluation_that_a_worker_orders_meanwhile_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_scored()
    snapshot = demo_student.frozen(project)
    seen, late = demo_student.unfinished_evaluation, iter([True])

    def ordered_late(of: Project) -> Job | None:
        """None at first, while a worker orders one."""
        if next(late, False):
            order_evaluation(of, snapshot, demo_student.SPLIT)
            return None
        return seen(of)

    monkeypatch.setattr(demo_student, "unfinished_evaluation", ordered_late)
    demo_student.prove(project, snapshot, tick=work, stream=io.StringIO())
    assert [job.state for job in Job.objects.filter(stage="evaluate")] == ["finished"]


def test_a_training_that_fails_says_why_and_is_tried_again_at_the_next_start(settings: Settings) -> None:
    home = Path(settings.ZELO_HOME)
    home.mkdir()
    (home / "training").write_text("a file where the folder of all trainings belongs")
    project, owner = make_scored(), make_user()
    for start in (1, 2):
        with pytest.raises(NoStudent, match=r"Not a directory.*manage\.py train .* --resume"):
            show_student(project, by=owner, tick=work, stream=io.StringIO())
        assert Job.objects.filter(stage="train", state="failed").count() == start
        assert TrainingRun.objects.filter(project=project).count() == 1
    assert not Reranker.objects.filter(project=project, kind="trained").exists()


def test_too_few_questions_are_said_to_be_too_few() -> None:
    with pytest.raises(NoStudent, match="need at least 3"):
        show_student(make_scored(queries=2), by=make_user(), tick=work, stream=io.StringIO())


def test_minutes_of_warm_start_are_told_as_such() -> None:
    warm = {"warm_start": {"step": 120, "steps": 300}}
    assert demo_student._training_note({}) == "loading the model"
    assert demo_student._training_note(warm) == "warm start: 120 of 300 steps"
    assert demo_student._training_note(warm | {"loss": [[10, 0.05]]}) == "loss 0.0500"


@pytest.mark.usefixtures("without_dev")
@pytest.mark.parametrize("base_won", [pytest.param(True, marks=pytest.mark.long), False])
def test_a_held_back_student_is_said_to_be_one_beside_the_leaderboard(
    monkeypatch: pytest.MonkeyPatch, base_won: bool
) -> None:
    project, owner = make_scored(), make_user()
    row = {
        "split": "test", "reference": "grades", "rival": "base", "queries": 30, "student": 0.5, "other": 0.7,
        "difference": -0.2, "low": -0.3, "high": -0.1, "worse": True,
    }  # fmt: skip

    def held_back(workspace: Path) -> Any:
        found = told(workspace)
        gate = {"held_back": True, "comparisons": [row], "reasons": ["few_queries"]}
        return found | ({"base_won": True} if base_won else {"gate": gate})

    told = training.read_result
    monkeypatch.setattr(training, "read_result", held_back)
    assert show_student(project, by=owner, tick=work, stream=io.StringIO()) is None
    said = closing_table(project)
    assert "the student is held back and not served" in said
    assert (
        "no checkpoint ranks better"
        if base_won
        else "0.500 against 0.700 of the untrained base on 30 test queries (-0.200, 95 % interval -0.300 to -0.100)"
    ) in said
    assert any(line.startswith("BM25  ") for line in said.splitlines())
    jobs = Job.objects.count()
    assert show_student(project, by=owner, tick=work) is None
    assert Job.objects.count() == jobs
