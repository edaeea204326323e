"""Recipes of a project: the plan with its estimate, ordering one, and its stages with what they made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling.models import Project
from labeling.wording import translated
from workers.jobs.recipe.job import (
    STOPPED,
    UNFINISHED,
    RecipeRefused,
    RecipeView,
    cancel_recipe,
    order_recipe,
    planned,
    recipes,
    resume_recipe,
)
from workers.jobs.recipe.options import RecipeOptions
from workers.jobs.recipe.plan import Plan, PlannedStage
from workers.models import Recipe, RecipeStage
from zelo_site.pages.forms import BadForm, check_all, options_form, shown_form
from zelo_site.pages.judging.panel import PanelForm, panel_context, panel_judges
from zelo_site.pages.scope import may_change, owned_project, visible_project

PAGE = "zelo/project/recipe.html"
STAGE_LABELS = {
    RecipeStage.Name.PANEL: gettext_lazy("Panel judges a first part"),
    RecipeStage.Name.DISTILLATION: gettext_lazy("Student of the panel learns"),
    RecipeStage.Name.DESIGN: gettext_lazy("Design is judged"),
    RecipeStage.Name.CALIBRATION: gettext_lazy("Queries are compared"),
    RecipeStage.Name.STUDENT: gettext_lazy("Reranker learns"),
    RecipeStage.Name.REFINEMENT: gettext_lazy("Reranker is refined"),
    RecipeStage.Name.PROOF: gettext_lazy("Everything is measured"),
}


OptionsForm = options_form(RecipeOptions, prefix="recipe", title="Recipe")


@dataclass(frozen=True, slots=True)
class PlanLine:
    """A stage of the plan with its label on the page."""

    label: str
    stage: PlannedStage


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage of a recipe with its label, and links to what it made."""

    label: str
    stage: RecipeStage
    links: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Shown:
    """A recipe with its stages in order."""

    found: RecipeView
    lines: list[StageLine]
    goes_on: bool
    can_resume: bool


def recipe_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form and the project's recipes; a POST shows the plan, or orders the recipe once it was shown."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return render(request, PAGE, _context(request, project))
    owned_project(request, slug)
    try:
        panel = PanelForm(request.POST, rows={"judge": panel_judges(project)})
        form = OptionsForm(request.POST)
        check_all(panel, form)
        options = RecipeOptions.model_validate(form.plain_options())
        judges = list(panel.cleaned_data["judge"])
        if request.POST.get("do") != "start":
            plan = planned(project, judges, options)
            return render(request, PAGE, _context(request, project, plan=plan))
        order_recipe(project, judges, options, by=request.user)
    except (BadForm, RecipeRefused, pydantic.ValidationError) as error:
        return render(request, PAGE, _context(request, project, error=error), status=422)
    messages.success(request, _("Recipe started. Its stages follow one another."))
    return redirect("recipe", slug=project.slug)


@require_POST
def move_recipe(request: HttpRequest, slug: str, recipe_id: int, move: str) -> HttpResponse:
    """Cancel or resume a recipe; warn if its state has changed."""
    project = owned_project(request, slug)
    found = Recipe.objects.visible_to(request.user).filter(project=project).select_related("job", "project")
    recipe = get_object_or_404(found, pk=recipe_id)
    if move == "cancel":
        if not cancel_recipe(recipe, by=request.user):
            state = translated(recipe.job.get_state_display())
            messages.warning(request, _("Nothing changed: the recipe is already %(state)s.") % {"state": state})
    elif move == "resume":
        try:
            resume_recipe(recipe, by=request.user)
        except RecipeRefused as error:
            messages.warning(request, str(error))
    else:
        raise Http404(f"unknown action {move!r} on a recipe")
    return redirect("recipe", slug=project.slug)


def _context(
    request: HttpRequest, project: Project, *, plan: Plan | None = None, error: Exception | None = None
) -> dict[str, Any]:
    sent = request.POST if request.method == "POST" else None
    rows = [_shown(project, each) for each in recipes(project)]
    return {
        "project": project,
        "here": "project",
        **panel_context(project, sent, error),
        "fields": shown_form(OptionsForm, sent, error),
        "plan": plan,
        "plan_lines": [PlanLine(str(STAGE_LABELS[RecipeStage.Name(each.name)]), each) for each in plan.stages]
        if plan
        else [],
        "rows": rows,
        "goes_on": any(row.goes_on for row in rows),
        "error": error,
        "may_change": may_change(request, project),
    }


def _shown(project: Project, found: RecipeView) -> Shown:
    lines = [
        StageLine(str(STAGE_LABELS[RecipeStage.Name(stage.name)]), stage, _links(project, stage))
        for stage in found.stages
    ]
    state = found.recipe.job.state
    return Shown(found, lines, goes_on=state in UNFINISHED, can_resume=state in STOPPED)


def _links(project: Project, stage: RecipeStage) -> list[tuple[str, str]]:
    """Address and text of what a stage made."""
    slug, links = project.slug, []
    if stage.run_id is not None:
        links.append((reverse("project", args=[slug]), _("run %(number)s") % {"number": stage.run_id}))
    if stage.job is not None and stage.job.stage == "distill":
        links.append((reverse("distill", args=[slug]), _("distilled run %(number)s") % {"number": stage.job.pk}))
    if stage.job is not None and stage.job.stage == "refine":
        address = reverse("refine", args=[slug, stage.job.payload["reranker"]])
        links.append((address, _("refinement %(number)s") % {"number": stage.job.pk}))
    if stage.snapshot is not None:
        links.append((reverse("snapshots", args=[slug]), stage.snapshot.name))
    if stage.training_id is not None:
        address = reverse("training-run", args=[slug, stage.training_id])
        links.append((address, _("training %(number)s") % {"number": stage.training_id}))
    if stage.name == RecipeStage.Name.PROOF and stage.state == RecipeStage.State.FINISHED:
        links.append((reverse("proof", args=[slug]), _("Proof")))
    return links
