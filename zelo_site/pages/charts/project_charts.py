"""The charts of a project: NDCG by spend, spend and certainty over time, Elo against grades, reliability.

What a chart reads is cached for a minute as plain numbers; texts are made for each visitor's language. The curve of NDCG is a
stored figure, which may be older: it says so, and the page asks again until a worker has measured it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from labeling.access.annotators import names_told_apart
from labeling.models import Project
from scoring.calibration.calibrate import project_calibration
from scoring.quality import graded_with_elo
from workers.models import CertaintyPoint
from workers.monitoring.judge_summary import CURVE_QUERIES
from workers.monitoring.project_figures import CURVE, read_figure
from workers.runs.savings import paper_calls
from zelo_site.pages.charts.drawing import Chart, Mark, Point, Series
from zelo_site.templatetags.figures import count, decimals, money

KEPT_S = 60
BUCKETS = 60
MOST_POINTS = 300
DAY = 86_400
# Steps of an axis of time: seconds, minutes, hours, days.
TIME_STEPS = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    DAY,
    2 * DAY,
    7 * DAY,
)
Read = Callable[[Project], Any]


def _kept(name: str, project: Project, read: Read) -> Any:
    key = f"zelo:chart-{name}:{project.pk}"
    found = cache.get(key)
    if found is None:
        found = [read(project)]
        cache.set(key, found, KEPT_S)
    return found[0]


def chart_titles() -> dict[str, str]:
    """Return the title of each chart by its name, in the order of the page."""
    return {
        "ndcg": _("NDCG@10 by spend"),
        "spend": _("Spend by judge over time"),
        "certainty": _("Top-10 certainty over time"),
        "elo": _("Elo against grades"),
        "reliability": _("Reliability of relevance"),
    }


# --- NDCG by spend --------------------------------------------------------------------------


def _read_paper_calls(project: Project) -> int:
    graded = graded_with_elo(project, most=CURVE_QUERIES)
    return paper_calls(Counter(int((each.candidate_ids > 0).sum()) for each in graded))


def _ndcg(project: Project) -> Chart:
    curve = read_figure(project, CURVE, kept_s=KEPT_S)
    points = [(each.judgments, each.micros / 1e6, each.ndcg, each.low, each.high) for each in curve.value or []]
    is_money = bool(points and points[-1][1] > 0)
    calls = _kept("paper", project, _read_paper_calls)
    paper = calls * points[-1][1] / points[-1][0] if is_money else calls
    waits = curve.at is None or timezone.now() - curve.at > timedelta(seconds=KEPT_S)
    return Chart(
        name="ndcg",
        title=chart_titles()["ndcg"],
        about=_(
            "Elo refitted on growing shares of the answers to at most 50 graded queries, with 95 percent intervals over queries."
        ),
        x_label=_("spent on these queries") if is_money else _("judgments of these queries"),
        y_label="NDCG@10",
        series=(Series("Elo", tuple(curve_point(*each, is_money=is_money) for each in points)),),
        columns=(_("judgments"), _("dollars"), "NDCG@10", _("low"), _("high")),
        rows=tuple((*each[:3], *(("", "") if each[3] == each[4] else each[3:])) for each in points),
        write_x=_dollars if is_money else count,
        write_y=decimals,
        mark=Mark(paper, _("the paper’s design")) if points else None,
        empty=_("A worker is measuring this figure.")
        if curve.at is None
        else _("Import people’s grades and judge some queries to see this chart."),
        read_at=curve.at,
        is_renewed=waits,
    )


def curve_point(judgments: int, dollars: float, ndcg: float, low: float, high: float, *, is_money: bool) -> Point:
    """A point of the curve; the mean of one query has no interval."""
    x = dollars if is_money else judgments
    return Point(x, ndcg) if low == high else Point(x, ndcg, low, high)


# --- over time ------------------------------------------------------------------------------

_SPEND = """
WITH mine AS (
    SELECT attempt.annotator_id, attempt.finished_at, attempt.cost_micros
    FROM workers_attempt attempt JOIN workers_run run ON run.id = attempt.run_id
    WHERE run.project_id = %(project)s AND attempt.finished_at IS NOT NULL
), span AS (
    SELECT min(finished_at) AS first, GREATEST(max(finished_at) - min(finished_at), interval '1 second') AS whole FROM mine
)
SELECT annotator_id, EXTRACT(EPOCH FROM first)::float8 + bucket * EXTRACT(EPOCH FROM whole)::float8 / %(buckets)s,
       sum(cost), sum(calls)
