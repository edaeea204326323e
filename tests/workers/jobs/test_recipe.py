"""Recipes: the whole method as one order, resumable at every stage, with reasons for stages that are left out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_django import Settings

from labeling.models import AuditEntry, Candidate, Project, Query
from labeling.projects import exclude_queries
from labeling.stored_texts import read_stored
from scoring.models import Snapshot
from scoring.rating import rate_stale
from scoring.snapshots.freeze import SnapshotOptions, freeze
from tests.factories.rows import make_judges, make_project
from tests.factories.students.stored import stored_student
from tests.factories.weights.tiny_models import save_tiny_bert
from tests.factories.working import judge_all
from trainer.models import Reranker, TrainingRun
from workers.jobs.calibration import calibrate
from workers.jobs.distillation import distill, waiting_distillation_ids
from workers.jobs.recipe import job as recipes
from workers.jobs.recipe import plan as recipe_plan
from workers.jobs.recipe import stages as recipe_stages
from workers.jobs.recipe.job import (
    RecipeRefused,
    cancel_recipe,
    cook,
    order_recipe,
    planned,
    resume_recipe,
    view_of,
    waiting_recipe_ids,
)
from workers.jobs.recipe.options import RecipeOptions
from workers.judging import batches
from workers.judging.batches import prepared_judge
from workers.models import Attempt, Job, Recipe, RecipeStage, Run
from workers.runs import advancing

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]
SMALL = RecipeOptions(
    distill="always", panel_pairs=3, review_pairs=4, calibration_pairs=1, refinement_pairs=0, pairs_per_candidate=2
)


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    monkeypatch.setenv("ZELO_MODELS", "*")
    yield
    prepared_judge.cache_clear()


def states(recipe: Recipe) -> dict[str, str]:
    return {stage.name: stage.state for stage in view_of(recipe).stages}


def cooked(recipe: Recipe) -> str:
    """What a worker does with the hint, once the recipe can move; the stage that is reached."""
    assert waiting_recipe_ids() == [recipe.job_id]
    cook(recipe.job_id, worker="here")
    recipe.job.refresh_from_db()
    current = view_of(recipe).current
    return current.name if current else ""


def end_runs(project: Project) -> None:
    """What workers do until the project's runs have ended and their answers are in the scores."""
    for run in Run.objects.filter(project=project, state__in=Run.ACTIVE):
        for _ in range(8):
            advancing.advance(run.pk)
            judge_all(run)
            rate_stale(project.pk)
            run.refresh_from_db()
            if run.state not in Run.ACTIVE:
                break
        assert run.state == Run.State.FINISHED, run.reason
    for _ in range(4):
        calibrate(project.pk)
        rate_stale(project.pk)


def end_training(folder: Path, *, student: str = "") -> TrainingRun:
    """The ordered training as its worker would leave it, with a pairwise student or, under a name, a reranker."""
    run = TrainingRun.objects.latest("id")
    if student:
        Reranker.objects.create(project=run.project, training_run=run, name=student, kind="trained")
    else:
        stored_student(run, folder)
    Job.objects.filter(payload__training_run=run.pk).update(state="finished", lease_until=None)
    TrainingRun.objects.filter(pk=run.pk).update(state="finished")
    return run


def distilled(folder: Path, project: Project) -> None:
    """Carry the distilled run out to its end."""
    for _ in range(4):
        end_runs(project)
        for job_id in waiting_distillation_ids():
            distill(job_id, worker="here")
        if TrainingRun.objects.filter(state="planned").exists():
            end_training(folder)


