"""Buttons beside a pair: ask the judges of the last run again, or ask a person."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from labeling.models import Pair, Project
from scoring.spot_checks.draws import NothingToAsk
from scoring.spot_checks.plans import ask_person
from workers.runs.ordering import NoJudges, RunRefused, ask_again
from zelo_site.pages.forms import one_of, text_of
from zelo_site.pages.scope import owned_project

WHOM = ("judges", "person")


@require_POST
def ask_pair(request: HttpRequest, slug: str, pair_id: int) -> HttpResponse:
    """Ask `whom` about the pair, then show the page that `next` names, or the pair."""
    project = owned_project(request, slug)
    pair = get_object_or_404(Pair.objects.visible_to(request.user), pk=pair_id, a__query__project=project)
    if one_of(request.POST, "whom", WHOM) == "person":
        _person(request, project, pair)
    else:
        _judges(request, project, pair)
    back = text_of(request.POST, "next", 1000)
    if back.startswith("/") and url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        return redirect(back)
    return redirect("pair", slug=project.slug, pair_id=pair.pk)


def _judges(request: HttpRequest, project: Project, pair: Pair) -> None:
    try:
        run = ask_again(project, pair, by=request.user)
        messages.success(
            request, _("Run %(run)s asks the judges about this pair in the orders that are left.") % {"run": run.pk}
        )
    except (NoJudges, RunRefused) as error:
        messages.warning(request, _("Not asked: %(error)s") % {"error": error})


def _person(request: HttpRequest, project: Project, pair: Pair) -> None:
    try:
        ask_person(project, pair, by=request.user)
        messages.success(request, _("One more person gets this pair on the comparison screen."))
    except NothingToAsk:
        messages.warning(request, _("This pair is already waiting for a person."))
