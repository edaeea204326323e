"""A recipe as one job: the paper's stages one after another, resumable at each.

The `Job` row of stage `recipe` has state, lease and error; a `RecipeStage` row says how far each stage is and names what it
started. A stage starts something and stores that in one transaction, so a worker that is killed doubles nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator, Project
from labeling.plugins import problem_of
from labeling.stored_texts import stored_text
from scoring.snapshots.named_splits import check_split_field
from trainer.bases import Base, load_base
from workers.broker.hints import leave_hint
from workers.jobs.distillation import REPLACED, DistillationRefused, check_panel, run_ids_of, with_replaced
from workers.jobs.leasing import MOST_ATTEMPTS, JobClaim, carry_step, hold
from workers.jobs.recipe.options import RecipeOptions
from workers.jobs.recipe.plan import Plan, plan_recipe
from workers.jobs.recipe.stages import REFUSALS, LeftOut, NotYet, Order, RecipeStopped, work_of
from workers.jobs.training import check_ranking_trainer
from workers.models import Job, Recipe, RecipeStage
from workers.runs.savings import Spent, panel_spend

log = logging.getLogger(__name__)

STAGE = "recipe"
State = RecipeStage.State
GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times at one stage; see its log, then resume the recipe"
AT_STAGE = stored_text("stage %(number)s of %(total)s: %(stage)s")
DONE = stored_text("the recipe is complete: %(calls)s panel calls instead of %(paper)s")
UNFINISHED = (Job.State.OPEN, Job.State.LEASED)
STOPPED = (Job.State.FAILED, Job.State.CANCELLED)


class RecipeRefused(ValueError):
    """The recipe that was ordered cannot begin; the message says what to change."""


@dataclass(frozen=True, slots=True)
class RecipeView:
    """A recipe as pages, REST and the command show it: its stages in order, and what its runs have spent."""

    recipe: Recipe
    stages: list[RecipeStage]
    spent: Spent

    @property
    def current(self) -> RecipeStage | None:
        """The first unfinished stage."""
        return next((stage for stage in self.stages if stage.state not in (State.FINISHED, State.LEFT_OUT)), None)


# --- orders ------------------------------------------------------------------------------


def planned(project: Project, judges: Sequence[Annotator], options: RecipeOptions | None = None) -> Plan:
    """The plan and the estimate of a recipe. Stores nothing. Raises RecipeRefused."""
    options = options or RecipeOptions()
    try:
        check_panel(project, judges)
        base = load_base(options.base)
    except DistillationRefused as error:
        raise RecipeRefused(str(error).replace("the distilled run has", "the recipe has")) from error
    except (OSError, ValueError) as error:
        raise RecipeRefused(f"base {options.base!r} cannot be loaded: {error}") from error
    _check_last_stages(project, options, base)
    plan = plan_recipe(project, judges, options)
    left_out = plan.stages[0].reason
    if options.distill == "always" and left_out:
        raise RecipeRefused(f"nothing can be distilled: {left_out}")
    return plan


def _check_last_stages(project: Project, options: RecipeOptions, base: Base) -> None:
    """Raise RecipeRefused for what would be refused after the panel has been paid."""
    try:
        if options.trainer:
            check_ranking_trainer(options.trainer, options.training, base)
        check_split_field(project, options.split_by)
    except REFUSALS as error:
        raise RecipeRefused(problem_of(error)) from error


def order_recipe(
    project: Project, judges: Sequence[Annotator], options: RecipeOptions | None = None, *, by: Any = None
) -> Recipe:
    """Order a recipe with this panel. Raises RecipeRefused; nothing is stored then."""
    options = options or RecipeOptions()
    plan = planned(project, judges, options)
    try:
        with transaction.atomic():
            job = Job.objects.create(project=project, stage=STAGE, total=len(plan.stages))
            recipe = Recipe.objects.create(
                project=project,
                created_by=by,
                job=job,
                options=options.model_dump(mode="json"),
                plan=plan.as_json(),
            )
            recipe.judges.set(judges)
            RecipeStage.objects.bulk_create(
                RecipeStage(
                    recipe=recipe,
                    number=number,
                    name=stage.name,
                    state=State.LEFT_OUT if stage.reason else State.PLANNED,
                    reason=stage.reason,
                )
                for number, stage in enumerate(plan.stages, start=1)
            )
            names = ", ".join(judge.name for judge in judges)[:500]
            audit.note("recipe.ordered", project=project, actor=by, subject=f"recipe {recipe.pk}", judges=names)
    except IntegrityError:
        raise RecipeRefused(
            f"a recipe of project {project.slug!r} is unfinished; wait for its end, or cancel it"
        ) from None
    transaction.on_commit(lambda: leave_hint("recipe", job.pk))
    return recipe


def cancel_recipe(recipe: Recipe, *, by: Any = None) -> bool:
    """Cancel a recipe and what its stage started; False where it had ended. Answers, snapshots and students stay."""
    with transaction.atomic():
        moved = Job.objects.filter(pk=recipe.job_id, state__in=UNFINISHED).update(
            state=Job.State.CANCELLED, lease_until=None, leased_by="", finished_at=Now()
        )
        if not moved:
            return False
        audit.note("recipe.cancelled", project=recipe.project, actor=by, subject=f"recipe {recipe.pk}")
        order = order_of(recipe)
        for stage in order.stages.values():
            if stage.state == State.RUNNING:
                work_of(order, stage).cancel(stage, by=by)
                recipe.stages.filter(pk=stage.pk).update(state=State.FAILED)
    recipe.job.refresh_from_db()
    return True


def resume_recipe(recipe: Recipe, *, by: Any = None) -> Recipe:
    """Resume a failed or cancelled recipe at its first unfinished stage. Raises RecipeRefused."""
    try:
        with transaction.atomic():
            moved = Job.objects.filter(pk=recipe.job_id, state__in=STOPPED).update(
                state=Job.State.OPEN, attempts=0, error="", finished_at=None
            )
            if not moved:
                state = Job.objects.get(pk=recipe.job_id).get_state_display()
                raise RecipeRefused(f"recipe {recipe.pk} is {state}; only a failed or cancelled one can be resumed")
            audit.note("recipe.resumed", project=recipe.project, actor=by, subject=f"recipe {recipe.pk}")
            order = order_of(recipe)
            for stage in order.stages.values():
                if stage.state in (State.FAILED, State.RUNNING):
                    _begin_again(order, stage, by=by)
    except IntegrityError:
        raise RecipeRefused(
            f"another recipe of project {recipe.project.slug!r} is unfinished; wait for its end, or cancel it"
        ) from None
    except REFUSALS as error:
        raise RecipeRefused(str(error)) from error
    transaction.on_commit(lambda: leave_hint("recipe", recipe.job_id))
    recipe.job.refresh_from_db()
    return recipe


def _begin_again(order: Order, stage: RecipeStage, *, by: Any) -> None:
    resumed = work_of(order, stage).again(order, stage, by=by)
    rows = order.recipe.stages.filter(pk=stage.pk)
    if resumed is None:
        if stage.run_id is not None:
            payload = Job.objects.values_list("payload", flat=True).get(pk=order.recipe.job_id)
            payload[REPLACED] = with_replaced(payload, stage.name, stage.run_id)
            Job.objects.filter(pk=order.recipe.job_id).update(payload=payload)
        rows.update(state=State.PLANNED, started_at=None, run=None, job=None, training=None)
    else:
        rows.update(state=State.RUNNING, reason="", **resumed)


def order_of(recipe: Recipe) -> Order:
    """The recipe with its options, panel and stages as they are stored now."""
    stages = recipe.stages.select_related("run", "job", "snapshot", "training").order_by("number")
    return Order(
        recipe=recipe,
        project=recipe.project,
        options=RecipeOptions.model_validate(recipe.options),
        panel=list(recipe.judges.order_by("pk")),
        stages={stage.name: stage for stage in stages},
    )


def view_of(recipe: Recipe) -> RecipeView:
    """The recipe with its stages and its spend."""
    stages = list(recipe.stages.select_related("run", "job", "snapshot", "training").order_by("number"))
    return RecipeView(recipe, stages, panel_spend(recipe.project_id, _run_ids(recipe, stages)))


def recipes(project: Project) -> list[RecipeView]:
    """The project's recipes, the latest first."""
    found = Recipe.objects.filter(project=project).select_related("job", "project").order_by("-id")[:20]
    return [view_of(recipe) for recipe in found]