FROM (
    SELECT annotator_id, first, whole, sum(cost_micros) AS cost, count(*) AS calls,
           LEAST(%(buckets)s, 1 + floor(%(buckets)s * EXTRACT(EPOCH FROM finished_at - first) / EXTRACT(EPOCH FROM whole)))
               AS bucket
    FROM mine, span GROUP BY annotator_id, first, whole, 6
) parts GROUP BY annotator_id, first, whole, bucket ORDER BY 1, 2
"""


def _read_spend(project: Project) -> list[list[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(_SPEND, {"project": project.pk, "buckets": BUCKETS})
        return [[row[0], float(row[1]), int(row[2]), int(row[3])] for row in cursor.fetchall()]


def _spend(project: Project) -> Chart:
    rows = _kept("spend", project, _read_spend)
    is_money = any(row[2] for row in rows)
    names = names_told_apart(project)
    totals: dict[int, float] = {}
    lines: dict[int, list[Point]] = {}
    table = []
    for judge, at, cost, calls in rows:
        totals[judge] = totals.get(judge, 0.0) + (cost / 1e6 if is_money else calls)
        lines.setdefault(judge, []).append(Point(at, totals[judge]))
        table.append((names.get(judge, ""), _moment(at), round(totals[judge], 6)))
    ends = [row[1] for row in rows]
    return Chart(
        name="spend",
        title=chart_titles()["spend"] if is_money else _("Calls by judge over time"),
        about=_("Cumulative cost of each judge.") if is_money else _("No call has cost money; the lines count calls."),
        x_label=_("time (UTC)"),
        y_label=_("dollars") if is_money else _("calls"),
        series=tuple(Series(names.get(judge, ""), tuple(points)) for judge, points in lines.items()),
        columns=(_("judge"), _("time (UTC)"), _("dollars so far") if is_money else _("calls so far")),
        rows=tuple(table),
        write_x=_clock(ends),
        write_y=_dollars if is_money else count,
        x_ticks=time_ticks(ends),
        empty=_("No judge has been asked yet. Start a run to see this chart."),
    )


def _read_certainty(project: Project) -> list[list[float]]:
    points = list(CertaintyPoint.objects.filter(project=project).values_list("at", "certainty", "lowest", "queries"))
    step = max(1, -(-len(points) // MOST_POINTS))
    kept = points[::step] + ([points[-1]] if points and (len(points) - 1) % step else [])
    return [[each[0].timestamp(), each[1], each[2], each[3]] for each in kept]


def _certainty(project: Project) -> Chart:
    rows = _kept("certainty", project, _read_certainty)
    ends = [row[0] for row in rows]
    return Chart(
        name="certainty",
        title=chart_titles()["certainty"],
        about=_(
            "Expected share of the true top 10 among the ten shown, on up to 20 queries; the mean and the lowest query."
        ),
        x_label=_("time (UTC)"),
        y_label=_("certainty"),
        series=(
            Series(_("mean"), tuple(Point(row[0], row[1]) for row in rows)),
            Series(_("lowest query"), tuple(Point(row[0], row[2]) for row in rows)),
        ),
        columns=(_("time (UTC)"), _("mean"), _("lowest query"), _("queries")),
        rows=tuple((_moment(row[0]), *row[1:]) for row in rows),
        write_x=_clock(ends),
        write_y=decimals,
        y_range=(0.0, 1.0),
        x_ticks=time_ticks(ends),
        empty=_("Points appear while scores are fitted. Start a run to see this chart."),
    )


# --- scores ---------------------------------------------------------------------------------

_GRADES = """
SELECT candidate.grade, percentile_cont(ARRAY[0.25, 0.5, 0.75]) WITHIN GROUP (ORDER BY score.elo), count(*)
FROM scoring_score score JOIN labeling_candidate candidate ON candidate.id = score.candidate_id
JOIN labeling_query query ON query.id = candidate.query_id
WHERE query.project_id = %s AND candidate.grade IS NOT NULL AND score.comparisons > 0
GROUP BY candidate.grade ORDER BY candidate.grade
"""


def _read_grades(project: Project) -> list[list[Any]]:
    with connection.cursor() as cursor:
        cursor.execute(_GRADES, [project.pk])
        return [[row[0], *map(float, row[1]), row[2]] for row in cursor.fetchall()]


def _elo(project: Project) -> Chart:
    rows = _kept("elo", project, _read_grades)
    return Chart(
        name="elo",
        title=chart_titles()["elo"],
        about=_("Median Elo of the documents with each grade; the bars hold the middle half. No judge sees a grade."),
        x_label=_("grade"),
        y_label="Elo",
        series=(Series(_("median Elo"), tuple(Point(row[0], row[2], row[1], row[3]) for row in rows), dots=True),),
        columns=(_("grade"), _("lower quartile"), _("median"), _("upper quartile"), _("documents")),
        rows=tuple(tuple(row) for row in rows),
        write_x=lambda value: decimals(value, 0),
        write_y=lambda value: decimals(value, 0),
        x_ticks=tuple(row[0] for row in rows),
        empty=_("Import people’s grades to see this chart."),
    )


def _read_reliability(project: Project) -> list[list[float]]:
    return [[each.predicted, each.observed, each.count] for each in project_calibration(project).bins if each.count]


def _reliability(project: Project) -> Chart:
    rows = _kept("reliability", project, _read_reliability)
    return Chart(
        name="reliability",
        title=chart_titles()["reliability"],
        about=_(
            "Predicted and observed relevance on held-out queries; dots on the dashed line are perfectly calibrated."
        ),
        x_label=_("predicted relevance"),
        y_label=_("observed"),
        series=(Series(_("bins"), tuple(Point(row[0], row[1]) for row in rows), dots=True),),
        columns=(_("predicted"), _("observed"), _("answers")),
        rows=tuple(tuple(row) for row in rows),
        write_x=decimals,
        write_y=decimals,
        diagonal=True,
        y_range=(0.0, 1.0),
        x_ticks=(0.0, 0.25, 0.5, 0.75, 1.0),
        empty=_("Calibrate relevance on the scale page to see this chart."),
    )


CHARTS: dict[str, Callable[[Project], Chart]] = {
    "ndcg": _ndcg,
    "spend": _spend,
    "certainty": _certainty,
    "elo": _elo,
    "reliability": _reliability,
}


# --- numbers on axes --------------------------------------------------------------------------


def _dollars(value: float) -> str:
    return money(round(value * 1e6))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _clock(ends: list[float]) -> Callable[[float], str]:
    """Return how times of this span are written: with seconds, as a time of day, or as a day."""
    span = max(ends) - min(ends) if ends else 0.0
    form = "%H:%M:%S" if time_step(span) < 60 else "%H:%M" if span < 172_800 else "%m-%d"
    return lambda value: datetime.fromtimestamp(value, tz=UTC).strftime(form)


def time_ticks(ends: list[float]) -> tuple[float, ...]:
    if not ends:
        return ()
    low, high = min(ends), max(ends)
    step = time_step(high - low)
    first = math.ceil(low / step)
    return tuple(step * number for number in range(first, math.floor(high / step) + 1)) or (low,)


def time_step(span: float) -> float:
    """Return the shortest round step, in seconds, of which at most five fit into a span."""
    return next((step for step in TIME_STEPS if 5 * step >= span), math.ceil(span / 5 / DAY) * DAY)
