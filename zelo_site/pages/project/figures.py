"""The slower figures of a project's page: the Elo distribution, NDCG with grades, and the judges.

The page polls this fragment every ten seconds; figures that need a refit are cached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from labeling.models import Project
from scoring.quality import Quality, ranking_quality
from zelo_site.pages.charts.geometry import Axis, Column, IntervalBar, Tick, histogram, polyline, ticks
from zelo_site.pages.project.certainty import refresh_certainty
from zelo_site.pages.project.judge_summary import CurvePoint, judge_figures, ndcg_by_judgments
from zelo_site.pages.scope import visible_project

KEPT_S = 20
COLUMNS = 32
CURVE_WIDTH, CURVE_HEIGHT = 600, 160
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class QualityRow:
    """One ranking with its interval as a bar."""

    quality: Quality
    bar: IntervalBar


@dataclass(frozen=True, slots=True)
class Curve:
    """NDCG by judgments as a line in a view box of 600 x 160."""

    points: str
    reference: float | None
    first: CurvePoint
    last: CurvePoint
    ticks: list[Tick]


def project_figures(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the fragment."""
    project = visible_project(request, slug)
    refresh_certainty(project)
    orders = _kept("quality", project, lambda: ranking_quality(project))
    points = _kept("curve", project, lambda: ndcg_by_judgments(project)) if orders else []
    context = {
        "project": project,
        "columns": (columns := elo_columns(project)),
        "ticks": ticks(Axis(0, max((column.count for column in columns), default=1)), whole=True),
        "quality": quality_rows(orders),
        "curve": curve(points, orders),
        "judges": _kept("judges", project, lambda: judge_figures(project)),
    }
    return render(request, "zelo/project/parts/figures.html", context)


def _kept(name: str, project: Project, read: Callable[[], Found]) -> Found:
    """Return the result of `read`, cached for twenty seconds."""
    key = f"zelo:{name}:{project.pk}"
    found: Any = cache.get(key)
    if found is None:
        found = read()
        cache.set(key, found, KEPT_S)
    return found


_HISTOGRAM = """
WITH elos AS (
    SELECT score.elo FROM scoring_score score
    JOIN labeling_candidate candidate ON candidate.id = score.candidate_id
    JOIN labeling_query query ON query.id = candidate.query_id
    WHERE query.project_id = %(project)s AND score.comparisons > 0
), ends AS (SELECT min(elo) AS low, max(elo) + 0.001 AS high FROM elos)
SELECT ends.low, ends.high, width_bucket(elos.elo, ends.low, ends.high, %(columns)s), count(*)
FROM elos, ends GROUP BY 1, 2, 3
"""


def elo_columns(project: Project) -> list[Column]:
    """Return the Elo histogram of all rated candidates."""
    with connection.cursor() as cursor:
        cursor.execute(_HISTOGRAM, {"project": project.pk, "columns": COLUMNS})
        rows = cursor.fetchall()
    if not rows:
        return []
    counts = [0] * COLUMNS
    for _, _, bucket, number in rows:
        counts[min(bucket, COLUMNS) - 1] += number
    return histogram(counts, low=rows[0][0], high=rows[0][1])


def quality_rows(orders: list[Quality]) -> list[QualityRow]:
    """Return the rankings with their intervals on one axis."""
    if not orders:
        return []
    axis = _axis([order.ndcg.low for order in orders] + [order.ndcg.high for order in orders])
    return [
        QualityRow(order, IntervalBar(axis.at(order.ndcg.low), axis.at(order.ndcg.estimate), axis.at(order.ndcg.high)))
        for order in orders
    ]


def curve(points: list[CurvePoint], orders: list[Quality]) -> Curve | None:
    """Return the curve, with the first stage's NDCG as a reference if it is known."""
    if not points:
        return None
    reference = next((order.ndcg.estimate for order in orders if order.order == "first stage"), None)
    values = [point.ndcg for point in points] + ([reference] if reference is not None else [])
    y = _axis(values)
    x = Axis(points[0].judgments, max(points[-1].judgments, points[0].judgments + 1))
    line = [(point.judgments, point.ndcg) for point in points]
    return Curve(
        points=polyline(line, x=x, y=y, width=CURVE_WIDTH, height=CURVE_HEIGHT),
        reference=None if reference is None else round(CURVE_HEIGHT - y.at(reference) * CURVE_HEIGHT / 100, 1),
        first=points[0],
        last=points[-1],
        ticks=ticks(y),
    )


def _axis(values: list[float]) -> Axis:
    """Return an axis for metrics in [0, 1], with a margin so that no point lies on the frame."""
    room = max(0.02, 0.05 * (max(values) - min(values)))
    return Axis(max(0.0, min(values) - room), min(1.0, max(values) + room))
