"""Figures of whole projects that take long to compute: stored with their age, and measured anew by the task `measure`.

A page reads the stored figure. One that takes a moment is measured by whoever reads it; a slow one is left to a worker, and only
while somebody looks. So no page becomes slower with the project, and `Figure.compute` stays the one definition of the figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import pydantic
from django.db.models import F, Q
from django.utils import timezone

from labeling.models import Annotator, Project, ProjectCount
from scoring.annotators.agreement import Agreement
from scoring.annotators.agreement import judge_figures as measure_agreement
from scoring.annotators.cycles import PanelCycles, panel_cycles
from scoring.quality import Quality, ranking_quality
from workers.broker.hints import leave_hint
from workers.models import ProjectFigure, Spend
from workers.monitoring.data_summary import (
    AnswerCounts,
    DomainCounts,
    EloHistogram,
    answer_counts,
    domain_counts,
    elo_histogram,
    few_comparisons,
    judged_sizes,
)
from workers.monitoring.judge_summary import CurvePoint, JudgeFigures, judge_figures, ndcg_by_judgments
from workers.monitoring.scorecard import Scorecard, scorecards

Found = TypeVar("Found")

# Whoever reads it measures a figure that took at most so long the last time.
QUICK_MS = 100
# A project with more answers or candidates leaves the figures that grow with it to a worker from the beginning.
MANY_ROWS = 20_000
# A slow figure rests for so many times as long as it took.
REST_FACTOR = 20.0


@dataclass(frozen=True, slots=True)
class Figure(Generic[Found]):
    """A figure by its stored name, with what its JSON holds. `grows`: it reads rows that become more with the project."""

    name: str
    compute: Callable[[Project], Found]
    holds: pydantic.TypeAdapter[Found]
    grows: bool = True


@dataclass(frozen=True, slots=True)
class Measured(Generic[Found]):
    """A figure with its age. Both are None until a worker has measured it for the first time."""

    value: Found | None
    at: datetime | None


QUALITY = Figure("quality", ranking_quality, pydantic.TypeAdapter(list[Quality]))
CURVE = Figure("curve", ndcg_by_judgments, pydantic.TypeAdapter(list[CurvePoint]))
DOMAINS = Figure("domains", domain_counts, pydantic.TypeAdapter(list[DomainCounts]))
ANSWERS = Figure("answers", answer_counts, pydantic.TypeAdapter(list[AnswerCounts]))
ELO = Figure("elo", elo_histogram, pydantic.TypeAdapter(EloHistogram))
SIZES: Figure[dict[int, int]] = Figure("sizes", judged_sizes, pydantic.TypeAdapter(dict[int, int]))
FEW = Figure("few_comparisons", few_comparisons, pydantic.TypeAdapter(int))
# These read samples or the latest answers only.
JUDGES = Figure("judges", judge_figures, pydantic.TypeAdapter(list[JudgeFigures]), grows=False)
CARDS = Figure("cards", scorecards, pydantic.TypeAdapter(list[Scorecard]), grows=False)
AGREEMENT = Figure("agreement", measure_agreement, pydantic.TypeAdapter(Agreement), grows=False)
CYCLES = Figure("cycles", panel_cycles, pydantic.TypeAdapter(PanelCycles), grows=False)
FIGURES: Mapping[str, Figure[Any]] = {
    each.name: each for each in (QUALITY, CURVE, DOMAINS, ANSWERS, ELO, SIZES, FEW, JUDGES, CARDS, AGREEMENT, CYCLES)
}


def read_figure(project: Project, figure: Figure[Found], *, kept_s: float) -> Measured[Found]:
    """Return the figure as it was at most `kept_s` seconds ago; a slow one may be older, and a worker is asked to renew it."""
    row = ProjectFigure.objects.filter(project=project, name=figure.name).first()
    now = timezone.now()
    if row is None or row.measured_at is None:
        if not (figure.grows and _is_large(project.pk)):
            return measure(project, figure)
        _want(project.pk, figure.name, now)
        return Measured(None, None)
    is_slow = row.took_ms > QUICK_MS
    rest_s = max(kept_s, REST_FACTOR * row.took_ms / 1000) if is_slow else kept_s
    if now - row.measured_at > timedelta(seconds=rest_s):
        if not is_slow:
            return measure(project, figure)
        _want(project.pk, figure.name, now)
    try:
        return Measured(figure.holds.validate_python(row.value), row.measured_at)
    except pydantic.ValidationError:  # stored by another version
        return measure(project, figure)


def light_value(project: Project, figure: Figure[Found], *, rows: int, kept_s: float) -> Found | None:
    """Return a figure that is cheap in a small project, which computes it at each reading and stores nothing.

    `rows`: the candidates or the answers of the project, whichever are more.
    """
    return read_figure(project, figure, kept_s=kept_s).value if rows > MANY_ROWS else figure.compute(project)


def current_cards(project: Project, *, kept_s: float) -> list[Scorecard]:
    """Return the scorecards, each with the state that its judge has now."""
    judges = {judge.pk: judge for judge in Annotator.objects.judges().filter(project=project)}
    found = read_figure(project, CARDS, kept_s=kept_s).value or []
    return [card.with_state(judges[card.annotator_id]) for card in found if card.annotator_id in judges]


def measure(project: Project, figure: Figure[Found]) -> Measured[Found]:
    """Compute a figure and store it."""
    at, began = timezone.now(), time.monotonic()
    value = figure.compute(project)
    took_ms = round(1000 * (time.monotonic() - began))
    stored = {"value": figure.holds.dump_python(value, mode="json"), "measured_at": at, "took_ms": took_ms}
    ProjectFigure.objects.update_or_create(project=project, name=figure.name, defaults=stored)
    return Measured(value, at)


def measure_wanted(project_id: int, *, until: float) -> bool:
    """Measure the figures that pages have asked for until `until` (monotonic), the oldest first; return whether some are left."""
    wanted = ProjectFigure.objects.filter(project=project_id, name__in=FIGURES).filter(
        Q(measured_at=None) | Q(wanted_at__gt=F("measured_at"))
    )
    for row in wanted.select_related("project").order_by(F("measured_at").asc(nulls_first=True), "id"):
        if time.monotonic() > until:
            return True
        measure(row.project, FIGURES[row.name])
    return False


def _want(project_id: int, name: str, now: datetime) -> None:
    """Ask a worker for a newer figure; the hint is sent at each reading, because hints may be lost."""
    row, is_new = ProjectFigure.objects.get_or_create(project_id=project_id, name=name, defaults={"wanted_at": now})
    if not is_new and row.measured_at is not None and (row.wanted_at is None or row.wanted_at <= row.measured_at):
        ProjectFigure.objects.filter(pk=row.pk).update(wanted_at=now)
    leave_hint("measure", project_id)


def _is_large(project_id: int) -> bool:
    """Whether the project has many answers or many candidates, by the running totals."""
    answers = Spend.objects.filter(run__project=project_id).values_list("answers", flat=True)
    candidates = ProjectCount.objects.filter(project=project_id).values_list("candidates", flat=True)
    return sum(answers) > MANY_ROWS or sum(candidates) > MANY_ROWS
