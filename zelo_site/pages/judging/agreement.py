"""Estimated judge quality, a fragment of the judges' page and a page of its own: sharpness, bias, weight, agreement.

`scoring.annotators.agreement` measures it on a sample, which is slow, so the page loads this fragment separately
and the result is stored.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from scoring.project_fits import project_rater, takes_out_bias
from workers.monitoring.project_figures import AGREEMENT, CYCLES, read_figure
from zelo_site.pages.judging.conflicts import shown_cycles
from zelo_site.pages.scope import may_change, visible_project

KEPT_S = 20
MOST_KAPPAS = 30


def agreement_part(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the figures: a fragment of the judges' page, or a full page without JavaScript."""
    project = visible_project(request, slug)
    found = read_figure(project, AGREEMENT, kept_s=KEPT_S).value
    circles = read_figure(project, CYCLES, kept_s=KEPT_S).value
    assert found is not None and circles is not None
    measured = [each for each in found.annotators if each.sharpness is not None]
    context = {
        "project": project,
        "agreement": found,
        "measured": measured,
        "anchored": any(each.anchored for each in measured),
        "leaves_out_bias": takes_out_bias(project_rater(project)),
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