def test_one_order_makes_the_papers_stages_in_order_and_a_dead_worker_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(queries=10, documents=6)
    judges = make_judges(project, 2)
    plan = planned(project, judges, SMALL)
    assert [(stage.name, stage.pairs, stage.calls) for stage in plan.stages] == [
        ("panel", 30, 30), ("distillation", 0, 0), ("design", 40, 40), ("calibration", 10, 20), ("student", 0, 0),
        ("refinement", 0, 0), ("proof", 0, 0),
    ]  # fmt: skip
    assert plan.calls == 90 and plan.stages[5].reason == "the options leave it out"
    assert not Recipe.objects.exists()

    recipe = order_recipe(project, judges, SMALL)
    with pytest.raises(RecipeRefused, match="unfinished; wait for its end, or cancel it"):
        order_recipe(project, judges, SMALL)
    assert cooked(recipe) == "panel" and waiting_recipe_ids() == []
    distilled(tmp_path, project)
    assert cooked(recipe) == "calibration"
    rows = {stage.name: stage for stage in view_of(recipe).stages}
    assert rows["panel"].run is not None and rows["distillation"].training is not None
    assert rows["design"].run is not None and rows["design"].run.judges.get().plugin == "pairwise-student"
    assert Run.objects.filter(sampler="cross-query").count() == 1

    end_runs(project)
    with monkeypatch.context() as patch:  # killed after it has frozen the snapshot
        patch.setattr(recipes, "_store", lambda *args, **changes: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cook(recipe.job_id, worker="dies before the stage is finished")
    Job.objects.filter(pk=recipe.job_id).update(lease_until="2020-01-01T00:00Z")
    real = recipes._store

    def dies_later(stage: RecipeStage, *args: Any, **changes: Any) -> None:
        if stage.name == "student":
            raise KeyboardInterrupt
        real(stage, *args, **changes)

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "_store", dies_later)
        with pytest.raises(KeyboardInterrupt):
            cook(recipe.job_id, worker="dies with a snapshot and a training that nobody knows")
    assert TrainingRun.objects.count() == 1, "the training was ordered in the transaction that died"
    Job.objects.filter(pk=recipe.job_id).update(lease_until="2020-01-01T00:00Z")
    assert cooked(recipe) == "student"
    assert Snapshot.objects.filter(name=f"Recipe {recipe.pk}").count() == 1
    training = end_training(tmp_path, student="the best")
    assert training.trainer == "embedding"

    assert cooked(recipe) == "proof"
    assert states(recipe)["refinement"] == "left_out"
    job = view_of(recipe).stages[-1].job
    assert job is not None and (job.stage, job.payload["split"]) == ("evaluate", "test")
    Job.objects.filter(pk=job.pk).update(state="finished", message="5 rerankers")
    assert cooked(recipe) == ""
    assert recipe.job.state == "finished" and set(states(recipe).values()) == {"finished", "left_out"}
    assert read_stored(recipe.job.message) == "the recipe is complete: 90 panel calls instead of 450"
    assert waiting_recipe_ids() == []
    assert [entry.action for entry in AuditEntry.objects.filter(action__startswith="recipe")] == ["recipe.ordered"]


def test_a_small_project_says_which_stages_are_left_out_and_failures_resume_where_they_were(tmp_path: Path) -> None:
    project = make_project(queries=10, documents=4)
    judges = make_judges(project, 2)
    options = RecipeOptions(pairs_per_candidate=2, calibration_pairs=1)
    recipe = order_recipe(project, judges, options)
    told = {stage.name: str(stage.reason) for stage in view_of(recipe).stages if stage.state == "left_out"}
    assert set(told) == {"panel", "distillation", "refinement"}
    assert told["panel"].startswith("10 queries; a distilled student needs 50, so the panel judges the whole design")
    assert told["refinement"].startswith("1 dev query chooses the student; a refinement needs 5")
    assert cooked(recipe) == "design"
    run = Run.objects.get()
    assert (run.sampler, run.allocation) == ("adaptive", "rotate")

    assert cancel_recipe(recipe) and not cancel_recipe(recipe)
    run.refresh_from_db()
    assert run.state == "cancelled" and states(recipe)["design"] == "failed"
    resume_recipe(recipe)
    with pytest.raises(RecipeRefused, match="only a failed or cancelled one can be resumed"):
        resume_recipe(recipe)
    assert cooked(recipe) == "design" and Run.objects.count() == 2
    end_runs(project)
    assert cooked(recipe) == "calibration"
    cross = Run.objects.get(sampler="cross-query")
    advancing.advance(cross.pk)
    batches.judge_open(judges[0].pk, worker="w@host:1")
    answered = Attempt.objects.filter(run=cross).count()
    assert answered > 1
    Run.objects.filter(pk=cross.pk).update(state="failed", reason="no answers")
    cooked(recipe)
    assert recipe.job.state == "failed" and "the run of the stage calibration failed: no answers" in recipe.job.error
    resume_recipe(recipe)
    assert cooked(recipe) == "calibration"
    assert Run.objects.latest("id").pair_budget == 10 - answered // 2, "two judges answer each pair"
    end_runs(project)
    assert cooked(recipe) == "student"

    TrainingRun.objects.update(state="failed", error="no room is left")
    Job.objects.filter(stage="train").update(state="failed", lease_until=None)
    cooked(recipe)
    assert "no room is left; fix this, then resume the recipe" in recipe.job.error
    resume_recipe(recipe)
    assert TrainingRun.objects.get().state == "planned", "the training goes on from its checkpoint"
    TrainingRun.objects.update(state="held_back")
    Job.objects.filter(stage="train").update(state="finished", lease_until=None)
    evaluation = Job.objects.create(project=project, stage="evaluate")
    assert cooked(recipe) == "proof", "an evaluation of the training goes on, so the recipe waits"
    assert states(recipe)["proof"] == "planned"
    Job.objects.filter(pk=evaluation.pk).update(state="finished")
    assert cooked(recipe) == "proof"
    assert "held back" in str(next(stage.reason for stage in view_of(recipe).stages if stage.name == "student"))


