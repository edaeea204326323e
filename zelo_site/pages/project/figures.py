"""The slower figures of a project's page: the Elo distribution, NDCG with grades, and the judges.

The page polls this fragment every five seconds while work continues. The figures are stored (`workers.monitoring.project_figures`),
and each says its age.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from labeling.models import Project
from scoring.quality import Quality
from workers.models import Run
from workers.monitoring.data_summary import EloHistogram
from workers.monitoring.judge_summary import CurvePoint, JudgeFigures
from workers.monitoring.project_figures import CURVE, ELO, JUDGES, QUALITY, Figure, read_figure
from zelo_site.pages.charts.geometry import Axis, Column, IntervalBar, Tick, histogram, polyline, ticks
from zelo_site.pages.project.certainty import refresh_certainty
from zelo_site.pages.scope import visible_project

# While work continues, what is measured in a moment is at most ten seconds old: this, and the time between two polls.
KEPT_S, KEPT_LIVE_S = 30, 4
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
    orders = kept.read(QUALITY)
    points = kept.read(CURVE) if orders else []
    context = {
        "project": project,
        "columns": (columns := elo_columns(kept.read(ELO))),
        "ticks": ticks(Axis(0, max((column.count for column in columns), default=1)), whole=True),
        "quality": quality_rows(orders or []),
        "curve": curve(points or [], orders or []),
        "judges": kept.read(JUDGES),
        "read_at": kept.read_at,
    }
    return render(request, "zelo/project/parts/figures.html", context)


class _Kept:
    """Stored figures of a project; `read_at`: when each that was asked for was measured."""

    def __init__(self, project: Project, seconds: int) -> None:
        self.project, self.seconds = project, seconds
        self.read_at: dict[str, datetime | None] = {}

    def read(self, figure: Figure[Found]) -> Found | None:
        """Return the figure, or None until a worker has measured it."""
        found = read_figure(self.project, figure, kept_s=self.seconds)
        self.read_at[figure.name] = found.at
        return found.value


def kept_judge_figures(project: Project) -> list[JudgeFigures]:
    """Return the judges' figures as the project's page shows them."""
    return read_figure(project, JUDGES, kept_s=KEPT_S).value or []


def elo_columns(found: EloHistogram | None) -> list[Column]:
    """Return the columns of the Elo histogram."""
    return histogram(found.counts, low=found.low, high=found.high) if found else []


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
