"""The page of a student's refinements: an estimate, the form, and what each refinement has made."""

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
from labeling.plugins import get_plugin
from labeling.wording import translated
from trainer.models import Reranker
from trainer.serving.registry import TRAINED
from workers.budgets.limits import Budgets
from workers.jobs.refinement.job import (
    STAGE,
    STAGES,
    UNFINISHED,
    Refinement,
    RefinementOptions,
    RefinementRefused,
    cancel_refinement,
    expected_pairs,
    order_refinement,
    refinements,
    resume_refinement,
)
from workers.models import Job, Run
from workers.runs.estimate import ChosenJudge, RunEstimate, estimate_run, limits_before_their_end
from zelo_site.pages.forms import BadForm, check_all, options_form, shown_form
from zelo_site.pages.judging.panel import PanelOrPeopleForm, panel_context, panel_judges, panel_so_far
from zelo_site.pages.scope import may_change, owned_project, visible_project

PAGE = "zelo/rerankers/refine.html"


OptionsForm = options_form(RefinementOptions, prefix="refine", title="Refinement")


@dataclass(frozen=True, slots=True)
class Shown:
    """A refinement with its stages: label and whether each is reached."""

    found: Refinement
    stages: list[tuple[str, bool]]
    goes_on: bool
    can_resume: bool


def refine_page(request: HttpRequest, slug: str, reranker_id: int) -> HttpResponse:
    """Show the estimate, the form and the student's refinements; a POST orders one."""
    project = visible_project(request, slug)
    students = Reranker.objects.visible_to(request.user).filter(project=project, kind=TRAINED)
    student = get_object_or_404(students.select_related("training_run__snapshot", "project"), pk=reranker_id)
    if request.method != "POST":
        return render(request, PAGE, _context(request, project, student))
    owned_project(request, slug)
    try:
        panel = PanelOrPeopleForm(request.POST, rows={"judge": panel_judges(project)})
        form = OptionsForm(request.POST)
        check_all(panel, form)
        options = RefinementOptions.model_validate(form.plain_options())
        order_refinement(student, list(panel.cleaned_data["judge"]), options, by=request.user)
    except (BadForm, RefinementRefused, pydantic.ValidationError) as error:
        return render(request, PAGE, _context(request, project, student, error), status=422)
    messages.success(request, _("Refinement started. Its stages follow one another."))
    return redirect("refine", slug=project.slug, reranker_id=student.pk)


@require_POST
def move_refinement(request: HttpRequest, slug: str, refinement_id: int, move: str) -> HttpResponse:
    """Cancel or resume a refinement; warn if its state has changed."""
    project = owned_project(request, slug)
    jobs = Job.objects.visible_to(request.user).filter(project=project, stage=STAGE).select_related("project")
    job = get_object_or_404(jobs, pk=refinement_id)
    if move == "cancel":
        if not cancel_refinement(job, by=request.user):
            state = translated(job.get_state_display())
            messages.warning(request, _("Nothing changed: the refinement is already %(state)s.") % {"state": state})
    elif move == "resume":
        try:
            resume_refinement(job, by=request.user)
        except RefinementRefused as error:
            messages.warning(request, str(error))
    else:
        raise Http404(f"unknown action {move!r} on a refinement")
    return redirect("refine", slug=project.slug, reranker_id=job.payload["reranker"])


def _context(
    request: HttpRequest, project: Project, student: Reranker, error: Exception | None = None
) -> dict[str, Any]:
    sent = request.POST if error is not None else None
    found = refinements(project)
    rows = [_shown(each) for each in found if each.student == student]
    panel = panel_so_far(project) or list(panel_judges(project))
    judges = [ChosenJudge(get_plugin("judge", judge.plugin), judge.options) for judge in panel]
    estimate = _estimate(project, student, judges)
    return {
        "project": project,
        "here": "rerankers",
        "student": student,
        **panel_context(project, sent, error, form=PanelOrPeopleForm),
        "fields": shown_form(OptionsForm, sent, error),
        "estimate": estimate,
        "limits": limits_before_their_end(project, judges, [estimate]) if estimate else [],
        "rows": rows,
        "goes_on": any(each.job.state in UNFINISHED for each in found),
        "error": error,
        "may_change": may_change(request, project),
    }


def _estimate(project: Project, student: Reranker, judges: list[ChosenJudge]) -> RunEstimate | None:
    """The expected spend of a refinement with the default options; None without training queries or judges."""
    pairs = expected_pairs(student, RefinementOptions())
    if not pairs or not judges:
        return None
    return estimate_run(
        project,
        judges,
        sampler="adaptive",
        sampler_options={"pairs_per_candidate": 10_000.0},
        allocation=Run.Allocation.ROTATE,
        orders=Run.Orders.ONE,
        budgets=Budgets(pairs=pairs),
    )


def _shown(found: Refinement) -> Shown:
    labels = [_("Pairs are mined"), _("Pairs are judged"), _("Student trains on"), _("Both are measured")]
    reached = STAGES.index(found.stage)
    state = found.job.state
    return Shown(
        found,
        [(label, number <= reached) for number, label in enumerate(labels)],
        goes_on=state in UNFINISHED,
        can_resume=state in (Job.State.FAILED, Job.State.CANCELLED),
    )