def test_only_a_snapshot_that_was_frozen_since_the_order_is_taken(tmp_path: Path) -> None:
    project = make_project(queries=10, documents=4)
    recipe = order_recipe(project, make_judges(project, 2), RecipeOptions(pairs_per_candidate=2, calibration_pairs=1))
    for reached in ("design", "calibration"):
        assert cooked(recipe) == reached
        end_runs(project)
    name = f"Recipe {recipe.pk}"
    peoples = freeze([project], name=name, options=SnapshotOptions(seed=7, shared_documents="keep"))
    Snapshot.objects.filter(pk=peoples.pk).update(created_at=recipe.job.created_at - timedelta(seconds=1))
    assert cooked(recipe) == "student"
    taken = TrainingRun.objects.get().snapshot
    assert (taken.name, taken == peoples, taken.manifest["seed"]) == (name, False, 0), "a name that people gave"


def test_where_the_pairwise_student_is_held_back_the_panel_goes_on_alone_within_the_plan(tmp_path: Path) -> None:
    project = make_project(queries=10, documents=6)
    recipe = order_recipe(project, make_judges(project, 2), SMALL)
    assert cooked(recipe) == "panel"
    end_runs(project)
    (job_id,) = waiting_distillation_ids()
    distill(job_id, worker="here")
    assert cooked(recipe) == "distillation"
    TrainingRun.objects.update(state="held_back", gate={"held_back": True, "base_won": True})
    Job.objects.filter(stage="train").update(state="finished", lease_until=None)
    distill(job_id, worker="here")
    assert Job.objects.get(pk=job_id).state == "failed"
    assert cooked(recipe) == "design", "the recipe goes on"
    rows = {stage.name: stage for stage in view_of(recipe).stages}
    assert "is held back" in str(rows["distillation"].reason) and rows["distillation"].training is not None
    run = rows["design"].run
    assert run is not None and (run.sampler, run.pair_budget, run.judges.count()) == ("adaptive", 40, 2)
    advancing.advance(run.pk)
    judge_all(run)
    answered = Attempt.objects.filter(run=run).count()
    assert cancel_recipe(recipe) and states(recipe)["design"] == "failed"
    resume_recipe(recipe)
    assert cooked(recipe) == "design"
    second = next(stage.run for stage in view_of(recipe).stages if stage.name == "design")
    assert second is not None and second.pk != run.pk and second.pair_budget == max(1, 40 - answered)
    student = stored_student(TrainingRun.objects.get(), tmp_path, release="published_anyway")
    assert waiting_recipe_ids() == [], f"{student.name} was published while the panel judges the design"
    end_runs(project)
    assert cooked(recipe) == "calibration"
    assert states(recipe)["design"] == "finished"
    panel = Run.objects.exclude(sampler="cross-query")
    assert view_of(recipe).spent.calls == Attempt.objects.filter(run__in=panel).count()


