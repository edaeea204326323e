"""Trials of judges: a page with a button for each judge of the project, and the panel that the start page shows."""

from __future__ import annotations

from typing import Any

import pydantic
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from labeling.models import Annotator, Project
from labeling.plugins import UnknownPlugin
from workers.broker.routing import judging_queue
from workers.jobs.trial import TrialRefused, order_trial, reason_of
from workers.models import Job, JudgeTrial
from zelo_site.pages.forms import BadForm, chosen_or_404
from zelo_site.pages.judging.new_run.order import BadOrder, read_judge
from zelo_site.pages.project.queues import read_queues
from zelo_site.pages.scope import may_change, owned_project, visible_project

SHOWN = 20


def trials_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the project's judges, each with its latest trial; a POST starts one."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _order(request, owned_project(request, slug))
    judges = list(Annotator.objects.offered().filter(project=project).order_by("-id")[:SHOWN])
    rows = JudgeTrial.objects.visible_to(request.user).filter(project=project, annotator__in=judges)
    latest = {trial.annotator_id: trial for trial in rows.select_related("job", "annotator").order_by("id")}
    context = {
        "project": project,
        "judges": [{"judge": judge, **_shown(latest.get(judge.pk))} for judge in judges],
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/trials.html", context)


def _order(request: HttpRequest, project: Project) -> HttpResponse:
    judge = chosen_or_404(Annotator.objects.judges().filter(project=project), request.POST, "judge")
    try:
        order_trial(judge, by=request.user)
    except TrialRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("Test of %(name)s started.") % {"name": judge.name})
    return redirect("trials", slug=project.slug)


@require_POST
def new_trial(request: HttpRequest, slug: str) -> HttpResponse:
    """Start a trial of the judge that one row of the start page describes; return its panel."""
    project = owned_project(request, slug)
    try:
        judge = read_judge(project, request.POST, request.POST.get("try", "")).annotator(project)
        trial = order_trial(judge, by=request.user)
    except (BadOrder, BadForm, TrialRefused, UnknownPlugin, pydantic.ValidationError) as error:
        return render(request, "zelo/judging/parts/trial.html", {"project": project, "error": error})
    return render(request, "zelo/judging/parts/trial.html", {"project": project, **_shown(trial)})


def trial_part(request: HttpRequest, slug: str, trial_id: int) -> HttpResponse:
    """Return the panel of one trial, which polls itself until the trial has ended."""
    project = visible_project(request, slug)
    rows = JudgeTrial.objects.visible_to(request.user).filter(project=project).select_related("job", "annotator")
    trial = get_object_or_404(rows, pk=trial_id)
    return render(request, "zelo/judging/parts/trial.html", {"project": project, **_shown(trial)})


def _shown(trial: JudgeTrial | None) -> dict[str, Any]:
    """The context of a trial's panel."""
    if trial is None:
        return {"trial": None}
    is_live = trial.job.state in (Job.State.OPEN, Job.State.LEASED)
    queues = read_queues([judging_queue(trial.annotator.plugin)]) if is_live else []
    return {
        "trial": trial,
        "is_live": is_live,
        "reason": reason_of(trial),
        "missing": [queue for queue in queues if not queue.workers],
    }
