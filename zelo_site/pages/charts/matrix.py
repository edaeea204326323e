"""The k x k preference matrix of a query, including pairs without answers.

The server draws it as SVG without a script and with colours from a stylesheet, as the security policy requires. A table
lists the pairs that contradict the order most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Avg, Count, F
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Candidate, Judgment, Project, Query
from scoring.known_scores import best_elo_first, known
from zelo_site.pages.forms import one_of
from zelo_site.pages.scope import may_change, visible_project
from zelo_site.pages.texts import clipped, document_title
from zelo_site.templatetags.figures import decimals

MOST_DOCUMENTS = 100
MOST_DISPUTED = 20
LABEL_LENGTH, TITLE_LENGTH = 32, 80
MOST_RANKS = 40  # with more documents every tenth column has its rank above it
MOST_COLUMN_LABELS = 60  # with more documents a column is narrower than a line of text
# The drawing in units of its view box: the square of cells, the margin for ranks beside it, and that for labels above it.
SIDE, MARGIN, TOP = 800.0, 40.0, 200.0
LETTER = 0.56  # the width of a letter, in font sizes: labels above the columns end before the edge
# A preference, from where on it has which colour: for the row in the matrix, for the higher document in the graph.
TONES = ((0.8, "sure"), (0.55, "mild"), (0.45, "tie"), (0.2, "mild-against"), (0.0, "sure-against"))
SORTS = {"elo": gettext_lazy("by Elo"), "first-stage": gettext_lazy("by first stage")}


@dataclass(frozen=True, slots=True)
class Cell:
    """P(row beats column) of one answered pair; each such pair has two mirrored cells."""

    x: float
    y: float
    tone: str
    title: str
    address: str


@dataclass(frozen=True, slots=True)
class Line:
    """A document's row and column; `x` and `y` are their centres. `above` is the column's label."""

    rank: int
    label: str
    above: str
    x: float
    y: float
    has_rank: bool

    @property
    def is_between(self) -> bool:
        """Return whether a narrow screen leaves the rank out: it shows the first, and every fifth."""
        return self.rank != 1 and self.rank % 5 != 0


@dataclass(frozen=True, slots=True)
class Drawing:
    """The template's data; lengths in units of the view box. `step` is the size of a cell with its gap."""

    cells: list[Cell]
    lines: list[Line]
    step: float
    width: float
    font_size: float
    top: float = MARGIN
    extent: float = SIDE + MARGIN
    margin: float = MARGIN
    side: float = SIDE

    @property
    def height(self) -> float:
        return self.top + self.side

    @property
    def upper(self) -> float:
        """Return where the labels above the cells end."""
        return self.top - 10.0


