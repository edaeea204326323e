"""The panel's contradictions, a part of the judges' page: triples of documents that it orders in a circle, and a button that
asks about them in the other order. `scoring.annotators.cycles` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from labeling.models import Candidate, Project, Query
from scoring.annotators.cycles import PanelCycles
from workers.models import Run
from workers.runs.ordering import RunRefused, last_judges, start_run
from workers.runs.planning import CONFLICTS
from zelo_site.pages.scope import owned_project
from zelo_site.pages.texts import SNIPPET_LENGTH, clipped, document_title

SHOWN = 10


@dataclass(frozen=True, slots=True)
class ShownCycle:
    """A circle with the query's text and its three documents, each before the next with P in `preference`."""

    query_id: int
    query: str
    documents: tuple[dict[str, Any], ...]


def shown_cycles(found: PanelCycles) -> list[ShownCycle]:
    """Return the clearest circles with their texts, without those that lost a document since they were counted."""
    queries = Query.objects.in_bulk({each.query_id for each in found.listed})
    rows = Candidate.objects.filter(pk__in={pk for each in found.listed for pk in each.candidate_ids})
    texts = {
        row["pk"]: document_title(row["text"], row["document__metadata"])
        for row in rows.annotate(text=Left("document__text", SNIPPET_LENGTH)).values("pk", "document__metadata", "text")
    }
    listed = [each for each in found.listed if each.query_id in queries and texts.keys() >= set(each.candidate_ids)]
    return [
        ShownCycle(
            each.query_id,
            clipped(queries[each.query_id].text, 140),
            tuple(
                {"title": texts[pk], "preference": preference}
                for pk, preference in zip(each.candidate_ids, each.preferences, strict=True)
            ),
        )
        for each in listed[:SHOWN]
    ]


def ask_conflicts(request: HttpRequest, slug: str) -> HttpResponse:
    """Start a run on POST that asks the last run's judges about the contradictory pairs in the other order."""
    project = owned_project(request, slug)
    if request.method == "POST":
        _started(request, project)
    return redirect("scorecard", slug=project.slug)


def _started(request: HttpRequest, project: Project) -> None:
    _last, judges = last_judges(project)
    if not judges:
        messages.warning(request, _("No judges yet. Start a run first."))
        return
    try:
        start_run(project, judges=judges, by=request.user, sampler=CONFLICTS, orders=Run.Orders.BOTH)
        messages.success(request, _("Run started: contradictory pairs are asked in the other order."))
    except RunRefused as error:
        messages.error(request, _("No run started: %(error)s.") % {"error": error})
