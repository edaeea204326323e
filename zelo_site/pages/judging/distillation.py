"""Distilled runs of a project: ordering one, its stages, and what it has spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from labeling.models import Project
from labeling.wording import translated
from workers.jobs.distillation import (
    JUDGE,
    PANEL,
    REVIEW,
    STAGE,
    STAGES,
    TRAIN,
    Distillation,
    DistillationOptions,
    DistillationRefused,
    cancel_distillation,
    distillations,
    order_distillation,
    resume_distillation,
)
from workers.models import Job
from zelo_site.pages.forms import BadForm, check_all, options_form, shown_form
from zelo_site.pages.judging.panel import PanelForm, panel_context, panel_judges
from zelo_site.pages.scope import may_change, owned_project, visible_project

OptionsForm = options_form(DistillationOptions, prefix="distill", title="Distilled run")


@dataclass(frozen=True, slots=True)
class StageLine:
    """A stage of a distilled run: `state` of its run or training in words, empty before it has begun."""

    label: str
    state: str
    is_reached: bool
    run_id: int | None = None
    training_id: int | None = None
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A distilled run with its stages in order."""

    found: Distillation
    stages: list[StageLine]
    goes_on: bool
    can_resume: bool


def distill_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form and the project's distilled runs; a POST orders one."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/judging/distill.html", _context(request, project))
    owned_project(request, slug)
    try:
        panel = PanelForm(request.POST, rows={"judge": panel_judges(project)})
        options = OptionsForm(request.POST)
        check_all(panel, options)
        order_distillation(
            project,
            list(panel.cleaned_data["judge"]),
            DistillationOptions.model_validate(options.plain_options()),
            by=request.user,
        )
    except (BadForm, DistillationRefused, pydantic.ValidationError) as error:
        return render(request, "zelo/judging/distill.html", _context(request, project, error), status=422)
    messages.success(request, _("Distilled run started. Its stages follow one another."))
    return redirect("distill", slug=project.slug)


@require_POST
def move_distillation(request: HttpRequest, slug: str, distillation_id: int, move: str) -> HttpResponse:
    """Cancel or resume a distilled run; warn if its state has changed."""
    project = owned_project(request, slug)
    job = get_object_or_404(
        Job.objects.visible_to(request.user).filter(project=project, stage=STAGE), pk=distillation_id
    )
    if move == "cancel":
        if not cancel_distillation(job, by=request.user):
            state = translated(job.get_state_display())
            messages.warning(request, _("Nothing changed: the distilled run is already %(state)s.") % {"state": state})
    elif move == "resume":
        try:
            resume_distillation(job, by=request.user)
        except DistillationRefused as error:
            messages.warning(request, str(error))
    else:
        raise Http404(f"unknown action {move!r} on a distilled run")
    return redirect("distill", slug=project.slug)


def _context(request: HttpRequest, project: Project, error: Exception | None = None) -> dict[str, Any]:
    sent = request.POST if error is not None else None
    found = distillations(project)
    resumed = {each.job.payload.get("of") for each in found}
    rows = [_shown(each, is_resumed=each.job.pk in resumed) for each in found]
    return {
        "project": project,
        "here": "judges",
        **panel_context(project, sent, error),
        "fields": shown_form(OptionsForm, sent, error),
        "rows": rows,
        "goes_on": any(row.goes_on for row in rows),
        "error": error,
        "may_change": may_change(request, project),
    }


def _shown(found: Distillation, *, is_resumed: bool) -> Shown:
    labels = {
        PANEL: _("Panel judges a first part"),
        TRAIN: _("Student learns"),
        JUDGE: _("Student judges the design"),
        REVIEW: _("Panel judges what is worth most"),
    }
    reached = STAGES.index(found.stage)
    lines = []
    for number, stage in enumerate(STAGES):
        run = found.runs.get(stage)
        training = found.training if stage == TRAIN else None
        state = run.get_state_display() if run else training.get_state_display() if training else ""
        steps = training.progress if training else {}
        lines.append(
            StageLine(
                label=labels[stage],
                state=str(state),
                is_reached=number <= reached,
                run_id=run.pk if run else None,
                training_id=training.pk if training else None,
                done=int(steps.get("step", 0)),
                total=int(steps.get("steps", 0)),
            )
        )
    state = found.job.state
    return Shown(
        found,
        lines,
        goes_on=state in (Job.State.OPEN, Job.State.LEASED),
        can_resume=state in (Job.State.FAILED, Job.State.CANCELLED) and not is_resumed,
    )
