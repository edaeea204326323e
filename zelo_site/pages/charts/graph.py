"""The graph of a query's comparisons: documents on a circle by Elo, a line for each judged pair.

The server draws it as SVG without a script and with colours from a stylesheet, as the security policy requires. A table
shows the same data. Documents and answers are read as for the matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render

from labeling.models import Candidate, Pair, Query
from workers.models import JudgingTask
from zelo_site.pages.charts.matrix import answered_cells, ranked_documents, ranks_of, tone_of
from zelo_site.pages.scope import may_change, visible_project
from zelo_site.pages.texts import clipped

CENTRE, RADIUS, LABEL_RADIUS = 500.0, 430.0, 462.0
NODE_RADIUS = (13.0, 5.0)  # with few documents, and with a hundred
MOST_LABELS = 60
TITLE_LENGTH = 70


@dataclass(frozen=True, slots=True)
class Node:
    """A document on the circle; `x`, `y`, `label_x`, `label_y` in units of the view box, 1000 x 1000."""

    candidate_id: int
    rank: int
    title: str
    x: float
    y: float
    label_x: float
    label_y: float
    is_labelled: bool
    compared: int
    preferred: float | None
    against: int


@dataclass(frozen=True, slots=True)
class Edge:
    """A pair. `tone` names its colour; `for_higher` is None without answers."""

    x1: float
    y1: float
    x2: float
    y2: float
    tone: str
    ranks: str
    for_higher: float | None


def graph_page(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Show the first hundred documents by Elo and all answered or pending pairs among them."""
    project = visible_project(request, slug)
    query = get_object_or_404(Query.objects.visible_to(request.user).filter(project=project), pk=query_id)
    documents = ranked_documents(request, query, "elo")
    ids = [document["id"] for document in documents]
    cells = answered_cells(request, query, ids)
    nodes = place_nodes(documents, cells)
    edges = [*_waiting_edges(query, ids, nodes, cells), *_answered_edges(cells, nodes)]
    context = {
        "project": project,
        "query": query,
        "nodes": nodes,
        "edges": edges,
        "node_radius": _node_radius(len(nodes)),
        "answered": len(cells),
        "waiting": len(edges) - len(cells),
        "against": sum(cell["for_higher"] < 0.5 for cell in cells),
        "total": Candidate.objects.visible_to(request.user).filter(query=query).count(),
        "may_change": may_change(request, project),
        "here": "queries",
    }
    return render(request, "zelo/queries/graph.html", context)


def place_nodes(documents: list[dict[str, Any]], cells: list[dict[str, Any]]) -> list[Node]:
    """Return the documents on the circle, the best at the top, the others clockwise by rank."""
    wins: list[list[float]] = [[] for _ in documents]
    against = [0] * len(documents)
    for cell in cells:
        for side, preference in ((cell["a"], cell["mean"]), (cell["b"], 1.0 - cell["mean"])):
            wins[side].append(preference)
            against[side] += cell["for_higher"] < 0.5
    return [
        Node(
            document["id"],
            at + 1,
            clipped(document["title"], TITLE_LENGTH),
            *_point(at, len(documents), RADIUS),
            *_point(at, len(documents), LABEL_RADIUS),
            is_labelled=len(documents) <= MOST_LABELS or at < 10 or (at + 1) % 10 == 0,
            compared=len(wins[at]),
            preferred=sum(wins[at]) / len(wins[at]) if wins[at] else None,
            against=against[at],
        )
        for at, document in enumerate(documents)
    ]


def _point(at: int, count: int, radius: float) -> tuple[float, float]:
    angle = 2.0 * math.pi * at / max(1, count)
    return round(CENTRE + radius * math.sin(angle), 1), round(CENTRE - radius * math.cos(angle), 1)


def _node_radius(count: int) -> float:
    few, many = NODE_RADIUS
    return round(max(many, few - (few - many) * count / 100.0), 1)


def _edge(first: Node, second: Node, tone: str, for_higher: float | None) -> Edge:
    higher, lower = sorted((first.rank, second.rank))
    return Edge(first.x, first.y, second.x, second.y, tone, ranks_of(higher, lower), for_higher)


def _answered_edges(cells: list[dict[str, Any]], nodes: list[Node]) -> list[Edge]:
    """Return the lines; those that contradict the ranking come last, on top."""
    edges = [
        _edge(nodes[cell["a"]], nodes[cell["b"]], tone_of(cell["for_higher"]), cell["for_higher"]) for cell in cells
    ]
    return sorted(edges, key=lambda edge: -(edge.for_higher or 0.0))


def _waiting_edges(query: Query, ids: list[int], nodes: list[Node], cells: list[dict[str, Any]]) -> list[Edge]:
    """Return the pairs that are pending and have no answers."""
    place = dict(zip(ids, nodes, strict=True))
    unfinished = [JudgingTask.State.OPEN, JudgingTask.State.LEASED]
    asked = JudgingTask.objects.filter(pair__query=query, state__in=unfinished).values("pair_id")
    pairs = Pair.objects.filter(pk__in=asked, a_id__in=ids, b_id__in=ids).exclude(pk__in=[cell["id"] for cell in cells])
    return [_edge(place[a], place[b], "waiting", None) for a, b in pairs.values_list("a_id", "b_id")]
