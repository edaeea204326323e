"""The scorecard: each judge's quality and cost, with intervals; paused judges show the reason and can be resumed."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from labeling.models import Annotator, Project
from labeling.stored_texts import stored_text
from workers.judging.failures import resume_and_retry
from workers.judging.pausing import pause_judge, restore_judge, resume_judge, retire_judge
from workers.monitoring.project_figures import current_cards
from zelo_site.pages.forms import chosen_or_404, one_of
from zelo_site.pages.judging.failures import tell_asked_again
from zelo_site.pages.scope import may_change, owned_project, visible_project

KEPT_S = 4
PAUSED_BY = stored_text("paused by %(name)s")


def scorecard_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show a card per judge; a POST pauses, resumes, retires or restores one, or also retries its dead letters."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _move(request, owned_project(request, slug))
    cards = current_cards(project, kept_s=KEPT_S)
    context = {
        "project": project,
        "cards": cards,
        "have_correlations": any(card.call_correlation for card in cards),
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/scorecard.html", context)


def _move(request: HttpRequest, project: Project) -> HttpResponse:
    judge = chosen_or_404(Annotator.objects.judges().filter(project=project), request.POST, "judge")
    action = one_of(request.POST, "action", ("pause", "resume", "retry", "retire", "restore"))
    if not action:
        messages.error(request, _("Unknown action. Use a button on this page."))
    elif action == "resume":
        if resume_judge(judge, by=request.user):
            messages.success(request, _("%(name)s resumed.") % {"name": judge.name})
    elif action == "retire":
        if retire_judge(judge, by=request.user):
            messages.success(request, _("%(name)s retired: new runs cannot use it.") % {"name": judge.name})
    elif action == "restore":
        if restore_judge(judge, by=request.user):
            messages.success(request, _("%(name)s is in use again.") % {"name": judge.name})
    elif action == "retry":
        __, questions = resume_and_retry(judge, by=request.user)
        messages.success(request, _("%(name)s resumed.") % {"name": judge.name})
        if questions:
            tell_asked_again(request, questions)
        return redirect("project", slug=project.slug)
    elif pause_judge(judge, PAUSED_BY % {"name": request.user.get_username()}, by=request.user):
        messages.success(request, _("%(name)s paused.") % {"name": judge.name})
    return redirect("scorecard", slug=project.slug)
