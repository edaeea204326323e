"""The stages of a recipe: each starts a piece of work, watches it, and resumes it after a failure.

Each stage calls the function with which pages, REST and commands start the same work alone. `workers.jobs.recipe.job` stores the
stage's row in the transaction in which a stage starts something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pydantic
from django.db.models import Count

from labeling.models import Annotator, Candidate, Project
from labeling.plugins import UnknownPlugin
from labeling.stored_texts import stored_text
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.snapshots.tally import SnapshotRefused
from scoring.storage.files import StoredFileUnusable
from trainer.models import Reranker, TrainingRun
from workers.jobs.calibration import is_settled, order_calibration
from workers.jobs.distillation import (
    JUDGE,
    PANEL,
    REPLACED,
    STAGES,
    DistillationRefused,
    answered_in,
    cancel_distillation,
    distillation_of,
    order_distillation,
    resume_distillation,
    resumed_as,
)
from workers.jobs.evaluation import EvaluationBusy, EvaluationRefused, order_evaluation, unfinished_evaluation
from workers.jobs.recipe.options import RecipeOptions
from workers.jobs.recipe.plan import FEW_DEV
from workers.jobs.refinement.job import (
    FEWEST_DEV_QUERIES,
    RefinementOptions,
    RefinementRefused,
    cancel_refinement,
    dev_queries,
    order_refinement,
    refinement_of,
    resume_refinement,
)
from workers.jobs.training import AlreadyTraining, TrainingRefused, cancel_training, resume_training, start_training
from workers.models import Job, Recipe, RecipeStage, Run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.transitions import cancel_run

Name = RecipeStage.Name
REFUSALS = (
    RunRefused, DistillationRefused, TrainingRefused, EvaluationRefused, SnapshotRefused, UnknownPlugin,
    RefinementRefused, StoredFileUnusable, pydantic.ValidationError,
)  # fmt: skip
BROKEN = (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED)

RUN_ENDED = stored_text("run %(run)s: %(pairs)s pairs", one="run %(run)s: %(pairs)s pair", of="pairs")
DISTILLED = stored_text("training %(training)s: the student judges like the panel")
NOT_DISTILLED = stored_text(
    "training %(training)s is held back: no student judges better than chance and its base, so the panel continues alone"
)
NOTHING_TO_REVIEW = stored_text("no student judges the design, and review_pairs is 0")
DESIGN_JUDGED = stored_text("the student judged the design, the panel the pairs that were worth most")
TRAINED = stored_text("training %(training)s: %(name)s")
HELD_BACK = stored_text("training %(training)s is held back: no student ranks better than its base and the first stage")
NO_PUBLISHED_STUDENT = stored_text("no student was published, so there is none to refine")
NOTHING_HELD_OUT = stored_text("no query is in the split test or heldout, so nothing can be measured")
MEASURED_ON = ("test", "heldout")


class RecipeStopped(RuntimeError):
    """A stage did not end well; the recipe can be resumed once that is fixed."""


class NotYet(Exception):
    """Other work of the project has to end before the stage can start."""


class LeftOut(Exception):
    """The stage has nothing to do; the argument is the reason as a stored sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ended:
    """A stage has ended well, with `message`; `made` are further columns of its row."""

    message: str
    made: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """A recipe with its options, panel and the rows of its stages by name."""

    recipe: Recipe
    project: Project
    options: RecipeOptions
    panel: list[Annotator]
    stages: Mapping[str, RecipeStage]


class StageWork(Protocol):
    """One stage. `prepare` may take minutes outside a transaction, and a repeat finds what it made."""

    def prepare(self, order: Order) -> Mapping[str, Any]:
        """Columns of the stage's row that must exist before it starts. Raises LeftOut, RecipeStopped."""

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        """Order the stage's work and return its row's columns. Raises NotYet, LeftOut and what orders raise."""

    def look(self, order: Order, stage: RecipeStage) -> Ended | None:
        """The work that has ended, None while it runs. Raises RecipeStopped."""

    def cancel(self, stage: RecipeStage, *, by: Any) -> None:
        """Cancel the unfinished work."""

    def again(self, order: Order, stage: RecipeStage, *, by: Any) -> Mapping[str, Any] | None:
        """Resume what failed and return the row's columns; None to start the stage again."""