def _run_ids(recipe: Recipe, stages: Sequence[RecipeStage]) -> list[int]:
    """The runs of the stages and those of the jobs that they started, with those that later ones have replaced."""
    jobs = [recipe.job, *(stage.job for stage in stages if stage.job is not None)]
    found = {stage.run_id for stage in stages if stage.run_id is not None}
    return sorted(found.union(*(run_ids_of(job.payload) for job in jobs)))


def waiting_recipe_ids() -> list[int]:
    """Jobs of recipes whose next step can be done, or whose worker died at one."""
    found = Recipe.objects.filter(job__state__in=UNFINISHED).select_related("job", "project").order_by("id")
    return [recipe.job_id for recipe in found if _can_move(recipe)]


def _can_move(recipe: Recipe) -> bool:
    order = order_of(recipe)
    stage = _current(order)
    if stage is None or stage.state != State.RUNNING:
        return True
    try:
        return work_of(order, stage).look(order, stage) is not None
    except RecipeStopped:
        return True


def _current(order: Order) -> RecipeStage | None:
    ended = (State.FINISHED, State.LEFT_OUT)
    return next((stage for stage in order.stages.values() if stage.state not in ended), None)


# --- steps -------------------------------------------------------------------------------


def cook(job_id: int, *, worker: str = "") -> None:
    """Do the next steps of a recipe, unless another worker does or its stage is unfinished; an error ends the job."""
    carry_step(job_id, STAGE, _step, worker=worker, given_up=GIVEN_UP, stopped=RecipeStopped)


