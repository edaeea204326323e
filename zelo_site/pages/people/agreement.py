"""Agreement of people with each other and with judges: alpha and kappa with intervals, or why they are missing.

`scoring.annotators.people_agreement` measures it, which is slow with many answers, so the result is cached.
"""

from __future__ import annotations

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from scoring.annotators.people_agreement import Alphas, PeopleAgreement, people_agreement
from scoring.annotators.replacing_people import replacing_people
from zelo_site.pages.scope import may_change, visible_project

KEPT_S = 15


def people_agreement_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the page, which is read-only."""
    project = visible_project(request, slug)
    found = cache.get_or_set(f"zelo:people-agreement:{project.pk}", lambda: people_agreement(project), KEPT_S)
    assert isinstance(found, PeopleAgreement)
    key = f"zelo:replacing-people:{project.pk}"
    replacing = cache.get_or_set(key, lambda: replacing_people(project), KEPT_S)
    context = {
        "project": project,
        "found": found,
        "alphas": [
            {"title": _("among people"), "levels": _levels(found.among_people)},
            {"title": _("people and judges"), "levels": _levels(found.with_judges)},
        ],
        "among_people": [each for each in found.couples if each.second_is_person],
        "with_judges": [each for each in found.couples if not each.second_is_person],
        "replacing": replacing,
        "may_change": may_change(request, project),
        "here": "people",
    }
    return render(request, "zelo/people/people_agreement.html", context)


def _levels(alphas: Alphas) -> list[dict[str, object]]:
    return [
        {"label": _("which document"), "help": _("nominal: A, B, tie or neither"), "figure": alphas.nominal},
        {"label": _("how strongly, in order"), "help": _("ordinal"), "figure": alphas.ordinal},
        {"label": _("how strongly, as a number"), "help": _("interval"), "figure": alphas.interval},
    ]