class _Distilled:
    """A part of the distilled run: it has ended when the run's own stage is beyond `upto`."""

    def __init__(self, upto: str | None) -> None:
        self._upto = upto

    def prepare(self, order: Order) -> Mapping[str, Any]:
        return {}

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        first = order.stages[Name.PANEL]
        if first.job is not None:
            return {"job": first.job}
        job = order_distillation(order.project, order.panel, order.options.distillation, by=order.recipe.created_by)
        return {"job": job, "run_id": job.payload["runs"][PANEL]}

    def look(self, order: Order, stage: RecipeStage) -> Ended | None:
        job = stage.job
        if job is None:
            raise RecipeStopped("the distilled run was deleted; resume the recipe to start it again")
        found = distillation_of(job)
        is_beyond = self._upto is not None and STAGES.index(found.stage) > STAGES.index(self._upto)
        if job.state == Job.State.FINISHED or is_beyond:
            return self._ended(found, stage)
        if stage.name == Name.DISTILLATION and _ended_without_student(job):
            made = {"training": found.training, "snapshot": found.snapshot}
            return Ended(NOT_DISTILLED % {"training": found.training.pk if found.training else 0}, made)
        if job.state in (Job.State.FAILED, Job.State.CANCELLED):
            raise RecipeStopped(f"distilled run {job.pk} {job.get_state_display()}: {job.error or 'cancelled'}")
        return None

    def _ended(self, found: Any, stage: RecipeStage) -> Ended:
        if stage.name == Name.PANEL:
            run = found.runs[PANEL]
            return Ended(RUN_ENDED % {"run": run.pk, "pairs": run.pairs_planned}, {"run": run})
        if stage.name == Name.DISTILLATION:
            made = {"training": found.training, "snapshot": found.snapshot}
            return Ended(DISTILLED % {"training": found.training.pk if found.training else 0}, made)
        return Ended(DESIGN_JUDGED, {"run": found.runs.get(JUDGE)})

    def cancel(self, stage: RecipeStage, *, by: Any) -> None:
        if stage.job is not None:
            cancel_distillation(stage.job, by=by)

    def again(self, order: Order, stage: RecipeStage, *, by: Any) -> Mapping[str, Any] | None:
        job = stage.job
        if job is None:
            return None
        resumed = resumed_as(job)  # somebody may have resumed it on its own page
        if resumed.state in (Job.State.FAILED, Job.State.CANCELLED):
            resumed = resume_distillation(resumed, by=by)
        parts = (Name.PANEL, Name.DISTILLATION, Name.DESIGN)
        order.recipe.stages.filter(name__in=parts, job=job).update(job=resumed)
        return {"job": resumed}


def _ended_without_student(job: Job | None) -> bool:
    """Whether a distilled run has stopped because its student is held back, and nobody has published that anyway."""
    if job is None or job.state != Job.State.FAILED:
        return False
    training = distillation_of(job).training
    if training is None or training.state != TrainingRun.State.HELD_BACK:
        return False
    return not training.rerankers.exclude(release=Reranker.Release.HELD_BACK).exists()


class _OfRun:
    """Base of the stages that consist of one run; each starts its own."""

    def prepare(self, order: Order) -> Mapping[str, Any]:
        return {}

    def look(self, order: Order, stage: RecipeStage) -> Ended | None:
        run = stage.run
        if run is None or run.state in (Run.State.FAILED, Run.State.CANCELLED):
            why = "was deleted" if run is None else f"{run.get_state_display()}: {run.reason or 'no reason is stored'}"
            raise RecipeStopped(f"the run of the stage {stage.name} {why}; fix this, then resume the recipe")
        return Ended(RUN_ENDED % {"run": run.pk, "pairs": run.pairs_planned}) if is_settled(run) else None

    def cancel(self, stage: RecipeStage, *, by: Any) -> None:
        if stage.run is not None:
            cancel_run(stage.run, by=by)

    def again(self, order: Order, stage: RecipeStage, *, by: Any) -> Mapping[str, Any] | None:
        broken = stage.run is None or stage.run.state in (Run.State.FAILED, Run.State.CANCELLED)
        return None if broken else {}


def _answered_before(order: Order, stage: str) -> int:
    """The answers of the stage's runs that were cancelled or failed."""
    return answered_in(order.recipe.job.payload.get(REPLACED, {}).get(stage, []))


class _OwnDesign(_OfRun):
    """The panel judges the whole design: adaptive pairs, one judge each."""

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        run = start_run(
            order.project,
            judges=order.panel,
            by=order.recipe.created_by,
            sampler="adaptive",
            sampler_options={"pairs_per_candidate": order.options.pairs_per_candidate},
            allocation=Run.Allocation.ROTATE,
            seed=order.options.seed,
        )
        return {"run": run}


