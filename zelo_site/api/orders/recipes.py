"""REST of recipes: plan, start, watch, cancel, resume."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from workers.jobs.recipe.job import (
    RecipeRefused,
    RecipeView,
    cancel_recipe,
    order_recipe,
    planned,
    recipes,
    resume_recipe,
    view_of,
)
from workers.jobs.recipe.options import RecipeOptions
from workers.models import Recipe, RecipeStage
from zelo_site.api.judging.run_estimates import LimitAheadOut
from zelo_site.api.orders.moves import Move, moved, refusals
from zelo_site.api.runs import JudgeIn, panel_of
from zelo_site.security.job_errors import JobError

router = Router(tags=["runs"])


class RecipeIn(Schema):
    """The panel, and options as `manage.py recipe` takes them: distill, panel_pairs, base, refinement_pairs, ...

    With `plan` nothing is stored: the response is the plan with its estimate.
    """

    judges: list[JudgeIn] = Field(min_length=1, max_length=32)
    options: dict[str, Any] = {}
    plan: bool = False


class PlannedStageOut(Schema):
    """A stage before the start. `reason`: why it is left out, empty if it is not; costs in millionths of a dollar."""

    name: str
    reason: str
    pairs: int
    calls: int
    most_calls: int
    cost_micros: int
    most_cost_micros: int


class PlanOut(Schema):
    """The stages of a recipe, and what its panel is expected to spend. `seconds` of judging, None if unknown."""

    queries: int
    calls: int
    most_calls: int
    cost_micros: int
    most_cost_micros: int
    is_priced: bool
    seconds: float | None
    stages: list[PlannedStageOut]
    limits: list[LimitAheadOut]


class RecipeStageOut(Schema):
    """A stage: `state` is planned, running, finished, left_out or failed; the ids name what it made."""

    name: str
    state: str
    reason: str
    run_id: int | None
    job_id: int | None
    snapshot_id: int | None
    training_id: int | None


class RecipeOut(Schema):
    """A recipe. `stage`: the first unfinished one, empty at the end; the panel's calls so far and those of the paper's design."""

    recipe_id: int
    project: str
    state: str
    stage: str
    message: JobError
    error: JobError
    options: dict[str, Any]
    judges: list[int]
    stages: list[RecipeStageOut]
    panel_calls: int
    paper_calls: int
    student_answers: int
    cost_micros: int


def recipe_out(found: RecipeView) -> dict[str, Any]:
    recipe, current = found.recipe, found.current
    return {
        "recipe_id": recipe.pk,
        "project": recipe.project.slug,
        "state": recipe.job.state,
        "stage": current.name if current else "",
        "message": recipe.job.message,
        "error": recipe.job.error,
        "options": recipe.options,
        "judges": list(recipe.judges.order_by("pk").values_list("pk", flat=True)),
        "stages": [_stage_out(stage) for stage in found.stages],
        "panel_calls": found.spent.calls,
        "paper_calls": found.spent.paper_calls,
        "student_answers": found.spent.student_answers,
        "cost_micros": found.spent.cost_micros,
    }


def _stage_out(stage: RecipeStage) -> dict[str, Any]:
    ids = {name: getattr(stage, name) for name in ("run_id", "job_id", "snapshot_id", "training_id")}
    return {"name": stage.name, "state": stage.state, "reason": stage.reason, **ids}


def _recipe_or_404(request: HttpRequest, recipe_id: int) -> Recipe:
    found = Recipe.objects.visible_to(request.user).select_related("project", "job")
    recipe = get_object_or_404(found, pk=recipe_id)
    project_or_404(request, recipe.project.slug)
    return recipe


@router.post("/projects/{slug}/recipes", response={200: PlanOut, 201: RecipeOut})
def post_recipe(request: HttpRequest, slug: str, body: RecipeIn) -> Any:
    """Start a recipe; its first stage begins as soon as a worker is free. With `plan`, return the plan only."""
    project = owned_project_or_404(request, slug)
    with refusals(RecipeRefused), transaction.atomic():
        options = RecipeOptions.model_validate(body.options)
        panel = panel_of(project, body.judges)
        if body.plan:
            plan = planned(project, panel, options)
            transaction.set_rollback(True)  # new judges too
            return Status(200, plan.as_json() | {"stages": plan.stages, "limits": plan.limits})
        recipe = order_recipe(project, panel, options, by=request.user)
    return Status(201, recipe_out(view_of(recipe)))


@router.get("/projects/{slug}/recipes", response=list[RecipeOut])
def list_recipes(request: HttpRequest, slug: str) -> Any:
    """The project's recipes, the latest first."""
    return [recipe_out(each) for each in recipes(project_or_404(request, slug))]


@router.get("/recipes/{recipe_id}", response=RecipeOut)
def get_recipe(request: HttpRequest, recipe_id: int) -> Any:
    return recipe_out(view_of(_recipe_or_404(request, recipe_id)))


@router.post("/recipes/{recipe_id}/{move}", response=RecipeOut)
def post_move(request: HttpRequest, recipe_id: int, move: Move) -> Any:
    """Cancel a recipe and what its stage started, or resume a failed or cancelled one at its first unfinished stage."""
    recipe = _recipe_or_404(request, recipe_id)
    found = moved(
        request,
        recipe,
        move,
        name="recipe",
        job=recipe.job,
        cancel=cancel_recipe,
        resume=resume_recipe,
        refused=RecipeRefused,
    )
    return recipe_out(view_of(found))