def matrix_page(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Show the first hundred documents of the chosen ranking against each other."""
    project = visible_project(request, slug)
    query = get_object_or_404(Query.objects.visible_to(request.user).filter(project=project), pk=query_id)
    sort = one_of(request.GET, "sort", SORTS, "elo")
    documents = ranked_documents(request, query, sort)
    cells = answered_cells(request, query, [document["id"] for document in documents])
    for cell in cells[:MOST_DISPUTED]:
        higher, lower = sorted((cell["a"], cell["b"]))
        cell["titles"] = [clipped(documents[at]["title"], TITLE_LENGTH) for at in (higher, lower)]
    context = {
        "project": project,
        "query": query,
        "sort": sort,
        "sorts": SORTS,
        "shown": len(documents),
        "total": Candidate.objects.visible_to(request.user).filter(query=query).count(),
        "asked": len(cells),
        "cells": cells[:MOST_DISPUTED],
        "drawing": draw(project, documents, cells),
        "may_change": may_change(request, project),
        "here": "queries",
    }
    return render(request, "zelo/queries/matrix.html", context)


def ranked_documents(request: HttpRequest, query: Query, sort: str) -> list[dict[str, Any]]:
    """Return the first hundred candidates in order, with their titles."""
    by_elo, by_rank = best_elo_first(), F("first_stage_rank").asc(nulls_last=True)
    order = (*by_elo, by_rank, "id") if sort == "elo" else (by_rank, *by_elo, "id")
    rows = (
        Candidate.objects.visible_to(request.user)
        .filter(query=query)
        .annotate(words=Left("document__text", 200))
        .order_by(*order)
        .values("id", "words", "document__metadata", "first_stage_rank", "score__elo", "score__comparisons")[
            :MOST_DOCUMENTS
        ]
    )
    return [{**row, "title": document_title(row["words"], row["document__metadata"])} for row in map(known, rows)]


def answered_cells(request: HttpRequest, query: Query, candidate_ids: list[int]) -> list[dict[str, Any]]:
    """Return the answered pairs of these candidates with their mean preference, most disputed first."""
    rows = (
        Judgment.objects.preferences()
        .visible_to(request.user)
        .filter(pair__query=query, pair__a_id__in=candidate_ids, pair__b_id__in=candidate_ids)
        .values("pair_id", a_id=F("pair__a_id"), b_id=F("pair__b_id"))
        .annotate(mean=Avg("preference"), votes=Count("id"))
    )
    position = {candidate: at for at, candidate in enumerate(candidate_ids)}
    cells = [_cell({"id": row["pair_id"], **row}, position[row["a_id"]], position[row["b_id"]]) for row in rows]
    return sorted(cells, key=lambda cell: cell["for_higher"])


def _cell(row: dict[str, Any], a: int, b: int) -> dict[str, Any]:
    """A pair with its ranks; a preference below one half for the higher document contradicts the ranking."""
    higher, lower = (a, b) if a < b else (b, a)
    for_higher = row["mean"] if a < b else 1.0 - row["mean"]
    return {**row, "a": a, "b": b, "ranks": ranks_of(higher + 1, lower + 1), "for_higher": for_higher}


def ranks_of(higher: int, lower: int) -> str:
    """Return the ranks of a pair's documents, the better one first."""
    return _("%(higher)s and %(lower)s") % {"higher": higher, "lower": lower}


def tone_of(preference: float) -> str:
    """Return the name of a preference's colour."""
    return next(name for least, name in TONES if preference >= least)


def draw(project: Project, documents: list[dict[str, Any]], cells: list[dict[str, Any]]) -> Drawing:
    """Return the drawing: two cells for each answered pair, none for a pair without answers."""
    step = SIDE / max(1, len(documents))
    labels = [f"{at}. {clipped(document['title'], LABEL_LENGTH)}" for at, document in enumerate(documents, start=1)]
    named = len(labels) <= MOST_COLUMN_LABELS
    top = TOP if named else MARGIN
    font_size = min(14.0, 0.9 * step)
    letters = int((TOP - 10.0) / (LETTER * font_size)) - 4  # less the rank
    return Drawing(
        cells=_cells(project, cells, labels, step, top),
        lines=[
            Line(
                at + 1,
                label,
                above=f"{at + 1}. {clipped(documents[at]['title'], letters)}" if named else "",
                x=_rounded(MARGIN + (at + 0.5) * step),
                y=_rounded(top + (at + 0.5) * step),
                has_rank=len(labels) <= MOST_RANKS or at == 0 or (at + 1) % 10 == 0,
            )
            for at, label in enumerate(labels)
        ],
        step=_rounded(step),
        width=_rounded(0.92 * step),
        font_size=_rounded(font_size),
        top=top,
    )


def _cells(project: Project, cells: list[dict[str, Any]], labels: list[str], step: float, top: float) -> list[Cell]:
    over, pattern = _("over"), reverse("pair", args=[project.slug, 0])
    found = []
    for cell in cells:
        a, b, address = cell["a"], cell["b"], pattern.removesuffix("0/") + f"{cell['id']}/"
        for row, column, preference in ((a, b, cell["mean"]), (b, a, 1.0 - cell["mean"])):
            found.append(
                Cell(
                    x=_rounded(MARGIN + column * step),
                    y=_rounded(top + row * step),
                    tone=tone_of(preference),
                    title=f"{labels[row]}\n{over} {labels[column]}\n{decimals(preference)}",
                    address=address,
                )
            )
    return found


def _rounded(length: float) -> float:
    return round(length, 2)