class _PanelAlone(_OfRun):
    """The panel judges as many pairs as it would have reviewed; the student that was to judge the design is held back."""

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        pairs = order.options.review_pairs * int(order.recipe.plan["queries"])
        if not pairs:
            raise LeftOut(NOTHING_TO_REVIEW)
        answered = _answered_before(order, Name.DESIGN)
        run = start_run(
            order.project,
            judges=order.panel,
            by=order.recipe.created_by,
            sampler="adaptive",
            sampler_options={"pairs_per_candidate": 10_000.0},
            allocation=Run.Allocation.ROTATE,
            pair_budget=max(1, pairs - answered),
            seed=order.options.seed,
        )
        return {"run": run}


class _Calibration(_OfRun):
    """Pairs across queries, all judges of the panel on each."""

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        queries = int(order.recipe.plan["queries"])
        answered = _answered_before(order, Name.CALIBRATION) // max(1, len(order.panel))
        run = order_calibration(
            order.project,
            judges=order.panel,
            by=order.recipe.created_by,
            sampler_options={"pairs_per_query": order.options.calibration_pairs},
            pair_budget=max(1, order.options.calibration_pairs * queries - answered),
            seed=order.options.seed,
        )
        return {"run": run}


class _Student:
    """Freezes the scores and trains a reranker on them."""

    def prepare(self, order: Order) -> Mapping[str, Any]:
        name = f"Recipe {order.recipe.pk}"
        since = order.recipe.job.created_at  # people may give the same name
        named = Snapshot.objects.filter(projects=order.project, name=name, created_at__gte=since)
        found = named.order_by("id").first()
        if found is None:
            chosen = SnapshotOptions(
                seed=order.options.seed,
                split_by=order.options.split_by,
                shared_documents=_shared_documents(order),
            )
            panel = [judge.pk for judge in order.panel]
            found = freeze([order.project], name=name, options=chosen, by=order.recipe.created_by, panel=panel)
        return {"snapshot": found}

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            run = start_training(
                order.project,
                made["snapshot"],
                trainer=order.options.trainer,
                options=order.options.training,
                by=order.recipe.created_by,
            )
        except AlreadyTraining:
            raise NotYet from None
        return {**made, "training": run}

    def look(self, order: Order, stage: RecipeStage) -> Ended | None:
        run = stage.training
        if run is None or run.state in BROKEN:
            why = "was deleted" if run is None else f"{run.get_state_display()}: {run.error or 'cancelled'}"
            raise RecipeStopped(f"the student's training {why}; fix this, then resume the recipe")
        if run.state == TrainingRun.State.HELD_BACK:
            return Ended(HELD_BACK % {"training": run.pk})
        if run.state != TrainingRun.State.FINISHED:
            return None
        student = run.rerankers.first()
        return Ended(TRAINED % {"training": run.pk, "name": student.name if student else ""})

    def cancel(self, stage: RecipeStage, *, by: Any) -> None:
        if stage.training is not None:
            cancel_training(stage.training, by=by)

    def again(self, order: Order, stage: RecipeStage, *, by: Any) -> Mapping[str, Any] | None:
        run = stage.training
        if run is None:
            return None
        if run.state in BROKEN:
            resume_training(run, by=by)
        return {}


def _shared_documents(order: Order) -> Literal["remove", "keep"]:
    """The option for documents that training and evaluation share: a fixed collection would leave nothing to learn from."""
    if order.options.shared_documents != "auto":
        return order.options.shared_documents
    rows = Candidate.objects.filter(query__project=order.project, query__excluded_at=None).order_by()
    texts = rows.values("document__text_hash").annotate(queries=Count("query", distinct=True), rows=Count("pk"))
    counts = list(texts.values_list("queries", "rows"))
    shared = sum(number for queries, number in counts if queries > 1)
    return "keep" if 2 * shared > sum(number for _, number in counts) else "remove"


def published_student(order: Order) -> Reranker:
    """The student that the recipe has published. Raises LeftOut."""
    run = order.stages[Name.STUDENT].training
    students = Reranker.objects.filter(training_run=run).exclude(release=Reranker.Release.HELD_BACK)
    found = students.first() if run is not None else None
    if found is None:
        raise LeftOut(NO_PUBLISHED_STUDENT)
    return found


