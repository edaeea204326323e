"""How good each judge is and what it costs, with intervals; a paused one says why and can be let go on."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from labeling.models import Annotator, Project
from labeling.stored_texts import stored_text
from workers.monitoring.drift import pause_judge, resume_judge
from workers.monitoring.scorecard import scorecards
from zelo_site.pages.forms import chosen_or_404
from zelo_site.pages.scope import may_change, owned_project, visible_project

PAUSED_BY = stored_text("paused by %(name)s")


def scorecard_page(request: HttpRequest, slug: str) -> HttpResponse:
    """A card for each judge; a POST pauses one or lets it go on."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _move(request, owned_project(request, slug))
    context = {
        "project": project,
        "cards": scorecards(project),
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/scorecard.html", context)


def _move(request: HttpRequest, project: Project) -> HttpResponse:
    judge = chosen_or_404(Annotator.objects.judges().filter(project=project), request.POST, "judge")
    if request.POST.get("action") == "resume":
        if resume_judge(judge, by=request.user):
            messages.success(request, _("%(name)s is asked again.") % {"name": judge.name})
    elif pause_judge(judge, PAUSED_BY % {"name": request.user.get_username()}, by=request.user):
        messages.success(request, _("%(name)s is asked nothing more until you let it go on.") % {"name": judge.name})
    return redirect("scorecard", slug=project.slug)
