"""The slower figures of a project's page: the Elo distribution, NDCG with grades, and the judges.

The page polls this fragment every five seconds while work continues; figures that need a refit are cached, and each says its age.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from django.core.cache import cache
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from labeling.models import Project
from scoring.quality import Quality, ranking_quality
from workers.models import Run
from zelo_site.pages.charts.geometry import Axis, Column, IntervalBar, Tick, histogram, polyline, ticks
from zelo_site.pages.project.certainty import refresh_certainty
from zelo_site.pages.project.judge_summary import CurvePoint, JudgeFigures, judge_figures, ndcg_by_judgments
from zelo_site.pages.scope import visible_project

# While work continues, nothing on the page is older than ten seconds: this, and the time between two polls.
KEPT_S, KEPT_LIVE_S = 30, 4
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
    run = Run.objects.filter(project=project).order_by("-id").first()
    kept = _Kept(project, KEPT_LIVE_S if run is not None and run.state in Run.ACTIVE else KEPT_S)
    orders = kept.read("quality", lambda: ranking_quality(project))
    points = kept.read("curve", lambda: ndcg_by_judgments(project)) if orders else []
    context = {
        "project": project,
        "columns": (columns := elo_columns(project)),
        "ticks": ticks(Axis(0, max((column.count for column in columns), default=1)), whole=True),
        "quality": quality_rows(orders),
        "curve": curve(points, orders),
        "judges": kept.judges(),
        "read_at": kept.read_at,
    }
    return render(request, "zelo/project/parts/figures.html", context)


class _Kept:
    """Cached figures of a project; `read_at`: when each that was asked for was computed."""

    def __init__(self, project: Project, seconds: int) -> None:
        self.project, self.seconds = project, seconds
        self.read_at: dict[str, datetime] = {}

    def read(self, name: str, compute: Callable[[], Found]) -> Found:
        """Return the result of `compute`, or the cached one if it is not too old."""
        key, now = f"zelo:{name}:{self.project.pk}", timezone.now()
        kept: tuple[datetime, Any] | None = cache.get(key)
        if kept is None or now - kept[0] > timedelta(seconds=self.seconds):
            kept = timezone.now(), compute()
            cache.set(key, kept, KEPT_S)
        self.read_at[name] = kept[0]
        return cast(Found, kept[1])

    def judges(self) -> list[JudgeFigures]:
        """Return the figures of the project's annotators."""
        return self.read("judges", lambda: judge_figures(self.project))


def kept_judge_figures(project: Project) -> list[JudgeFigures]:
    """Return the judges' figures as the project's page shows them."""
    return _Kept(project, KEPT_S).judges()


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
