"""Measures a project's judges: sharpness, position bias, dispersion and weight, each with its interval.

Where people answered pairs, or graded candidates, judges are measured against them (`anchors`); otherwise
against their joint strengths. Called by `scoring.project_fits`, which stores the result;
the mathematics is in `scoring.numerics.judges.judges`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from django.db import connection

from labeling.annotation.answer_scale import CLEAR
from labeling.models import Annotator, Project
from labeling.records import BoolArray, ComparisonColumns, FloatArray
from scoring.columns import ProjectColumns, copy_columns, read_columns
from scoring.numerics.judges.judges import JudgeEstimates, NoAnchorAnswers, fit_with_judges
from scoring.numerics.judges.position_bias import removable_biases

MEASURED_JUDGMENTS = 20_000

# Measuring against anchors inverts a matrix of a query's candidates.
MOST_CANDIDATES = 1_000


@dataclass(frozen=True, slots=True)
class MeasuredJudge:
    """Measurements of one judge, as stored in `scoring.models.JudgeFit`."""

    annotator_id: int
    sharpness: float
    sharpness_stderr: float
    position_bias: float
    position_bias_stderr: float
    dispersion: float
    weight: float
    votes: int
    anchors: int

    def columns(self) -> dict[str, Any]:
        """Return the measurements by column name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "annotator_id"}


@dataclass(frozen=True, slots=True)
class JudgePanel:
    """All judges of a project. `anchors` counts the answers of people and graded pairs used as reference.

    `biases`: by annotator id, the position biases that equal weights take out, see `numerics.judges.position_bias`.
    """

    judges: tuple[MeasuredJudge, ...] = ()
    correlations: tuple[tuple[int, int, float], ...] = ()
    anchors: int = 0
    biases: dict[int, float] = field(default_factory=dict)

    @property
    def terms(self) -> dict[str, list[float]]:
        """Return (sharpness, position bias, weight) by annotator id, for fits that weight judges."""
        return {str(j.annotator_id): [j.sharpness, j.position_bias, j.weight] for j in self.judges}

    @property
    def bias_terms(self) -> dict[str, list[float]]:
        """Return the same for fits in which all judges' votes count equally, without their position bias."""
        return {str(annotator): [1.0, bias, 1.0] for annotator, bias in self.biases.items()}


def measure_judges(project: Project, *, model: str, prior_precision: float) -> JudgePanel:
    """Measure every model that judged; return an empty panel if there is none."""
    read = read_columns(_measured_query_ids(project.pk))
    people = set(Annotator.objects.filter(project=project, is_person=True).values_list("id", flat=True))
    is_person = np.array([annotator in people for annotator in read.annotator_ids.tolist()], dtype=np.bool_)
    if is_person.all():
        return JudgePanel()
    columns, is_anchor = with_grades(read, is_person)
    anchors = np.flatnonzero(is_anchor).tolist()
    unanchored = fit_with_judges(read.columns, model=model, prior_precision=prior_precision)
    found, answers = unanchored.judges, 0
    if anchors:
        with suppress(NoAnchorAnswers):
            found = fit_with_judges(columns, model=model, prior_precision=prior_precision, anchors=anchors).judges
            answers = int(is_anchor[columns.judge].sum())
    biases = {
        int(read.annotator_ids[judge]): bias
        for judge, bias in removable_biases(read.columns, unanchored).items()
        if not is_person[judge]
    }
    return _panel(read, found, is_anchor, answers, biases)


def _panel(
    read: ProjectColumns, found: JudgeEstimates, is_anchor: BoolArray, anchors: int, biases: dict[int, float]
) -> JudgePanel:
    """Return estimates by annotator id, without people who were measured because there were no anchors."""
    judges = tuple(
        MeasuredJudge(
            annotator_id=int(read.annotator_ids[judge]),
            sharpness=float(found.sharpness[row]),
            sharpness_stderr=float(found.sharpness_stderr[row]),
            position_bias=float(found.position_bias[row]),
            position_bias_stderr=float(found.position_bias_stderr[row]),
            dispersion=float(found.dispersion[row]),
            weight=float(found.weight[row]),
            votes=int(found.answers[row]),
            anchors=anchors,
        )
        for row, judge in enumerate(found.judge.tolist())
        if not is_anchor[judge]
    )
    correlations = tuple(
        (int(read.annotator_ids[i]), int(read.annotator_ids[j]), round(r, 3))
        for i, j, r in found.correlated()
        if not (is_anchor[i] or is_anchor[j])
    )
    return JudgePanel(judges, correlations, anchors, biases)


