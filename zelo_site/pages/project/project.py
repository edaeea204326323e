"""One project: live stages, progress and spend, and the buttons that control a run."""

from __future__ import annotations

from dataclasses import replace

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from labeling.models import Role
from labeling.wording import translated
from workers.judging.failures import retry_failures
from workers.models import Run
from workers.runs import transitions
from zelo_site.pages.importing.candidates import filling_part
from zelo_site.pages.judging.failures import FailureForm, tell_asked_again
from zelo_site.pages.live import live_fragment, rendered_fragment
from zelo_site.pages.project.overview import read_overview
from zelo_site.pages.project.story import story_part
from zelo_site.pages.scope import may_change, member_project, owned_project, visible_project, visitor_role

LIVE = "zelo/project/parts/project_live.html"


def project_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the page; its top is the live fragment, and its figures load separately.

    Annotators are redirected to the comparison screen.
    """
    project = member_project(request, slug)
    if visitor_role(request, project) == Role.ANNOTATOR:
        return redirect("compare", slug=project.slug)
    overview = read_overview(project)
    is_owner = may_change(request, project)
    context = {
        "project": project,
        "overview": overview,
        "may_change": is_owner,
        "here": "project",
        "read_at": timezone.now(),
    }
    live, __ = rendered_fragment(request, LIVE, context)
    filling = filling_part(request, project)
    parts = {"live": live, "filling": filling, "story": story_part(request, project)}
    return render(request, "zelo/project/project.html", {**context, **parts})


def project_live(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the live fragment, or 204 if it is unchanged."""
    project = visible_project(request, slug)
    context = {"project": project, "overview": read_overview(project), "may_change": may_change(request, project)}
    return live_fragment(request, LIVE, context)


@require_POST
def move_run(request: HttpRequest, slug: str, run_id: int, action: str) -> HttpResponse:
    """Pause, resume or cancel a run, or retry its dead letters; warn if the run's state has changed."""
    project = owned_project(request, slug)
    run = get_object_or_404(Run.objects.visible_to(request.user).filter(project=project), pk=run_id)
    if action == "retry":
        form = FailureForm.of(request.POST, project)
        if form.is_valid():
            chosen = replace(form.filter(), run_id=run.pk)
            tell_asked_again(request, retry_failures(project, chosen, by=request.user))
        else:  # an unknown reason must not retry all questions
            messages.error(request, form.summary())
        return redirect("project", slug=project.slug)
    moves = {"pause": transitions.pause_run, "resume": transitions.resume_run, "cancel": transitions.cancel_run}
    if action not in moves:
        raise Http404(f"unknown run action {action!r}")
    if not moves[action](run, by=request.user):
        state = translated(run.get_state_display())
        messages.warning(request, _("Nothing changed: the run is already %(state)s.") % {"state": state})
    return redirect("project", slug=project.slug)
