"""Reads the data of a calibration: strengths, cross-query answers, grades and people's answers.

`scoring.calibration.calibrate` reads it in one transaction snapshot, by binary COPY into numpy as in `scoring.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from django.db import connection, transaction

from labeling.models import Project
from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.columns import copy_columns
from scoring.numerics.fitting.comparisons import votes_of_query

# More graded candidates than this do not improve the relevance curve.
MOST_ANSWERS = 200_000


@dataclass(frozen=True, slots=True)
class Strengths:
    """All rated candidates of a project, query after query in id order.

    `logits` float64[n] strengths in logits without bias; `compared` bool[n] whether any pair of the
    candidate was answered; `query_ids` int64[Q], query q owns starts[q] .. starts[q + 1]. `names` int64[Q] are numbers
    that the texts of the queries decide, so that folds of queries are the same in every database. `thresholds` float64[Q]
    in logits, NaN where nobody who answers "neither" was asked.
    """

    query_ids: IntArray
    names: IntArray
    starts: IntArray
    candidate_ids: IntArray
    logits: FloatArray
    compared: npt.NDArray[np.bool_]
    thresholds: FloatArray

    @property
    def owner(self) -> IntArray:
        """The query index of each candidate."""
        return np.repeat(np.arange(len(self.query_ids)), np.diff(self.starts))

    def positions(self, candidate_ids: IntArray) -> IntArray:
        """Return the position of each candidate, -1 if it is unrated."""
        if not len(self.candidate_ids):
            return np.full(len(candidate_ids), -1, dtype=np.int64)
        order = np.argsort(self.candidate_ids, kind="stable")
        place = np.minimum(np.searchsorted(self.candidate_ids, candidate_ids, sorter=order), len(order) - 1)
        found = order[place]
        return np.where(self.candidate_ids[found] == candidate_ids, found, -1)


@dataclass(frozen=True, slots=True)
class Answers:
    """Calibration targets of relevance: outcome float64[m] in [0, 1] of the candidate at `position` int64[m].

    `source` is "grades", "people" or "model grades"; `ungraded_as_zero`: only positive grades were imported, so that an
    ungraded candidate of a graded query counts as irrelevant.
    """

    source: str
    position: IntArray
    outcome: FloatArray
    ungraded_as_zero: bool = False


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """One consistent read of a project: `version` is that of its cross-query judgments; `votes` index the strengths."""

    version: int
    strengths: Strengths
    votes: ComparisonColumns
    judgments: int
    answers: Answers


_STRENGTHS = """
SELECT candidate.query_id, candidate.id, score.theta * fit.logit_scale, score.comparisons > 0,
       COALESCE(fit.threshold * fit.logit_scale, 'NaN'::float8)
FROM labeling_query query
JOIN scoring_queryfit fit ON fit.query_id = query.id
JOIN labeling_candidate candidate ON candidate.query_id = query.id
JOIN scoring_score score ON score.candidate_id = candidate.id
WHERE query.project_id = %s ORDER BY candidate.query_id, candidate.id
"""

_NAMES = "SELECT hashtextextended(text, 0) AS name FROM labeling_query WHERE id = ANY(%s) ORDER BY id"

# A pair without a query is a cross-query pair; the join of both sides removes rows that no constraint forbids.
_VOTES = """
SELECT pair.a_id, pair.b_id, judgment.annotator_id, judgment.swapped, judgment.preference
FROM labeling_pair pair
JOIN labeling_candidate a ON a.id = pair.a_id JOIN labeling_query of_a ON of_a.id = a.query_id
JOIN labeling_candidate b ON b.id = pair.b_id JOIN labeling_query of_b ON of_b.id = b.query_id
JOIN labeling_live_judgment judgment ON judgment.pair_id = pair.id
WHERE pair.query_id IS NULL AND of_a.project_id = %s AND of_b.project_id = of_a.project_id AND of_a.id <> of_b.id
  AND judgment.kind = 'preference'
ORDER BY pair.id, judgment.id
"""

_GRADES = """
SELECT candidate.id, COALESCE(candidate.grade, -1)::bigint FROM labeling_candidate candidate
JOIN labeling_query query ON query.id = candidate.query_id
WHERE query.project_id = %s
  AND EXISTS (SELECT 1 FROM labeling_candidate graded WHERE graded.query_id = query.id AND graded.grade IS NOT NULL)
ORDER BY candidate.id
"""

# Grades of models never stand beside those of people: they count where there is nothing else, and a judge allows it.
_MODEL_GRADES = """
SELECT graded.candidate_id, avg(graded.value)::float8
FROM labeling_modelgrade graded JOIN labeling_annotator judge ON judge.id = graded.annotator_id
WHERE judge.project_id = %s AND judge.options ->> 'anchor' = 'true'
GROUP BY graded.candidate_id ORDER BY graded.candidate_id
"""

_PEOPLE = """
SELECT pair.a_id, pair.b_id, judgment.kind = 'preference', COALESCE(judgment.preference, 0.0)
FROM labeling_annotator person
JOIN labeling_live_judgment judgment ON judgment.annotator_id = person.id
JOIN labeling_pair pair ON pair.id = judgment.pair_id
WHERE person.project_id = %s AND person.is_person
  AND judgment.kind IN ('preference', 'both_irrelevant')