def _step(claim: JobClaim) -> str | None:
    """Finish the stages that have ended and start the next; the message of the whole after the last one."""
    recipe = Recipe.objects.select_related("job", "project", "created_by").get(job=claim.job_id)
    while (stage := _current(order := order_of(recipe))) is not None:
        try:
            moved = _finish(claim, order, stage) if stage.state == State.RUNNING else _start(claim, order, stage)
        except RecipeStopped:
            recipe.stages.filter(pk=stage.pk).exclude(state=State.PLANNED).update(state=State.FAILED)
            raise
        if not moved:
            return None
    spent = view_of(recipe).spent
    return DONE % {"calls": spent.calls, "paper": spent.paper_calls}


def _finish(claim: JobClaim, order: Order, stage: RecipeStage) -> bool:
    """Finish a running stage; False while its work is unfinished."""
    ended = work_of(order, stage).look(order, stage)
    if ended is None:
        return False
    with transaction.atomic():
        hold(claim)
        _store(stage, ended.made, state=State.FINISHED, reason=ended.message, finished_at=Now())
        Job.objects.filter(claim.held).update(done=stage.number)
    return True


def _start(claim: JobClaim, order: Order, stage: RecipeStage) -> bool:
    """Start a planned stage and store what it started; False where other work has to end first."""
    work = work_of(order, stage)
    try:
        made = work.prepare(order)
        with transaction.atomic():
            hold(claim)
            _store(stage, work.start(order, made), state=State.RUNNING, started_at=Now(), reason="")
            words = {"number": stage.number, "total": len(order.stages), "stage": stage.get_name_display()}
            # The worker that starts a stage has come further than the last one.
            Job.objects.filter(claim.held).update(message=AT_STAGE % words, attempts=1)
    except NotYet:
        log.info("recipe %d waits for other work of its project", order.recipe.pk)
        return False
    except LeftOut as found:
        order.recipe.stages.filter(pk=stage.pk).update(state=State.LEFT_OUT, reason=found.reason)
    except REFUSALS as error:
        raise RecipeStopped(
            f"the stage {stage.get_name_display()} was refused: {error}; fix this, then resume the recipe"
        ) from error
    return True


def _store(stage: RecipeStage, made: Mapping[str, Any], **changes: Any) -> None:
    RecipeStage.objects.filter(pk=stage.pk).update(**made, **changes)