_MEASURED = """
WITH asked AS (
    SELECT DISTINCT pair.query_id FROM labeling_annotator person
    JOIN labeling_live_judgment judgment ON judgment.annotator_id = person.id
    JOIN labeling_pair pair ON pair.id = judgment.pair_id
    WHERE person.project_id = %(project)s AND person.is_person
      AND judgment.kind = 'preference' AND pair.query_id IS NOT NULL
), shuffled AS (
    SELECT fit.query_id, fit.judgments, hashtextextended(query.text, 1) AS place
    FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
    WHERE query.project_id = %(project)s AND fit.judgments > 0
), looked_at AS (
    (SELECT * FROM shuffled ORDER BY place LIMIT 5000) UNION SELECT shuffled.* FROM shuffled JOIN asked USING (query_id)
), ranked AS (
    SELECT looked_at.*, (query_id IN (SELECT query_id FROM asked))::int * 2 + (counted.graded > 1)::int AS anchored
    FROM looked_at CROSS JOIN LATERAL (
        SELECT count(*) AS candidates, count(grade) AS graded FROM labeling_candidate WHERE query_id = looked_at.query_id
    ) counted
    WHERE counted.candidates <= %(candidates)s
), drawn AS (
    SELECT query_id, sum(judgments) OVER (ORDER BY anchored DESC, place, query_id) - judgments AS before FROM ranked
)
SELECT query_id FROM drawn WHERE before < %(most)s ORDER BY query_id
"""


def _measured_query_ids(project_id: int) -> list[int]:
    """Return sampled queries: those with people's answers first, then graded ones, then others."""
    parameters = {"project": project_id, "most": MEASURED_JUDGMENTS, "candidates": MOST_CANDIDATES}
    with connection.cursor() as cursor:
        cursor.execute(_MEASURED, parameters)
        return [row[0] for row in cursor.fetchall()]


_GRADES = "SELECT id, grade::bigint FROM labeling_candidate WHERE query_id = ANY(%s) AND grade IS NOT NULL"


def with_grades(read: ProjectColumns, is_person: BoolArray) -> tuple[ComparisonColumns, BoolArray]:
    """Add a judge that compares judged pairs by the grades of their candidates.

    Returns the columns and which judges are anchors, bool[J + 1] (or bool[J] without grades).
    Pairs of equal grade are ties. Stored strengths do not use these rows.
    """
    grades = _grades_of(read)
    columns = read.columns
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    starts = np.concatenate([[0], np.cumsum(columns.sizes)])
    of_a, of_b = grades[starts[owner] + columns.a], grades[starts[owner] + columns.b]
    _, first = np.unique(read.pair_ids, return_index=True)
    rows = np.sort(first)
    rows = rows[np.isfinite(of_a[rows]) & np.isfinite(of_b[rows])]
    if not rows.size:
        return columns, is_person
    preference = 0.5 + (CLEAR - 0.5) * np.sign(of_a[rows] - of_b[rows])
    order = np.argsort(np.concatenate([owner, owner[rows]]), kind="stable")

    def joined(column: np.ndarray, added: np.ndarray) -> np.ndarray:
        return np.concatenate([column, added])[order]

    grown = replace(
        columns,
        a=joined(columns.a, columns.a[rows]),
        b=joined(columns.b, columns.b[rows]),
        preference=joined(columns.preference, preference),
        weight=joined(columns.weight, np.ones(len(rows))),
        judge=joined(columns.judge, np.full(len(rows), len(is_person))),
        swapped=joined(columns.swapped, np.zeros(len(rows), dtype=np.bool_)),
        offsets=columns.offsets + np.searchsorted(owner[rows], np.arange(columns.queries + 1)),
    )
    return grown, np.append(is_person, True)


def _grades_of(read: ProjectColumns) -> FloatArray:
    """Return the grade of each candidate, NaN without one."""
    rows = copy_columns(_GRADES, [read.query_ids.tolist()], [("id", "i8"), ("grade", "i8")])
    grades = np.full(len(read.candidate_ids), np.nan)
    order = np.argsort(read.candidate_ids, kind="stable")
    known = rows["id"].astype(np.int64)
    if known.size:
        place = np.minimum(np.searchsorted(read.candidate_ids, known, sorter=order), len(order) - 1)
        position = order[place]
        same = read.candidate_ids[position] == known
        grades[position[same]] = rows["grade"].astype(np.float64)[same]
    return grades
