"""Inputs to the choice of a judge: each judge's measured sharpness, bias and errors. Writes nothing.

Called when a round of a run with the allocation `informative` is planned. The mathematics is in
`scoring.numerics.judges.informative`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from django.db import connection

from labeling.models import Project
from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.annotators.judge_sharpness import MeasuredJudge, measure_judges
from scoring.columns import read_columns
from scoring.models import JudgeFit, Score
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.fitting.votes import VoteTerms, fit_votes
from scoring.numerics.judges.informative import LEAST_VOTES, PanelTerms, SeenCandidates, shared_errors
from scoring.project_fits import model_of, project_rater, sampled_query_ids, takes_out_bias

# Shared errors are measured on so many judgments: a tenth of a second at most.
SHARED_JUDGMENTS = 5_000
# The variance of strengths, in logits, while nothing is rated.
SPREAD_LOGITS = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    sharpness: float = 1.0
    stderr: float = 1.0
    bias: float = 0.0
    dispersion: float = 1.0
    votes: int = 0


def panel_terms(project: Project, judges: Sequence[int], prices: Sequence[float]) -> PanelTerms:
    """The terms of these judges (annotator ids) at these prices of an answer, in the order given.

    Stored measurements count; where one is missing and every judge has answers enough, all are measured now.
    """
    known = _stored(judges)
    model = model_of(project_rater(project)) or "bradley-terry"
    if any(each.votes < LEAST_VOTES for each in known.values()) and _all_answered(judges):
        known = _measured(project, judges, model)
    slope, spread = _scale(project, model)
    columns = [known[judge] for judge in judges]
    sharpness, stderr, bias, dispersion = (
        np.array([getattr(each, name) for each in columns]) for name in ("sharpness", "stderr", "bias", "dispersion")
    )
    votes = np.array([each.votes for each in columns], dtype=np.int64)
    shared = np.zeros((len(judges), len(judges)))
    if (votes >= LEAST_VOTES).all():
        shared = _shared(project, judges, sharpness, bias, dispersion, model)
    return PanelTerms(
        sharpness=sharpness,
        sharpness_stderr=stderr,
        position_bias=bias,
        dispersion=dispersion,
        votes=votes,
        price=np.asarray(prices, dtype=np.float64),
        shared=shared,
        slope=slope,
        spread=spread,
        without_bias=takes_out_bias(project_rater(project)),
    )


def _stored(judges: Sequence[int]) -> dict[int, _Known]:
    rows = JudgeFit.objects.filter(annotator__in=judges, votes__gt=0, sharpness__isnull=False).values_list(
        "annotator_id", "sharpness", "sharpness_stderr", "position_bias", "dispersion", "votes"
    )
    return {judge: _Known() for judge in judges} | {row[0]: _Known(*cast(Any, row[1:])) for row in rows}


_ANSWERS = """
SELECT count(*) FROM unnest(%s::bigint[]) AS judge CROSS JOIN LATERAL (
    SELECT count(*) AS answers FROM (
        SELECT 1 FROM labeling_live_judgment WHERE annotator_id = judge AND kind = 'preference' LIMIT %s
    ) first_answers
) counted WHERE answers >= %s
"""


def _all_answered(judges: Sequence[int]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_ANSWERS, [list(judges), LEAST_VOTES, LEAST_VOTES])
        return int(cursor.fetchone()[0]) == len(judges)


def _measured(project: Project, judges: Sequence[int], model: str) -> dict[int, _Known]:
    found = measure_judges(project, model=model, prior_precision=_precision(project)).judges
    return {judge: _Known() for judge in judges} | {
        each.annotator_id: _known(each) for each in found if each.annotator_id in judges
    }


def _precision(project: Project) -> float:
    return float(getattr(project_rater(project).options, "prior_precision", None) or 0.1)


def _known(each: MeasuredJudge) -> _Known:
    return _Known(each.sharpness, each.sharpness_stderr, each.position_bias, each.dispersion, each.votes)


def _scale(project: Project, model: str) -> tuple[float, float]:
    """The logits of a unit of strength, and the variance of strengths within queries."""
    slope = LOGIT_SCALES[model]
    ids = sampled_query_ids(project.pk, most=SHARED_JUDGMENTS)
    scores = Score.objects.filter(candidate__query__in=ids, comparisons__gt=0)
    strengths = np.array(scores.values_list("theta", flat=True), dtype=np.float64)
    return slope, max(float(np.mean(strengths**2)), 1e-3) if len(strengths) > 1 else SPREAD_LOGITS / slope**2


def _shared(
    project: Project,
    judges: Sequence[int],
    sharpness: FloatArray,
    bias: FloatArray,
    dispersion: FloatArray,
    model: str,
) -> FloatArray:
    precision = _precision(project)
    read = read_columns(sampled_query_ids(project.pk, most=SHARED_JUDGMENTS))
    place = {judge: row for row, judge in enumerate(judges)}
    row_of = np.array([place.get(int(each), -1) for each in read.annotator_ids], dtype=np.int64)
    if not len(row_of):
        return np.zeros((len(judges), len(judges)))
    columns = read.columns
    mine = row_of[columns.judge] >= 0
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    counts = np.bincount(owner[mine], minlength=columns.queries)
    fields = {name: getattr(columns, name)[mine] for name in ("a", "b", "preference", "weight", "swapped")}
    kept = ComparisonColumns(
        **fields,
        judge=row_of[columns.judge][mine],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        sizes=columns.sizes,
    )
    side = np.where(kept.swapped, -1.0, 1.0)
    weight = 1.0 / np.maximum(dispersion, 1e-3)
    terms = VoteTerms(
        slope=sharpness[kept.judge],
        offset=bias[kept.judge] * side,
        weight=kept.weight * (weight / weight.mean())[kept.judge],
    )
    theta = fit_votes(kept, terms, model=model, prior_precision=precision, standard_errors=False).theta
    return shared_errors(
        kept,
        theta,
        judges=len(judges),
        sharpness=sharpness,
        position_bias=bias,
        dispersion=dispersion,
        slope=LOGIT_SCALES[model],
    )


_SEEN = """
WITH asked AS (
    SELECT pair_id, annotator_id, swapped FROM labeling_live_judgment
    WHERE annotator_id = ANY(%(judges)s) AND kind = 'preference'
    UNION ALL
    SELECT task.pair_id, task.annotator_id, task.swapped FROM workers_judgingtask task
    WHERE task.annotator_id = ANY(%(judges)s) AND task.state IN ('open', 'leased')
)
SELECT ended.candidate_id, asked.annotator_id, count(*), sum(CASE WHEN asked.swapped = ended.is_b THEN 1 ELSE -1 END)
FROM unnest(%(candidates)s::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT id AS pair_id, a_id AS candidate_id, false AS is_b FROM labeling_pair WHERE a_id = wanted.id
    UNION ALL
    SELECT id, b_id, true FROM labeling_pair WHERE b_id = wanted.id
) ended
JOIN asked USING (pair_id)
GROUP BY ended.candidate_id, asked.annotator_id
"""


def seen_candidates(candidates: IntArray, judges: Sequence[int]) -> SeenCandidates:
    """Questions to these judges about these candidates (ids, distinct), answered or queued, and their strengths."""
    row_of = {candidate: row for row, candidate in enumerate(candidates.tolist())}
    column_of = {judge: column for column, judge in enumerate(judges)}
    seen = SeenCandidates.none(len(candidates), len(judges))
    scores = Score.objects.filter(candidate__in=list(row_of), comparisons__gt=0)
    for candidate, theta in scores.values_list("pk", "theta"):
        seen.theta[row_of[candidate]] = theta
    with connection.cursor() as cursor:
        cursor.execute(_SEEN, {"judges": list(judges), "candidates": list(row_of)})
        for candidate, judge, count, balance in cursor.fetchall():
            seen.votes[row_of[candidate], column_of[judge]] = count
            seen.first[row_of[candidate], column_of[judge]] = balance
    return seen