@pytest.mark.usefixtures("stub_trainer")
def test_a_last_stage_that_cannot_begin_is_refused_before_the_panel_is_paid(tmp_path: Path) -> None:
    project = make_project(queries=12)
    judges = make_judges(project, 1)
    bert = str(save_tiny_bert(tmp_path / "bert"))
    for options, told in (
        ({"trainer": "nonsense"}, "no trainer is named 'nonsense'; available: embedding"),
        ({"trainer": "pairwise"}, "'pairwise' makes a judge, which ranks nothing"),
        ({"trainer": "embedding", "base": bert}, "is not an embedder"),
        ({"trainer": "test-trainer"}, "base: no option has this name"),
        ({"split_by": "part"}, "split_by is 'part', which no scored query has"),
    ):
        with pytest.raises(RecipeRefused, match=told):
            order_recipe(project, judges, RecipeOptions.model_validate(options))
    project.queries.update(metadata={"part": "TRAIN"})
    with pytest.raises(RecipeRefused, match="has part = 'TRAIN' in its metadata; expected train, dev, test, heldout"):
        order_recipe(project, judges, RecipeOptions(split_by="part"))
    project.queries.update(metadata={"part": "test"})
    with pytest.raises(RecipeRefused, match="'part', which leaves no query to train on"):
        order_recipe(project, judges, RecipeOptions(split_by="part"))
    assert not Job.objects.exists() and not Recipe.objects.exists()
    project.queries.update(metadata={"part": "train"})
    planned(project, judges, RecipeOptions(split_by="part", trainer="listwise", base=bert))


@pytest.mark.parametrize("held_out", ["dev", "heldout"])
def test_without_test_queries_the_proof_is_that_of_heldout_or_left_out(tmp_path: Path, held_out: str) -> None:
    project = make_project(queries=10, documents=4)
    project.queries.update(metadata={"part": "train"})
    last = project.queries.latest("pk")
    project.queries.filter(pk=last.pk).update(metadata={"part": held_out})
    recipe = order_recipe(project, make_judges(project, 1), RecipeOptions(split_by="part", calibration_pairs=0))
    assert cooked(recipe) == "design"
    end_runs(project)
    assert cooked(recipe) == "student"
    end_training(tmp_path, student="the best")
    cooked(recipe)
    proof = view_of(recipe).stages[-1]
    if held_out == "heldout":
        assert proof.job is not None and proof.job.payload["split"] == "heldout"
    else:
        assert (proof.state, recipe.job.state) == ("left_out", "finished") and "nothing can be measured" in proof.reason


def test_excluded_queries_share_no_documents_with_the_others() -> None:
    project = make_project(queries=1, documents=4)
    other = Query.objects.create(project=project, external_id="other", text="other")
    for document in project.documents.all():
        Candidate.objects.create(query=other, document=document)
    order: Any = SimpleNamespace(project=project, options=RecipeOptions(shared_documents="auto"))
    assert recipe_stages._shared_documents(order) == "keep"
    exclude_queries(project, [other.pk])
    assert recipe_stages._shared_documents(order) == "remove"


def test_excluded_queries_do_not_count_in_the_design() -> None:
    project = make_project(queries=6, documents=4)
    judges = make_judges(project, 1)
    before = {stage.name: stage.pairs for stage in planned(project, judges).stages}
    exclude_queries(project, list(project.queries.order_by("pk").values_list("pk", flat=True)[:3]))
    assert {stage.name: stage.pairs for stage in planned(project, judges).stages}["design"] * 2 == before["design"]
    options = RecipeOptions(distill="auto", pairs_per_candidate=100, panel_pairs=1, review_pairs=1)
    assert recipe_plan._own_design(project, options) == 3 * 6


def test_what_cannot_begin_is_refused_and_nothing_is_stored() -> None:
    project = make_project(queries=1)
    judges = make_judges(project, 1)
    empty = make_project()
    for where, panel, options, told in (
        (project, [], None, "the recipe has no panel; choose at least one judge"),
        (empty, make_judges(empty, 1), None, "no query with two candidates"),
        (project, judges, RecipeOptions(base="no/such-model"), "base 'no/such-model' cannot be loaded"),
        (project, judges, RecipeOptions(distill="always", pairwise_base="no/such-model"), "nothing can be distilled"),
    ):
        with pytest.raises(RecipeRefused, match=told):
            order_recipe(where, panel, options)
    assert not Job.objects.exists() and not Recipe.objects.exists()
    plan = planned(project, judges)
    told = {stage.name: str(stage.reason) for stage in plan.stages if stage.reason}
    assert told["calibration"].startswith("there is one query") and told["proof"] == "there is no student"
    assert told["student"] == "1 query; a student needs 10, import more"
    with pytest.raises(RecipeRefused, match="nothing can be distilled: 1 query; a distilled student needs 3"):
        planned(project, judges, RecipeOptions(distill="always"))
