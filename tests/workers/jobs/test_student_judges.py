"""A pairwise training ends in a judge of the project, which runs can choose; a held-back one waits for its owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_django import Settings

from labeling.models import Annotator, Judgment, Project
from labeling.stored_texts import read_stored
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.snapshots.pairs import panel_of
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project
from tests.factories.scored import make_snapshot, scored
from tests.factories.students.stored import pairwise_run, stored_student
from tests.factories.weights.tiny_models import save_tiny_bert
from tests.factories.working import work_until_over
from trainer.models import Reranker, TrainingRun
from trainer.serving.registry import PAIRWISE_JUDGE, servable
from trainer.training.pairwise.figures import CHANCE
from workers.jobs import training
from workers.jobs.student_judges import enter_judge, student_folder
from workers.jobs.training import TrainingRefused, publish_anyway, start_training
from workers.judges.pairwise_student import PairwiseStudentJudge, StudentMissing
from workers.judging.batches import prepared_judge
from workers.models import Job
from workers.runs.ordering import RunRefused, start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    monkeypatch.setenv("ZELO_MODELS", "*")
    monkeypatch.setattr(training, "POLL_S", 0.05)
    yield
    prepared_judge.cache_clear()


def judged_snapshot(*, seed: int = 0) -> tuple[Project, Snapshot]:
    """Twelve queries with four documents, two judges on random pairs: whatever comes later is better."""
    project = make_project()
    rng = np.random.default_rng(seed)
    for query in scored(project, queries=12):
        for judge in make_judges(project, 2):
            judge_pair(make_pair(query, 0, 3), judge, float(rng.uniform(0.0, 0.2)))
            judge_pair(make_pair(query, 1, 2), judge, float(rng.uniform(0.2, 0.4)))
    return project, freeze([project], name="Judged", options=SnapshotOptions(dev_share=0.2, test_share=0.2))


def order(project: Project, snapshot: Snapshot, base: Path, **options: Any) -> TrainingRun:
    small = {
        "base": str(base),
        "rank": 8,
        "threads": 1,
        "epochs": 10,
        "batch_size": 4,
        "learning_rate": 5e-3,
        "max_length": 64,
    }
    return start_training(project, snapshot, trainer="pairwise", options={**small, **options})


def work(run: TrainingRun) -> Job:
    job = Job.objects.get(payload__training_run=run.pk)
    training.train(job.pk, worker="here")
    run.refresh_from_db()
    job.refresh_from_db()
    return job


def test_a_pairwise_training_ends_in_a_judge_that_a_run_can_choose(tmp_path: Path) -> None:
    project, snapshot = judged_snapshot()
    run = order(project, snapshot, save_tiny_bert(tmp_path / "bert"))
    job = work(run)
    assert (run.state, run.error) == ("finished", "")
    reranker = Reranker.objects.get()
    assert read_stored(job.message) == f"judge {reranker.name!r} published"
    assert (reranker.kind, servable().exists()) == (PAIRWISE_JUDGE, False)
    assert run.gate["pairs"]["log_loss"] < CHANCE and run.gate["pairs"]["split"] == "test"
    assert run.progress["log_loss"][0][0] == 0
    assert not Job.objects.filter(stage="evaluate").exists()

    judge = Annotator.objects.get(plugin=PairwiseStudentJudge.name)
    assert (judge.project, judge.name, judge.model_revision) == (project, reranker.name, reranker.checksum)
    assert judge.pk not in panel_of([project.pk])
    done = work_until_over(start_run(project, judges=[judge], sampler="all", seed=1))
    assert done.state == "finished"
    answers = Judgment.objects.filter(annotator=judge)
    assert answers.count() == 12 * 6 and not answers.filter(preference=None).exists()
    again = freeze([project], name="Again")
    assert again.manifest["pairs"]["rows"] == snapshot.manifest["pairs"]["rows"]


def test_a_judge_that_is_no_better_than_chance_waits_for_its_owner(tmp_path: Path) -> None:
    project, snapshot = judged_snapshot()
    reranker = stored_student(
        pairwise_run(project, snapshot, "held_back"), tmp_path, release=Reranker.Release.HELD_BACK
    )
    assert enter_judge(reranker) is None
    with pytest.raises(StudentMissing, match="held back can be published"):
        student_folder(reranker.checksum)
    assert reranker.training_run is not None
    publish_anyway(reranker.training_run)
    judge = Annotator.objects.get(plugin="pairwise-student")
    assert judge.name == f"{reranker.name} · held back", "seen wherever the judge is named"
    assert student_folder(reranker.checksum).is_dir()
    Reranker.objects.all().delete()
    with pytest.raises(RunRefused, match=r"not available.*no published pairwise student"):
        start_run(project, judges=[judge], sampler="all")


def test_a_snapshot_without_pairs_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    project = make_project()
    snapshot = make_snapshot(project)
    base = save_tiny_bert(tmp_path / "bert")
    with pytest.raises(TrainingRefused, match="no pair of its training queries has a preference; judge pairs"):
        order(project, snapshot, base)
    manifest = {name: value for name, value in snapshot.manifest.items() if name != "pairs"}
    Snapshot.objects.filter(pk=snapshot.pk).update(manifest=manifest)
    snapshot.refresh_from_db()
    with pytest.raises(TrainingRefused, match="frozen without pairs; judge pairs, then freeze a new snapshot"):
        order(project, snapshot, base)
    assert not TrainingRun.objects.exists()
