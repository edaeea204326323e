"""Estimated judge quality, a fragment of the judges' page and a page of its own: sharpness, bias, weight, agreement.

`scoring.annotators.agreement` measures it on a sample, which is slow, so the page loads this fragment separately
and the result is cached.
"""

from __future__ import annotations

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from scoring.annotators.agreement import judge_figures
from scoring.annotators.cycles import panel_cycles
from zelo_site.pages.judging.conflicts import shown_cycles
from zelo_site.pages.scope import may_change, visible_project

KEPT_S = 20
MOST_KAPPAS = 30


def agreement_part(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the figures: a fragment of the judges' page, or a full page without JavaScript."""
    project = visible_project(request, slug)
    found = cache.get_or_set(f"zelo:agreement:{project.pk}", lambda: judge_figures(project), KEPT_S)
    circles = cache.get_or_set(f"zelo:cycles:{project.pk}", lambda: panel_cycles(project), KEPT_S)
    assert found is not None and circles is not None
    measured = [each for each in found.annotators if each.sharpness is not None]
    context = {
        "project": project,
        "agreement": found,
        "measured": measured,
        "anchored": any(each.anchored for each in measured),
        "weighs": project.rater_options.get("judge_weights") == "anchored",
        "kappas": sorted(found.kappas, key=lambda each: -each.common)[:MOST_KAPPAS],
        "kappas_left": max(0, len(found.kappas) - MOST_KAPPAS),
        "circles": circles,
        "shown_cycles": shown_cycles(circles),
        "may_change": may_change(request, project),
        "here": "judges",
    }
    is_fragment = bool(request.headers.get("HX-Request"))
    return render(
        request, "zelo/judging/parts/agreement.html" if is_fragment else "zelo/judging/agreement.html", context
    )
