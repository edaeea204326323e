"""Refinements: mined pairs of training queries become questions, and training continues from the student."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytest_django import Settings

from labeling.models import Annotator, AuditEntry, Candidate, Project, SpotCheck
from labeling.projects import exclude_queries
from labeling.stored_texts import read_stored
from scoring.models import Snapshot, SpotCheckPlan
from scoring.rating import rate_stale
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.snapshots.mixing import Part, mix
from scoring.spot_checks.plans import open_pairs, withdraw_plan
from scoring.storage.files import storage
from tests.factories.rows import judge_pair, make_judges, make_project
from tests.factories.scored import scored
from tests.factories.students.embedders import save_embedding_adapter
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from tests.factories.working import judge_all, work_until_over
from trainer.evaluation.dataset import read_queries
from trainer.models import Reranker, TrainingRun
from trainer.publishing.embedding_export import publish_embedder
from trainer.publishing.export import ModelCard
from trainer.serving.registry import TRAINED
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.options import START
from workers.jobs.calibration import calibrate
from workers.jobs.evaluation import evaluate
from workers.jobs.recipe.job import cook, resume_recipe
from workers.jobs.refinement import job as refinements
from workers.jobs.refinement.job import (
    RefinementOptions,
    RefinementRefused,
    cancel_refinement,
    dev_queries,
    order_refinement,
    refine,
    refinement_of,
    resume_refinement,
    waiting_refinement_ids,
)
from workers.jobs.training import TrainingRefused, prepare_workspace, start_training, train
from workers.judging import batches
from workers.judging.batches import prepared_judge
from workers.models import Attempt, Job, JudgingTask, Recipe, RecipeStage, Run
from workers.runs import advancing
from workers.runs.ordering import start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]
SMALL = RefinementOptions(pairs=2, queries=8)


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    monkeypatch.setenv("ZELO_MODELS", "*")
    yield
    prepared_judge.cache_clear()


def settle(project: Project) -> None:
    for _ in range(4):
        calibrate(project.pk)
        rate_stale(project.pk)


def make_student(folder: Path, *, dev_share: float = 0.3) -> Reranker:
    """An embedding student with a random adapter, whose training has a snapshot of judged queries."""
    project = make_project(queries=20, documents=6)
    design = start_run(
        project, judges=make_judges(project, 2), sampler_options={"degree": 2}, allocation="rotate", seed=1
    )
    work_until_over(design)
    settle(project)
    options = SnapshotOptions(dev_share=dev_share, test_share=0.2, shared_documents="keep")
    snapshot = freeze([project], name="first", options=options)
    base = str(save_tiny_embedder(folder / "base"))
    chosen = EmbeddingOptions(base=base, rank=4, alpha=8, epochs=2, max_length=64, precision="fp32", threads=1)
    run = TrainingRun.objects.create(
        project=project,
        snapshot=snapshot,
        trainer="embedding",
        options=chosen.model_dump(mode="json"),
        state="finished",
    )
    published = publish_embedder(
        save_embedding_adapter(folder / "adapter", chosen), base=base, out=folder / "student",
        card=ModelCard(name="student"), max_length=64,
    )  # fmt: skip
    storage().upload_folder(published.folder, "rerankers/student")
    return Reranker.objects.create(
        project=project, training_run=run, name="student", kind=TRAINED, location="rerankers/student",
        checksum=published.checksum, manifest=dict(published.manifest),
    )  # fmt: skip


def training_queries(snapshot: Snapshot) -> set[int]:
    with storage().opened(f"{snapshot.location}/rows.parquet") as stream:
        return {int(each) for query in read_queries(stream, "train", name="") for each in query.candidate_ids}


def step(job: Job) -> str:
    assert waiting_refinement_ids() == [job.pk]
    refine(job.pk, worker="here")
    job.refresh_from_db()
    return str(job.payload["stage"])


def ask(job: Job) -> Run:
    """Carry the run on the mined pairs out."""
    run = Run.objects.get(pk=job.payload["runs"]["ask"])
    for _ in range(3):
        advancing.advance(run.pk)
        judge_all(run)
        rate_stale(run.project_id)
    settle(job.project)
    run.refresh_from_db()
    return run


def test_mined_pairs_of_training_queries_are_asked_and_training_continues(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    project = student.project
    before = student.training_run.snapshot  # type: ignore[union-attr]
    judges = list(project.annotators.order_by("pk"))
    job = order_refinement(student, judges, SMALL)
    with pytest.raises(RefinementRefused, match="unfinished; wait for its end, or cancel it"):
        order_refinement(student, judges, SMALL)
    assert step(job) == "ask" and waiting_refinement_ids() == []
    found = refinement_of(job)
    assert found.run is not None and (found.run.sampler, found.run.allocation) == ("named", "rotate")
    assert found.pairs == 16 and len(found.mined) == 16
    assert {each for row in found.mined for each in (row["a"], row["b"])} <= training_queries(before)
    gains = [row["gain"] for row in found.mined]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 0.0

    advancing.advance(found.run.pk)
    batches.judge_open(judges[0].pk, worker="w@host:1")
    answered = Attempt.objects.filter(run=found.run).count()
    assert 0 < answered < 16
    unanswered = JudgingTask.objects.filter(run=found.run).first()
    assert unanswered is not None
    other = Annotator.objects.create(project=project, name="other", plugin="test-longer", config_hash="9" * 64)
    judge_pair(unanswered.pair, other)  # which spares these judges no question
    assert cancel_refinement(job) and not cancel_refinement(job)
    resume_refinement(job)
    run = ask(job)
    assert run.state == "finished" and run.pairs_planned == 16 - answered

    assert step(job) == "train"
    if "training" not in job.payload:
        step(job)
    snapshot = Snapshot.objects.get(name=f"Refinement {job.pk}")
    assert training_queries(snapshot) == training_queries(before), "the splits stay"
    training = TrainingRun.objects.get(pk=job.payload["training"])
    assert (training.trainer, training.options["start"], training.options["epochs"]) == (
        "embedding",
        student.checksum,
        1,
    )
    workspace = prepare_workspace(training)
    assert (workspace / START / "adapter_model.safetensors").exists()
    assert '"start": {"name": "student"' in (workspace / "order.json").read_text()

    assert cancel_refinement(job)
    resume_refinement(job)
    training.refresh_from_db()
    job.refresh_from_db()
    assert training.state == "planned" and refinement_of(job).training == training, "it goes on from its checkpoint"
    Job.objects.filter(stage="train").update(state="finished", lease_until=None)
    TrainingRun.objects.filter(pk=training.pk).update(state="held_back")
    assert step(job) == "train" and job.state == "finished"
    assert read_stored(job.message).startswith("16 pairs judged; on dev queries no checkpoint ranks better")
    assert AuditEntry.objects.filter(action__startswith="refinement").count() == 5


def test_excluded_queries_are_not_mined(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    assert student.training_run is not None
    of_train = Candidate.objects.filter(pk__in=training_queries(student.training_run.snapshot))
    excluded = sorted(set(of_train.values_list("query", flat=True)))[2:]
    exclude_queries(student.project, excluded)
    job = order_refinement(student, [], RefinementOptions(pairs=1, queries=8, ask="people"))
    assert step(job) == "ask"
    asked = set(SpotCheck.objects.values_list("pair__query", flat=True))
    assert asked and not asked & set(excluded)


def test_what_was_deleted_is_made_again_or_named(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    job = order_refinement(student, list(student.project.annotators.order_by("pk")), SMALL)
    assert student.training_run is not None
    before = student.training_run.snapshot
    Snapshot.objects.filter(pk=before.pk).update(name=f"Refinement {job.pk}", created_at="2020-01-01T00:00Z")
    step(job)
    ask(job)
    assert step(job) == "train" and job.payload["snapshot"] != before.pk, "a name that people gave"
    if "training" not in job.payload:
        step(job)
    TrainingRun.objects.filter(pk=job.payload["training"]).update(state="failed", error="no room is left")
    Job.objects.filter(stage="train").update(state="failed", lease_until=None)
    step(job)
    TrainingRun.objects.filter(pk=job.payload["training"]).delete()
    Snapshot.objects.filter(pk=job.payload["snapshot"]).delete()
    resume_refinement(job)
    assert step(job) == "train" and job.state == "open", job.error
    training = TrainingRun.objects.get(pk=job.payload["training"])
    assert training.state == "planned" and training.snapshot_id == job.payload["snapshot"]

    Job.objects.filter(stage="train").update(state="finished", lease_until=None)
    Job.objects.filter(pk=job.pk).update(payload={**job.payload, "stage": "prove"})
    step(job)
    assert "the refined student, its training or its snapshot was deleted; order a new refinement" in job.error


def test_a_refined_mixture_keeps_the_domains_of_all_its_parts() -> None:
    projects = [make_project() for _ in range(2)]
    parts = []
    for project, domain in zip(projects, ("fish", "bread"), strict=True):
        scored(project, queries=4, prefix=f"{domain}-")
        project.queries.update(domain=domain)
        options = SnapshotOptions(domains=[domain], test_share=0.0, dev_share=0.0)
        parts.append(Part(freeze([project], name=domain, options=options)))
    mixed = mix(parts, name="mixture")
    run = TrainingRun.objects.create(project=projects[0], snapshot=mixed, trainer="embedding", state="finished")
    student = Reranker.objects.create(project=projects[0], training_run=run, name="student", kind="trained")
    found: Any = SimpleNamespace(job=Job.objects.create(project=projects[0], stage="refine"), student=student)
    refitted = refinements._frozen(projects[0], found)
    assert {each["domain"] for each in refitted.manifest["domains"]} == {"fish", "bread"}
    assert refitted.rows == mixed.rows


def test_people_can_be_asked_and_a_worker_that_dies_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student(tmp_path)
    job = order_refinement(student, [], RefinementOptions(pairs=1, queries=4, ask="people"))
    with monkeypatch.context() as patch:
        patch.setattr(refinements, "_move", lambda *args, **changes: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            refine(job.pk, worker="dies")
    assert not SpotCheckPlan.objects.exists()
    Job.objects.filter(pk=job.pk).update(lease_until="2020-01-01T00:00Z")
    assert step(job) == "ask" and waiting_refinement_ids() == []
    plan = SpotCheckPlan.objects.get()
    assert (plan.reason, plan.checks.count()) == ("disagreement", 4)
    SpotCheck.objects.all().delete()
    assert step(job) == "train"
    with pytest.raises(RefinementRefused, match="only a failed or cancelled one can be resumed"):
        resume_refinement(job)


def test_where_people_are_being_asked_all_mined_pairs_already_the_order_says_what_to_do(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    rows = [
        (a, b, query.pk)
        for query in student.project.queries.all()
        for a, b in itertools.combinations(sorted(query.candidates.values_list("pk", flat=True)), 2)
    ]
    open_pairs(student.project, rows, reason="disagreement")
    job = order_refinement(student, [], RefinementOptions(pairs=1, queries=4, ask="people"))
    step(job)
    assert (job.state, "withdraw those, then resume the refinement" in job.error) == ("failed", True)
    withdraw_plan(SpotCheckPlan.objects.get())
    assert step(resume_refinement(job)) == "ask"
    assert refinement_of(Job.objects.get(pk=job.pk)).plan == SpotCheckPlan.objects.latest("pk")


def test_dev_queries_that_can_choose_nothing_are_not_counted_before_the_panel_is_paid(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    assert student.training_run is not None
    snapshot = student.training_run.snapshot
    assert dev_queries(student) == snapshot.manifest["splits"]["dev"]["queries"] == 6
    path = f"{snapshot.location}/rows.parquet"
    table = pq.read_table(io.BytesIO(storage().read_bytes(path)))
    dev = np.array(table.column("split").to_pylist()) == "dev"
    two = np.unique(table.column("query_id").to_numpy()[dev])[:2]
    equal = np.isin(table.column("query_id").to_numpy(), two)
    flat = pa.array(np.where(equal, 1500.0, table.column("elo").to_numpy(zero_copy_only=False)))
    written = io.BytesIO()
    pq.write_table(table.set_column(table.column_names.index("elo"), "elo", flat), written)
    Snapshot.objects.filter(pk=snapshot.pk).update(checksum=storage().write_bytes(path, written.getvalue()))
    with pytest.raises(RefinementRefused, match="has 4 dev queries with an order; a refinement needs 5"):
        order_refinement(Reranker.objects.get(pk=student.pk), list(student.project.annotators.order_by("pk")), SMALL)


@pytest.mark.usefixtures("stub_trainer")
def test_what_cannot_be_refined_is_refused(tmp_path: Path) -> None:
    student = make_student(tmp_path, dev_share=0.1)
    judges = list(student.project.annotators.order_by("pk"))
    run = student.training_run
    assert run is not None
    baseline = Reranker.objects.create(project=student.project, name="BM25", kind="bm25")
    for which, panel, told in (
        (student, judges, "has 2 dev queries with an order; a refinement needs 5 to choose on"),
        (student, [], "the refinement has no panel; choose at least one judge"),
        (baseline, judges, "is not a student that was trained here"),
    ):
        with pytest.raises(RefinementRefused, match=told):
            order_refinement(which, panel)
    for trainer, told in (
        ("test-trainer", "has no option 'start', so it cannot continue"),
        ("gone", "no trainer is named 'gone'"),
    ):
        TrainingRun.objects.filter(pk=run.pk).update(trainer=trainer)
        with pytest.raises(RefinementRefused, match=told):
            order_refinement(Reranker.objects.get(pk=student.pk), judges)
    for changes, told in (
        ({"start": "0" * 64}, "which project .* does not have"),
        ({"start": student.checksum, "rank": 8}, "has rank 4 and the training 8"),
    ):
        with pytest.raises(TrainingRefused, match=told):
            start_training(student.project, run.snapshot, trainer="embedding", options=run.options | changes)
    with pytest.raises(TrainingRefused, match="is an embedding student; trainer 'listwise' cannot continue it"):
        options: dict[str, Any] = {name: run.options[name] for name in ("base", "rank", "alpha", "targets")}
        start_training(student.project, run.snapshot, trainer="listwise", options=options | {"start": student.checksum})
    assert not Job.objects.filter(stage__in=["refine", "train"]).exists()


def test_a_recipe_orders_the_refinement_of_its_student_and_ends_with_it(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    project, training = student.project, student.training_run
    job = Job.objects.create(project=project, stage="recipe")
    recipe = Recipe.objects.create(project=project, job=job, options={"refinement_pairs": 1}, plan={"queries": 20})
    recipe.judges.set(project.annotators.all())
    done: dict[str, Any] = {"state": "finished", "started_at": recipe.created_at, "finished_at": recipe.created_at}
    for number, name in enumerate(["panel", "student", "refinement"], start=1):
        state = {"state": "left_out"} if name == "panel" else done if name == "student" else {}
        made = {"training": training} if name == "student" else {}
        RecipeStage.objects.create(recipe=recipe, number=number, name=name, **state, **made)
    cook(job.pk, worker="here")
    order = Job.objects.get(stage="refine")
    assert order.payload["options"]["pairs"] == 1 and recipe.stages.get(name="refinement").job == order
    Job.objects.filter(pk=order.pk).update(state="failed", error="no room is left")
    cook(job.pk, worker="here")
    job.refresh_from_db()
    assert "refinement" in job.error and "no room is left" in job.error
    resume_recipe(recipe)
    order.refresh_from_db()
    assert order.state == "open"
    Job.objects.filter(pk=order.pk).update(state="finished", message="refined")
    cook(job.pk, worker="here")
    assert recipe.stages.get(name="refinement").state == "finished"


@pytest.mark.long
def test_a_refinement_from_mining_to_the_proof_with_a_tiny_model(tmp_path: Path) -> None:
    student = make_student(tmp_path)
    job = order_refinement(student, list(student.project.annotators.order_by("pk")), SMALL)
    step(job)
    ask(job)
    for _ in range(6):
        for train_id in Job.objects.filter(stage="train", state="open").values_list("pk", flat=True):
            train(train_id, worker="here")
        for evaluation in Job.objects.filter(stage="evaluate", state="open").values_list("pk", flat=True):
            evaluate(evaluation, worker="here")
        refine(job.pk, worker="here")
        job.refresh_from_db()
    assert job.state == "finished", job.error
    training = TrainingRun.objects.get(pk=job.payload["training"])
    assert training.state in ("finished", "held_back"), training.error
    assert training.gate.get("start_won") or refinement_of(job).refined is not None
