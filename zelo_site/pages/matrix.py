"""The k x k preference matrix of a query, including pairs without answers.

Plotly, from its wheel, draws it. The security policy forbids the inline styles that Plotly's script writes,
so the template loads them from a file and tells Plotly with a CSS class.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Avg, Count, F, Q
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Candidate, Pair, Project, Query
from labeling.records import AnswerKind
from zelo_site.pages.scope import may_change, visible_project
from zelo_site.pages.texts import clipped, document_title

MOST_DOCUMENTS = 100
LABEL_LENGTH = 38
SORTS = {"elo": gettext_lazy("by Elo"), "first-stage": gettext_lazy("by first stage")}


def matrix_page(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Show the first hundred documents of the chosen ranking against each other."""
    project = visible_project(request, slug)
    query = get_object_or_404(Query.objects.visible_to(request.user).filter(project=project), pk=query_id)
    sort = request.GET.get("sort", "elo")
    sort = sort if sort in SORTS else "elo"
    documents = ranked_documents(request, query, sort)
    cells = answered_cells(request, query, [document["id"] for document in documents])
    context = {
        "project": project,
        "query": query,
        "sort": sort,
        "sorts": SORTS,
        "shown": len(documents),
        "total": Candidate.objects.visible_to(request.user).filter(query=query).count(),
        "asked": len(cells),
        "cells": cells[:MOST_DOCUMENTS],
        "figure": _figure(project, documents, cells),
        "may_change": may_change(request, project),
        "here": "queries",
    }
    return render(request, "zelo/matrix.html", context)


def ranked_documents(request: HttpRequest, query: Query, sort: str) -> list[dict[str, Any]]:
    """Return the first hundred candidates in order, with their titles."""
    by_elo, by_rank = F("score__elo").desc(nulls_last=True), F("first_stage_rank").asc(nulls_last=True)
    order = (by_elo, by_rank, "id") if sort == "elo" else (by_rank, by_elo, "id")
    rows = (
        Candidate.objects.visible_to(request.user)
        .filter(query=query)
        .annotate(words=Left("document__text", 200))
        .order_by(*order)
        .values("id", "words", "document__metadata", "first_stage_rank", "score__elo")[:MOST_DOCUMENTS]
    )
    return [{**row, "title": document_title(row["words"], row["document__metadata"])} for row in rows]


def answered_cells(request: HttpRequest, query: Query, candidate_ids: list[int]) -> list[dict[str, Any]]:
    """Return the answered pairs of these candidates with their mean preference, most disputed first."""
    live = Q(judgments__superseded_at__isnull=True, judgments__kind=AnswerKind.PREFERENCE)
    rows = (
        Pair.objects.visible_to(request.user)
        .filter(query=query, a_id__in=candidate_ids, b_id__in=candidate_ids)
        .annotate(mean=Avg("judgments__preference", filter=live), votes=Count("judgments", filter=live))
        .filter(votes__gt=0)
        .values("id", "a_id", "b_id", "mean", "votes")
    )
    position = {candidate: at for at, candidate in enumerate(candidate_ids)}
    cells = [_cell(dict(row), position[row["a_id"]], position[row["b_id"]]) for row in rows]
    return sorted(cells, key=lambda cell: cell["for_higher"])


def _cell(row: dict[str, Any], a: int, b: int) -> dict[str, Any]:
    """A pair with its ranks; a preference below one half for the higher document contradicts the ranking."""
    higher, lower = (a, b) if a < b else (b, a)
    for_higher = row["mean"] if a < b else 1.0 - row["mean"]
    return {**row, "a": a, "b": b, "ranks": ranks_of(higher + 1, lower + 1), "for_higher": for_higher}


def ranks_of(higher: int, lower: int) -> str:
    """Return the ranks of a pair's documents, the better one first."""
    return _("%(higher)s and %(lower)s") % {"higher": higher, "lower": lower}


def _figure(project: Project, documents: list[dict[str, Any]], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the data for the page's script: P(row beats column), None without answers."""
    size = len(documents)
    z: list[list[float | None]] = [[None] * size for _ in range(size)]
    pairs: list[list[int | None]] = [[None] * size for _ in range(size)]
    for cell in cells:
        a, b = cell["a"], cell["b"]
        z[a][b], z[b][a] = round(cell["mean"], 3), round(1.0 - cell["mean"], 3)
        pairs[a][b] = pairs[b][a] = cell["id"]
    labels = [f"{at}. {clipped(document['title'], LABEL_LENGTH)}" for at, document in enumerate(documents, start=1)]
    return {
        "z": z,
        "pairs": pairs,
        "labels": labels,
        "address": reverse("pair", args=[project.slug, 0]),
        "over": _("over"),
    }
