"""Trainings as jobs: ordered once, carried out in a process, stopped, taken over, and published whole or not at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from django.db import connection
from django.utils import translation
from pytest_django import Settings

from labeling.models import AuditEntry, Project
from labeling.plugins import UnknownPlugin
from labeling.stored_texts import read_stored
from labeling.wording import translated
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.storage.files import Storage, StorageFull, storage
from tests.factories.broker import WaitingHints
from tests.factories.lessons import make_options
from tests.factories.rows import make_project, make_user
from tests.factories.scored import make_snapshot
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.models import Reranker, TrainingRun
from trainer.serving.registry import servable
from trainer.training.process import ROWS
from workers import reconciler
from workers.jobs import training
from workers.jobs.training import (
    AlreadyTraining,
    TrainingRefused,
    cancel_training,
    publish_anyway,
    resume_training,
    start_training,
    waiting_training_ids,
    workspace_of,
)
from workers.jobs.training_progress import MOST_POINTS, Progress
from workers.models import Job
from workers.stopping import note_stopping

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    monkeypatch.setattr(training, "POLL_S", 0.05)
    yield
    note_stopping(False)


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture
def snapshot(project: Project) -> Snapshot:
    return make_snapshot(project)


def job_of(run: TrainingRun) -> Job:
    return Job.objects.filter(payload__training_run=run.pk).latest("id")


def order_stub(project: Project, snapshot: Snapshot, does: str = "dawdles") -> TrainingRun:
    return start_training(project, snapshot, trainer="test-trainer", options={"does": does})


class InBackground:
    """A worker at work, in a thread with a connection of its own."""

    def __init__(self, run: TrainingRun) -> None:
        self._thread = threading.Thread(target=self._work, args=[job_of(run).pk])

    def _work(self, job_id: int) -> None:
        try:
            training.train(job_id, worker="background")
        finally:
            connection.close()

    def __enter__(self) -> InBackground:
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trains(run: TrainingRun) -> bool:
    run.refresh_from_db()
    return bool(run.progress.get("step"))


def cramped(self: Storage, source: Path, path: str, **rest: Any) -> None:
    """An upload that finds no room when some of it is stored."""
    self.write_bytes(f"{path}/adapter/README.md", b"")
    raise StorageFull(28, "no room is left")


def test_a_training_ends_in_a_stored_reranker_and_nothing_is_stored_without_room(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_snapshot(project, dev_share=0.0)  # on two dev queries a head of random weights may win
    options = make_options(save_tiny_bert(tmp_path / "bert"), epochs=2, eval_steps=3).model_dump()
    run = start_training(project, snapshot, trainer="pointwise", options=options, by=make_user())
    assert (run.state, run.seed) == ("planned", 0)
    with monkeypatch.context() as full:
        full.setattr(Storage, "upload_folder", cramped)
        training.train(job_of(run).pk, worker="here")
    run.refresh_from_db()
    assert (run.state, "no room is left" in run.error) == ("failed", True)
    assert not Reranker.objects.exists()
    assert storage().names("rerankers") == []

    resume_training(run)
    training.train(job_of(run).pk, worker="here")
    run.refresh_from_db()
    assert (run.state, run.error) == ("finished", "")
    reranker = Reranker.objects.get()
    assert (reranker.kind, reranker.training_run) == ("trained", run)
    names = storage().names(reranker.location)
    assert {name.partition("/")[0] for name in names} == {
        "adapter", "merged", "sequence_classification", "manifest.json", "order_check",
    }  # fmt: skip
    assert json.loads(storage().read_bytes(f"{reranker.location}/manifest.json")) == reranker.manifest
    assert reranker.manifest["card"]["data"]["checksum"] == snapshot.checksum
    assert run.progress["facts"]["rows"] == snapshot.manifest["splits"]["train"]["rows"]
    assert run.progress["step"] == run.progress["steps"] > 3
    job = job_of(run)
    assert (job.state, job.message) == ("finished", f"reranker {reranker.name!r} published")
    assert not workspace_of(run).exists()
    assert AuditEntry.objects.filter(action="training.ordered").count() == 1


@pytest.mark.usefixtures("stub_trainer")
def test_orders_that_cannot_be_carried_out_are_refused(project: Project, snapshot: Snapshot) -> None:
    with pytest.raises(UnknownPlugin):
        start_training(project, snapshot, trainer="no-such")
    with pytest.raises(pydantic.ValidationError):
        start_training(project, snapshot, options={"rank": 0})
    with pytest.raises(TrainingRefused, match="holds no scores of project"):
        start_training(make_project(), snapshot)
    snapshot.manifest["splits"]["train"]["rows"] = 0
    with pytest.raises(TrainingRefused, match="has no training queries"):
        start_training(project, snapshot)
    assert not TrainingRun.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.usefixtures("stub_trainer")
def test_a_project_trains_once_at_a_time(project: Project, snapshot: Snapshot) -> None:
    run = order_stub(project, snapshot)
    with pytest.raises(AlreadyTraining):
        order_stub(project, snapshot)
    assert TrainingRun.objects.count() == 1
    assert cancel_training(run)
    order_stub(project, snapshot)


@pytest.mark.usefixtures("stub_trainer")
@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("explodes", "ArithmeticError: two and two are five"),
        ("fills the disk", "free some, then resume the run"),
        ("vanishes", "ended with status 9 without an error message"),
    ],
)
def test_a_failure_stands_in_run_and_job_and_publishes_nothing(
    project: Project, snapshot: Snapshot, does: str, says: str
) -> None:
    run = order_stub(project, snapshot, does)
    training.train(job_of(run).pk, worker="here")
    run.refresh_from_db()
    assert run.state == "failed"
    assert says in run.error
    assert run.error == job_of(run).error and not run.error.startswith("TrainingFailed")
    assert not Reranker.objects.exists()
    assert storage().names("rerankers") == []


@pytest.mark.usefixtures("stub_trainer")
def test_a_snapshot_that_was_changed_is_not_learned_from(project: Project, snapshot: Snapshot) -> None:
    storage().write_bytes(f"{snapshot.location}/rows.parquet", b"something else")
    run = order_stub(project, snapshot)
    training.train(job_of(run).pk, worker="here")
    run.refresh_from_db()
    assert run.state == "failed" and f"of snapshot {snapshot.name!r} was changed or damaged" in run.error


@pytest.mark.usefixtures("stub_trainer")
def test_what_another_training_left_under_this_number_is_not_resumed(project: Project, snapshot: Snapshot) -> None:
    run = order_stub(project, snapshot)
    checkpoint = training.prepare_workspace(run) / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    training.prepare_workspace(run)
    assert checkpoint.exists()
    run.options = {"does": "explodes"}
    rows = training.prepare_workspace(run) / ROWS
    assert not checkpoint.exists() and rows.read_bytes() == storage().read_bytes(f"{snapshot.location}/rows.parquet")
    run.snapshot = freeze([project], name="another", options=SnapshotOptions(seed=5))
    training.prepare_workspace(run)
    assert rows.read_bytes() == storage().read_bytes(f"{run.snapshot.location}/rows.parquet")


@pytest.mark.usefixtures("stub_trainer")
def test_a_cancelled_training_ends_its_process(project: Project, snapshot: Snapshot) -> None:
    run = order_stub(project, snapshot)
    with InBackground(run):
        wait_until(lambda: trains(run))
        assert cancel_training(run)
    run.refresh_from_db()
    assert (run.state, job_of(run).state) == ("cancelled", "cancelled")
    assert not cancel_training(run)
    resume_training(run)
    assert (run.state, job_of(run).state) == ("planned", "open")
    with pytest.raises(TrainingRefused, match="only a failed or cancelled run can be resumed"):
        resume_training(run)


@pytest.mark.usefixtures("stub_trainer")
def test_a_worker_that_is_told_to_stop_lets_the_job_go(project: Project, snapshot: Snapshot) -> None:
    run = order_stub(project, snapshot)
    with InBackground(run):
        wait_until(lambda: trains(run))
        note_stopping()
    run.refresh_from_db()
    job = job_of(run)
    assert (run.state, job.state, job.attempts, job.lease_until) == ("running", "open", 0, None)
    assert waiting_training_ids() == [job.pk]


def silent(run: TrainingRun, **fields: Any) -> None:
    """As if its worker had died a while ago."""
    Job.objects.filter(payload__training_run=run.pk).update(
        state="leased", lease_until="2020-01-01T00:00Z", leased_by="gone", **fields
    )


@pytest.mark.usefixtures("stub_trainer")
def test_the_job_of_a_dead_worker_is_found_and_taken_over(
    project: Project, snapshot: Snapshot, sent_hints: WaitingHints
) -> None:
    run = order_stub(project, snapshot, "explodes")
    silent(run)
    sent_hints.clear()
    reconciler.reconcile_once()
    assert ("train", job_of(run).pk) in sent_hints
    training.train(job_of(run).pk, worker="next")
    run.refresh_from_db()
    assert run.state == "failed"


@pytest.mark.usefixtures("stub_trainer")
def test_the_run_of_a_worker_that_died_when_it_had_failed_ends(project: Project, snapshot: Snapshot) -> None:
    run = order_stub(project, snapshot)
    TrainingRun.objects.filter(pk=run.pk).update(state="running")
    Job.objects.filter(payload__training_run=run.pk).update(state="failed", error="no room is left", lease_until=None)
    reconciler.reconcile_once()
    run.refresh_from_db()
    assert (run.state, run.error) == ("failed", "no room is left")
    assert waiting_training_ids() == []
    resume_training(run)
    assert waiting_training_ids() == [job_of(run).pk]
    run.refresh_from_db()
    assert run.state == "planned"


@pytest.mark.usefixtures("stub_trainer")
def test_a_training_that_kills_its_workers_is_given_up(project: Project, snapshot: Snapshot) -> None:
    run = order_stub(project, snapshot)
    silent(run, attempts=training.MOST_ATTEMPTS)
    training.train(job_of(run).pk, worker="next")
    run.refresh_from_db()
    assert run.state == "failed"
    assert "crashed 3 times without reaching another checkpoint" in run.error


def test_curves_stay_short_and_go_back_where_a_training_does() -> None:
    progress = Progress()
    for step in range(1, 1001):
        progress.take({"kind": "step", "step": step, "steps": 1000, "loss": 1 / step})
    assert len(progress.shown()["loss"]) <= MOST_POINTS
    assert progress.shown()["loss"][-1] == [1000, 0.001]
    progress.take({"kind": "resumed", "step": 500})
    assert max(point[0] for point in progress.shown()["loss"]) <= 500
    progress.take({"kind": "out_of_memory", "batch_size": 8, "accumulation": 2, "problem": ""})
    progress.take({"kind": "unheard of"})
    assert [read_stored(note) for note in progress.shown()["notes"]] == [
        "resumed from the checkpoint of step 500",
        "out of memory: continues with rows at once: 8, batches a step: 2",
    ]


def test_notes_are_read_in_the_language_of_the_reader_with_numbers_that_every_language_reads() -> None:
    progress = Progress()
    progress.take({"kind": "prepared", "rows": 50_000, "cut_rows": 1_200})
    progress.take({"kind": "warm_start", "step": 0, "steps": 1_500})
    progress.take({"kind": "resumed", "step": 2_000})
    with translation.override("de"):
        assert [translated(note) for note in progress.shown()["notes"]] == [
            "1200 von 50000 Zeilen sind länger, als das Modell liest, und wurden gekürzt",
            "zuerst 1500 Schritte auf der Ordnung, die die Basis von sich aus hat",
            "ging vom Zwischenstand nach Schritt 2000 weiter",
        ]


def test_a_student_that_is_held_back_is_served_to_nobody_until_an_owner_publishes_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_training(
        project,
        make_snapshot(project, dev_share=0.0),
        trainer="pointwise",
        options=make_options(save_tiny_bert(tmp_path / "bert"), epochs=1).model_dump(),
    )
    TrainingRun.objects.filter(pk=run.pk).update(state="running")
    read = json.loads

    def worse(text: Any, **rest: Any) -> Any:
        found = read(text, **rest)
        if isinstance(found, dict) and "gate" in found:
            found["gate"] |= {"held_back": True, "reasons": ["few_queries"]}
        return found

    with monkeypatch.context() as patch:
        patch.setattr(training.json, "loads", worse)
        training.train(job_of(run).pk, worker="here")
    run.refresh_from_db()
    reranker = Reranker.objects.get(kind="trained")
    assert (run.state, run.error, reranker.release) == ("held_back", "", "held_back")
    assert not servable().exists()
    with translation.override("en"):
        assert "held back" in translated(job_of(run).message)
    publish_anyway(run, by=make_user())
    assert [each.release for each in servable()] == ["published_anyway"]
    assert AuditEntry.objects.filter(action="reranker.published_anyway").count() == 1
    with pytest.raises(TrainingRefused, match="no reranker that is held back"):
        publish_anyway(run)


def test_where_the_base_won_nothing_is_stored(project: Project, snapshot: Snapshot, tmp_path: Path) -> None:
    base = save_tiny_embedder(tmp_path / "embedder")
    options = {"base": str(base), "learning_rate": 1e-9, "threads": 1, "folds": 2}
    run = start_training(project, snapshot, trainer="embedding", options=options)
    training.train(job_of(run).pk, worker="here")
    run.refresh_from_db()
    assert (run.state, run.error, run.gate["base_won"]) == ("held_back", "", True)
    assert not Reranker.objects.filter(kind="trained").exists()
    assert storage().names("rerankers") == []


def test_without_a_trainer_base_and_snapshot_choose_it(project: Project, snapshot: Snapshot, tmp_path: Path) -> None:
    advised = training.recommendation(snapshot)
    assert (advised.trainer, advised.reason) == ("embedding", "few_queries")
    assert start_training(project, snapshot).trainer == "embedding"
    plain = {"base": str(save_tiny_bert(tmp_path / "bert"))}
    assert training.recommendation(snapshot, plain).trainer == "listwise"
    snapshot.manifest["splits"]["train"]["queries"] = 5000
    assert training.recommendation(snapshot, plain).trainer == "pointwise"
    with pytest.raises(TrainingRefused, match=r"no trainer can be recommended: .*no-such.* name the trainer"):
        training.recommendation(snapshot, {"base": "/no-such"})