ORDER BY judgment.id
"""


def read_calibration_data(project_id: int, *, judge_terms: Mapping[str, Sequence[float]]) -> CalibrationData:
    """Read all data in one transaction snapshot. `judge_terms`: see ProjectFit; empty for equal weights."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        version = Project.objects.values_list("calibration_version", flat=True).get(pk=project_id)
        strengths = read_strengths(project_id)
        rows = copy_columns(
            _VOTES,
            [project_id],
            [("a", "i8"), ("b", "i8"), ("annotator", "i8"), ("swapped", "b1"), ("preference", "f8")],
        )
        answers = _answers(project_id, strengths)
    votes = _votes(rows, strengths, judge_terms)
    return CalibrationData(version, strengths, votes, judgments=len(votes.a), answers=answers)


def read_strengths(project_id: int) -> Strengths:
    """Return all rated candidates of the project."""
    fields = [("query", "i8"), ("id", "i8"), ("logits", "f8"), ("compared", "b1"), ("threshold", "f8")]
    rows = copy_columns(_STRENGTHS, [project_id], fields)
    query_ids, starts = np.unique(rows["query"].astype(np.int64), return_index=True)
    return Strengths(
        query_ids=query_ids,
        names=copy_columns(_NAMES, [query_ids.tolist()], [("name", "i8")])["name"].astype(np.int64),
        starts=np.append(starts, len(rows)).astype(np.int64),
        candidate_ids=rows["id"].astype(np.int64),
        logits=rows["logits"].astype(np.float64),
        compared=rows["compared"].astype(np.bool_),
        thresholds=rows["threshold"].astype(np.float64)[starts],
    )


def _votes(
    rows: npt.NDArray[np.void], strengths: Strengths, judge_terms: Mapping[str, Sequence[float]]
) -> ComparisonColumns:
    """Return votes on rated candidates; with weights, votes of a judge that contradicts people are reversed."""
    a = strengths.positions(rows["a"].astype(np.int64))
    b = strengths.positions(rows["b"].astype(np.int64))
    kept = (a >= 0) & (b >= 0)
    annotators, judge = np.unique(rows["annotator"].astype(np.int64), return_inverse=True)
    terms = np.array([judge_terms.get(str(each), (1.0, 0.0, 1.0)) for each in annotators.tolist()]).reshape(-1, 3)
    preference = rows["preference"].astype(np.float64)
    preference = np.where(terms[judge, 0] < 0.0, 1.0 - preference, preference)
    return votes_of_query(
        a[kept],
        b[kept],
        preference[kept],
        size=max(len(strengths.logits), 1),
        weight=terms[judge, 2][kept],
        judge=judge[kept],
        swapped=rows["swapped"].astype(np.bool_)[kept],
    )


def _answers(project_id: int, strengths: Strengths) -> Answers:
    """Return targets from grades if there are any, else from people's answers, else from the grades of models."""
    rows = copy_columns(_GRADES, [project_id], [("id", "i8"), ("grade", "i8")])
    if len(rows):
        return _thinned(_graded(rows["id"].astype(np.int64), rows["grade"].astype(np.int64), strengths), strengths)
    people = copy_columns(_PEOPLE, [project_id], [("a", "i8"), ("b", "i8"), ("chosen", "b1"), ("preference", "f8")])
    if len(people):
        return _thinned(_answered(people, strengths), strengths)
    modelled = copy_columns(_MODEL_GRADES, [project_id], [("id", "i8"), ("value", "f8")])
    position = strengths.positions(modelled["id"].astype(np.int64))
    kept = position >= 0
    outcome = modelled["value"].astype(np.float64)
    source = "model grades" if len(modelled) else "people"
    return _thinned(Answers(source, position[kept], outcome[kept]), strengths)


def _graded(ids: IntArray, grades: IntArray, strengths: Strengths) -> Answers:
    """Return grade / highest grade. An ungraded candidate (-1) counts only if all grades are positive."""
    as_zero = bool(grades[grades >= 0].min() > 0)
    outcome = np.maximum(grades, 0) / max(int(grades.max()), 1)
    position = strengths.positions(ids)
    kept = (position >= 0) & ((grades >= 0) | as_zero)
    return Answers("grades", position[kept], outcome[kept], ungraded_as_zero=as_zero)


def _answered(rows: npt.NDArray[np.void], strengths: Strengths) -> Answers:
    """Return both sides of each answer: preference and its complement, or 0 and 0 for "neither is relevant"."""
    preference = rows["preference"].astype(np.float64)
    chosen = rows["chosen"].astype(np.bool_)
    position = strengths.positions(np.concatenate([rows["a"], rows["b"]]).astype(np.int64))
    outcome = np.concatenate([preference, np.where(chosen, 1.0 - preference, 0.0)])
    kept = position >= 0
    return Answers("people", position[kept], outcome[kept])


def _thinned(answers: Answers, strengths: Strengths) -> Answers:
    """Return at most MOST_ANSWERS targets of compared candidates, drawn with a fixed seed."""
    kept = np.flatnonzero(strengths.compared[answers.position])
    if len(kept) > MOST_ANSWERS:
        kept = np.sort(np.random.default_rng(0).choice(kept, MOST_ANSWERS, replace=False))
    return Answers(answers.source, answers.position[kept], answers.outcome[kept], answers.ungraded_as_zero)
