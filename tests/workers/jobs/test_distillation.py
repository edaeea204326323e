"""Distilled runs: one order through panel, training, student and panel again, resumable at every stage."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from django.core.management import call_command
from django.db.models import Count
from pytest_django import Settings

from labeling.models import Annotator, AuditEntry, Project
from labeling.stored_texts import read_stored
from scoring.annotators.student_weights import guides_of
from scoring.models import ProjectFit, Snapshot
from scoring.rating import rate_stale
from scoring.sampling.draw import query_states
from tests.factories.rows import make_judges, make_project
from tests.factories.scored import make_snapshot
from tests.factories.students.stored import stored_student
from tests.factories.working import judge_all
from trainer.models import Reranker, TrainingRun
from workers.jobs import distillation
from workers.jobs.calibration import calibrate
from workers.jobs.distillation import (
    STAGE,
    DistillationOptions,
    DistillationRefused,
    cancel_distillation,
    distill,
    distillation_of,
    order_distillation,
    resume_distillation,
    waiting_distillation_ids,
)
from workers.judging import batches
from workers.judging.batches import prepared_judge
from workers.models import Attempt, Job, Run
from workers.monitoring.data_summary import judged_sizes
from workers.runs import advancing
from workers.runs.savings import read_saving, saving_sentence

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]
SMALL = DistillationOptions(panel_pairs=3, review_pairs=4, degree=4)


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"
    monkeypatch.setenv("ZELO_MODELS", "*")
    yield
    prepared_judge.cache_clear()


def ordered(project: Project, options: DistillationOptions = SMALL) -> Job:
    return order_distillation(project, make_judges(project, 2), options)


def do_run(job: Job, stage: str) -> Run:
    """What workers do until the run of the stage has ended and its answers are in the scores."""
    job.refresh_from_db()
    run = Run.objects.get(pk=job.payload["runs"][stage])
    for _ in range(8):
        advancing.advance(run.pk)
        judge_all(run)
        rate_stale(run.project_id)
        run.refresh_from_db()
        if run.state not in Run.ACTIVE:
            break
    assert run.state == Run.State.FINISHED, run.reason
    assert waiting_distillation_ids() == [], "the project's prior and weights are due first"
    for _ in range(4):
        calibrate(run.project_id)
        rate_stale(run.project_id)
    return run


def step(job: Job) -> str:
    assert waiting_distillation_ids() == [job.pk]
    distill(job.pk, worker="here")
    job.refresh_from_db()
    return str(job.payload["stage"])


def trained(job: Job, folder: Path, *, state: str = "finished", release: str = "published") -> TrainingRun:
    """The ordered training as its worker would leave it."""
    job.refresh_from_db()
    run = TrainingRun.objects.get(pk=job.payload["training"])
    stored_student(run, folder, release=release)
    Job.objects.filter(payload__training_run=run.pk).update(state="finished", lease_until=None)
    TrainingRun.objects.filter(pk=run.pk).update(state=state)
    return run


def test_one_order_moves_from_the_panel_through_the_student_back_to_the_panel(tmp_path: Path) -> None:
    project = make_project(queries=10, documents=8)
    job = ordered(project)
    assert waiting_distillation_ids() == []
    distill(job.pk, worker="early")  # nothing has ended, so nothing happens
    first = do_run(job, "panel")
    assert (first.tasks_planned, first.allocation) == (30, "rotate")

    assert step(job) == "train"
    snapshot = Snapshot.objects.get()
    assert snapshot.manifest["pairs"]["rows"] == 30
    training = TrainingRun.objects.get(pk=job.payload["training"])
    assert (training.trainer, training.options["base"]) == ("pairwise", "minilm")
    assert waiting_distillation_ids() == []

    trained(job, tmp_path)
    assert step(job) == "judge"
    judged = do_run(job, "judge")
    student = judged.judges.get()
    assert student.plugin == "pairwise-student"
    answers = Attempt.objects.filter(annotator=student).count()
    assert 10 * 16 <= answers <= 10 * 17, "degree 4, where the panel's path is completed"
    weight = ProjectFit.objects.get().judge_terms[str(student.pk)][2]
    assert 0.0 < weight < 1.0, "random answers of a student count for little"

    panel = list(Annotator.objects.filter(pk__in=job.payload["judges"]))
    assert guides_of(project.pk, [each.pk for each in panel]) == {student.pk: weight}
    assert guides_of(project.pk, [student.pk]) == {}
    assert step(job) == "review"
    review = do_run(job, "review")
    assert (review.sampler, review.tasks_planned) == ("guided", 40)
    asked = Attempt.objects.filter(run__in=[first, review]).values("annotator").annotate(calls=Count("pk"))
    assert {each["calls"] for each in asked} == {35}

    assert step(job) == "review"
    told = distillation_of(job)
    assert (job.state, told.spent.calls, told.spent.student_answers) == ("finished", 70, answers)
    assert told.spent.paper_calls == 10 * 3 * 28 and told.spent.share == pytest.approx(1 - 70 / 840)
    assert read_stored(job.message) == f"70 panel calls instead of 840; the student gave {answers} answers"
    saving = read_saving(project, judged_sizes(project))
    assert saving is not None and (saving.calls, saving.student_answers) == (70, answers)
    assert f"students gave {answers} answers: 92% saved" in saving_sentence(saving)
    assert AuditEntry.objects.filter(action="distillation.ordered").count() == 1
    assert waiting_distillation_ids() == []


def test_a_students_answers_inform_the_design_and_leave_their_pairs_free(tmp_path: Path) -> None:
    project = make_project(queries=6, documents=6)
    job = ordered(project, DistillationOptions(panel_pairs=3, review_pairs=0, degree=4))
    do_run(job, "panel")
    step(job)
    trained(job, tmp_path)
    step(job)
    do_run(job, "judge")
    query = project.queries.order_by("id")[0].pk
    student = Annotator.objects.get(plugin="pairwise-student")
    plain = query_states([query])[query].state
    guided = query_states([query], guides={student.pk: 0.25})[query].state
    assert plain.free is None and guided.free is not None
    assert len(plain.pairs) == len(guided.pairs) and (~guided.free).sum() == 3
    assert set(guided.weight[guided.free].tolist()) == {0.25}
    assert guided.weight[~guided.free].min() >= 1.0
    step(job)
    assert job.state == "finished", "without review pairs the student's stage is the last"


def test_a_worker_that_dies_between_two_steps_starts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(queries=10, documents=6)
    job = ordered(project)
    do_run(job, "panel")
    real = distillation._move

    def dies(*args: Any, **changes: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(distillation, "_move", dies)
    with pytest.raises(KeyboardInterrupt):
        distill(job.pk, worker="dies")
    monkeypatch.setattr(distillation, "_move", real)
    Job.objects.filter(pk=job.pk).update(lease_until="2020-01-01T00:00Z")
    assert step(job) == "train"
    assert (Snapshot.objects.count(), TrainingRun.objects.count()) == (1, 1)


def test_a_stage_that_ends_badly_stops_the_order_and_it_resumes_there(tmp_path: Path) -> None:
    project = make_project(queries=10, documents=6)
    job = ordered(project)
    do_run(job, "panel")
    step(job)
    run = trained(job, tmp_path, state="held_back", release="held_back")
    step(job)
    assert job.state == "failed" and "publish the student anyway and resume" in job.error
    with pytest.raises(DistillationRefused, match="only a failed or cancelled one can be resumed"):
        resume_distillation(Job.objects.create(project=project, stage=STAGE, payload=job.payload, state="finished"))
    Reranker.objects.filter(training_run=run).update(release="published_anyway")
    again = resume_distillation(job)
    assert step(again) == "judge"

    assert cancel_distillation(again) and not cancel_distillation(again)
    assert Run.objects.get(pk=again.payload["runs"]["judge"]).state == "cancelled"
    third = resume_distillation(again)
    assert third.payload["runs"]["judge"] != again.payload["runs"]["judge"]
    do_run(third, "judge")
    assert step(third) == "review"


def test_a_resumed_stage_asks_the_rest_counts_all_calls_and_the_old_order_cannot_be_resumed_again() -> None:
    project = make_project(queries=10, documents=8)
    job = ordered(project)
    run = Run.objects.get(pk=job.payload["runs"]["panel"])
    advancing.advance(run.pk)
    judge = run.judges.order_by("pk")[0]
    batches.judge_open(judge.pk, worker="w@host:1")  # half of the 30 pairs
    assert cancel_distillation(job)
    answered = Attempt.objects.filter(run=run).count()
    assert 10 < answered < 20
    again = resume_distillation(job)
    assert do_run(again, "panel").tasks_planned == 30 - answered
    assert distillation_of(again).spent.calls == Attempt.objects.count() == 30
    assert cancel_distillation(again)
    job.refresh_from_db()
    with pytest.raises(
        DistillationRefused, match=f"{job.pk} was resumed as distilled run {again.pk}; cancel or resume"
    ):
        resume_distillation(job)


def test_a_failed_or_cancelled_training_goes_on_when_the_order_resumes(tmp_path: Path) -> None:
    project = make_project(queries=10, documents=6)
    job = ordered(project)
    do_run(job, "panel")
    step(job)
    Job.objects.filter(payload__training_run=job.payload["training"]).update(state="failed", lease_until=None)
    TrainingRun.objects.update(state="failed", error="no room is left")
    step(job)
    assert job.state == "failed" and "no room is left; fix this, then resume" in job.error
    again = resume_distillation(job)
    training = TrainingRun.objects.get()
    assert again.payload["training"] == training.pk and training.state == "planned"
    assert cancel_distillation(again)
    training.refresh_from_db()
    assert training.state == "cancelled"
    resume_distillation(again)
    training.refresh_from_db()
    assert training.state == "planned" and TrainingRun.objects.count() == 1


def test_a_snapshot_that_was_deleted_is_frozen_again_and_one_of_that_name_is_not_taken_for_it() -> None:
    project = make_project(queries=10, documents=6)
    job = ordered(project)
    do_run(job, "panel")
    name = f"Distilled run {job.payload['runs']['panel']}"
    other = make_snapshot(project)
    Snapshot.objects.filter(pk=other.pk).update(name=name, created_at="2020-01-01T00:00Z")
    step(job)
    first = job.payload["snapshot"]
    assert first != other.pk
    TrainingRun.objects.update(state="failed", error="no room is left")
    Job.objects.filter(stage="train").update(state="failed", lease_until=None)
    step(job)
    TrainingRun.objects.all().delete()
    Snapshot.objects.filter(pk=first).delete()
    again = resume_distillation(job)
    assert step(again) == "train" and again.state == "open", again.error
    training = TrainingRun.objects.get()
    assert (again.payload["training"], again.payload["snapshot"]) == (training.pk, training.snapshot_id)
    assert training.snapshot.name == name


def test_what_cannot_be_distilled_is_refused_and_nothing_is_stored() -> None:
    project = make_project(queries=3)
    judges = make_judges(project, 2)
    foreign = make_judges(make_project(), 1)
    empty, small = make_project(), make_project(queries=2)
    for where, panel, told in (
        (project, [], "no panel; choose at least one judge"),
        (project, foreign, "not a panel judge of project"),
        (empty, make_judges(empty, 1), "no query with two candidates"),
        (small, make_judges(small, 1), "has 2 of the 3 queries with two candidates that a distilled run needs"),
    ):
        with pytest.raises(DistillationRefused, match=told):
            order_distillation(where, panel)
    with pytest.raises(DistillationRefused, match=r"base 'no/such-model' cannot be loaded.*hf download"):
        order_distillation(project, judges, DistillationOptions(base="no/such-model"))
    with (
        pytest.raises(pydantic.ValidationError, match="not allowed in this installation"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ZELO_MODELS", "")
        order_distillation(project, judges, DistillationOptions(base="/etc"))
    assert not Job.objects.filter(stage=STAGE).exists() and not Run.objects.exists()
    order_distillation(project, judges, SMALL)
    with pytest.raises(DistillationRefused, match="unfinished; wait for its end, or cancel it"):
        order_distillation(project, judges, SMALL)
    assert Run.objects.count() == 1
    out = io.StringIO()
    call_command("distill", project.slug, "--status", stdout=out)
    assert "0 panel calls" in out.getvalue() and "saved" not in out.getvalue(), "nothing is saved before the end"