class _Refinement:
    """The published student is refined with named pairs."""

    def prepare(self, order: Order) -> Mapping[str, Any]:
        return {}

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        options = RefinementOptions(pairs=order.options.refinement_pairs, seed=order.options.seed)
        by, student = order.recipe.created_by, published_student(order)
        dev = dev_queries(student)
        if dev < FEWEST_DEV_QUERIES:
            raise LeftOut(FEW_DEV % {"queries": dev, "least": FEWEST_DEV_QUERIES})
        return {"job": order_refinement(student, order.panel, options, by=by)}

    def look(self, order: Order, stage: RecipeStage) -> Ended | None:
        job = stage.job
        if job is None:
            raise RecipeStopped("the refinement was deleted; resume the recipe to start it again")
        if job.state in (Job.State.FAILED, Job.State.CANCELLED):
            raise RecipeStopped(f"refinement {job.pk} {job.get_state_display()}: {job.error or 'cancelled'}")
        if job.state != Job.State.FINISHED:
            return None
        found = refinement_of(job)
        return Ended(job.message, {"run": found.run, "training": found.training, "snapshot": found.snapshot})

    def cancel(self, stage: RecipeStage, *, by: Any) -> None:
        if stage.job is not None:
            cancel_refinement(stage.job, by=by)

    def again(self, order: Order, stage: RecipeStage, *, by: Any) -> Mapping[str, Any] | None:
        job = stage.job
        if job is None:
            return None
        if job.state in (Job.State.FAILED, Job.State.CANCELLED):
            resume_refinement(job, by=by)
        return {}


class _Proof:
    """Everything that ranks is measured on the test split of the last snapshot, or on heldout where no query is in test."""

    def prepare(self, order: Order) -> Mapping[str, Any]:
        return {}

    def start(self, order: Order, made: Mapping[str, Any]) -> Mapping[str, Any]:
        last = [order.stages[name].snapshot for name in (Name.REFINEMENT, Name.STUDENT)]
        snapshot = next((each for each in last if each is not None), None)
        if snapshot is None:
            raise RecipeStopped("the student's snapshot was deleted; start a new recipe")
        splits = snapshot.manifest.get("splits", {})
        split = next((each for each in MEASURED_ON if splits.get(each, {}).get("rows")), None)
        if split is None:  # queries may name their splits
            raise LeftOut(NOTHING_HELD_OUT)
        if unfinished_evaluation(order.project) is not None:  # that of a training
            raise NotYet
        try:
            job = order_evaluation(order.project, snapshot, split, by=order.recipe.created_by)
        except EvaluationBusy as error:
            raise NotYet from error
        return {"job": job, "snapshot": snapshot}

    def look(self, order: Order, stage: RecipeStage) -> Ended | None:
        job = stage.job
        if job is None or job.state in (Job.State.FAILED, Job.State.CANCELLED):
            why = "was deleted" if job is None else f"{job.get_state_display()}: {job.error or 'cancelled'}"
            raise RecipeStopped(f"the evaluation {why}; fix this, then resume the recipe")
        return Ended(job.message) if job.state == Job.State.FINISHED else None

    def cancel(self, stage: RecipeStage, *, by: Any) -> None:
        """An evaluation reads only; it may end."""

    def again(self, order: Order, stage: RecipeStage, *, by: Any) -> Mapping[str, Any] | None:
        broken = stage.job is None or stage.job.state in (Job.State.FAILED, Job.State.CANCELLED)
        return None if broken else {}


_DISTILLED: Mapping[str, StageWork] = {
    Name.PANEL: _Distilled("panel"),
    Name.DISTILLATION: _Distilled("train"),
    Name.DESIGN: _Distilled(None),
}
_WORK: Mapping[str, StageWork] = {
    Name.DESIGN: _OwnDesign(),
    Name.CALIBRATION: _Calibration(),
    Name.STUDENT: _Student(),
    Name.REFINEMENT: _Refinement(),
    Name.PROOF: _Proof(),
}


def work_of(order: Order, stage: RecipeStage) -> StageWork:
    """The work of a stage; panel, distillation and design are parts of a distilled run where there is one."""
    is_distilled = order.stages[Name.PANEL].state != RecipeStage.State.LEFT_OUT
    if is_distilled and stage.name == Name.DESIGN and stage.run is not None and stage.job is None:
        return _PanelAlone()  # the student may have been published anyway since
    if is_distilled and stage.name == Name.DESIGN:
        before = order.stages[Name.DISTILLATION]
        if before.state == RecipeStage.State.FINISHED and _ended_without_student(before.job):
            return _PanelAlone()
    return _DISTILLED[stage.name] if is_distilled and stage.name in _DISTILLED else _WORK[stage.name]
