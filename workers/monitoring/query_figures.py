"""Measures the figures of queries by which their list is sorted, those of changed queries alone.

The list of queries asks for it: a few stale queries are measured in the request, many by the task `measure`. Nobody
measures while nobody looks, because the certainty of ten thousand queries takes minutes of a core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models.functions import Now

from labeling.models import Project, Query
from scoring.models import QueryFit, Score
from scoring.quality import graded_queries, ndcg_of_queries
from scoring.sampling.certainty import top_certainty
from trainer.evaluation.rank_changes import student_gains
from workers.broker.hints import leave_hint
from workers.models import CertaintyPoint

AT_ONCE = 50
NOTED_EVERY = timedelta(seconds=15)
NOTED_QUERIES = 20

# Grades come by imports, gains by evaluations; both change figures of queries whose fit stays.
_STALE = """
SELECT fit.query_id FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
LEFT JOIN workers_queryfigures known ON known.query_id = fit.query_id
WHERE query.project_id = %(project)s AND fit.judgments > 0 AND (
    known.query_id IS NULL OR known.fitted_at < fit.fitted_at OR known.measured_at < GREATEST(
        (SELECT max(created_at) FROM labeling_datasetimport WHERE project_id = %(project)s),
        (SELECT max(created_at) FROM trainer_evaluation WHERE project_id = %(project)s)))
ORDER BY known.measured_at NULLS FIRST, fit.query_id LIMIT %(limit)s
"""


def stale_queries(project_id: int, *, limit: int | None = None) -> list[int]:
    """Return the queries with scores whose figures are missing or older than their fit, the oldest first."""
    return [row[0] for row in _rows(_STALE, {"project": project_id, "limit": limit})]


def refresh_some(project: Project) -> int:
    """Measure the stale queries now if they are few, otherwise send a hint; return how many remain, at most 51."""
    stale = stale_queries(project.pk, limit=AT_ONCE + 1)
    if len(stale) > AT_ONCE:
        leave_hint("measure", project.pk)
        return len(stale)
    if stale:
        measure_queries(project, stale)
    return 0


def measure_stale(project_id: int, *, slice_s: float = math.inf) -> bool:
    """Measure stale queries for about `slice_s` seconds; return whether some are left."""
    project = Project.objects.filter(pk=project_id).first()
    if project is None:
        return False
    deadline = time.monotonic() + slice_s
    shares, gains = spend_per_answer(project_id), student_gains(project)
    while stale := stale_queries(project_id, limit=AT_ONCE):
        measure_queries(project, stale, shares=shares, gains=gains)
        if time.monotonic() > deadline:
            return True
    return False


def measure_queries(
    project: Project,
    query_ids: Sequence[int],
    *,
    shares: Mapping[int, float] | None = None,
    gains: Mapping[str, float] | None = None,
) -> None:
    """Store the figures of these queries, which have fits. `shares`: millionths of a dollar an answer, by judge."""
    shares = spend_per_answer(project.pk) if shares is None else shares
    gains = student_gains(project) if gains is None else gains
    fitted = dict(QueryFit.objects.filter(query__in=query_ids).values_list("query_id", "fitted_at"))
    ids = sorted(fitted)
    elo = dict(Score.objects.filter(candidate__query__in=ids, comparisons__gt=0).values_list("candidate_id", "elo"))
    graded = graded_queries(project.pk, among=ids)
    ndcg = dict(zip((each.query_id for each in graded), ndcg_of_queries(elo, graded), strict=True))
    spread, spend = _votes(ids, shares)
    names = dict(Query.objects.filter(pk__in=ids).values_list("id", "external_id"))
    certainty = top_certainty(ids)
    columns = (ndcg, certainty, spread, spend, {pk: gains[name] for pk, name in names.items() if name in gains})
    _store(ids, columns, fitted)


_SPEND = """
SELECT spend.annotator_id, sum(spend.cost_micros)::float8 / GREATEST(1, (
    SELECT count(*) FROM labeling_judgment answer WHERE answer.annotator_id = spend.annotator_id))
FROM workers_spend spend JOIN workers_run run ON run.id = spend.run_id
WHERE run.project_id = %(project)s AND (%(judge)s::bigint IS NULL OR spend.annotator_id = %(judge)s)
GROUP BY spend.annotator_id HAVING sum(spend.cost_micros) > 0
"""


def spend_per_answer(project_id: int, *, judge: int | None = None) -> dict[int, float]:
    """Return what an answer of each judge, or of one, has cost on average, failed calls included."""
    return dict(_rows(_SPEND, {"project": project_id, "judge": judge}))


_VOTES = """
WITH votes AS (
    SELECT pair.query_id, pair.id AS pair_id, answer.annotator_id, count(*) AS answers, avg(answer.preference) AS p
    FROM labeling_pair pair JOIN labeling_live_judgment answer ON answer.pair_id = pair.id
    WHERE pair.query_id = ANY(%(queries)s) AND NOT answer.by_person GROUP BY 1, 2, 3
)
SELECT query_id, NULL::bigint, avg(spread) FROM (
    SELECT query_id, max(p) - min(p) AS spread FROM votes WHERE p IS NOT NULL GROUP BY query_id, pair_id HAVING count(*) > 1
) of_pair GROUP BY query_id
UNION ALL
SELECT query_id, annotator_id, sum(answers)::float8 FROM votes GROUP BY query_id, annotator_id
"""


def _votes(query_ids: Sequence[int], shares: Mapping[int, float]) -> tuple[dict[int, float], dict[int, int]]:
    """Return disagreement and spend by query."""
    spread: dict[int, float] = {}
    spend: dict[int, float] = {}
    for query, annotator, value in _rows(_VOTES, {"queries": list(query_ids)}):
        if annotator is None:
            spread[query] = value
        else:
            spend[query] = spend.get(query, 0.0) + value * shares.get(annotator, 0.0)
    return spread, {query: round(micros) for query, micros in spend.items()}


_STORE = """
INSERT INTO workers_queryfigures (query_id, ndcg, certainty, disagreement, spend_micros, gain, fitted_at, measured_at)
SELECT figures.query_id, ndcg, certainty, disagreement, COALESCE(spend, 0), gain, fitted_at, clock_timestamp()
FROM unnest(%s::bigint[], %s::float8[], %s::float8[], %s::float8[], %s::bigint[], %s::float8[], %s::timestamptz[])
    AS figures (query_id, ndcg, certainty, disagreement, spend, gain, fitted_at)
JOIN labeling_query query ON query.id = figures.query_id ORDER BY figures.query_id
ON CONFLICT (query_id) DO UPDATE SET ndcg = EXCLUDED.ndcg, certainty = EXCLUDED.certainty,
    disagreement = EXCLUDED.disagreement, spend_micros = EXCLUDED.spend_micros, gain = EXCLUDED.gain,
    fitted_at = EXCLUDED.fitted_at, measured_at = EXCLUDED.measured_at
"""


def _store(ids: Sequence[int], columns: Sequence[Mapping[int, Any]], fitted: Mapping[int, datetime]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            _STORE, [list(ids), *([each.get(query) for query in ids] for each in columns), [fitted[q] for q in ids]]
        )


# --- certainty over time --------------------------------------------------------------------


def note_certainty(project_id: int) -> None:
    """Store a point of the project's certainty, at most one in NOTED_EVERY; few queries, because the rating worker waits."""
    recent = CertaintyPoint.objects.filter(project=project_id, at__gt=Now() - NOTED_EVERY)
    if recent.exists() or not Project.objects.filter(pk=project_id).exists():
        return
    fits = QueryFit.objects.filter(query__project=project_id, judgments__gt=0).order_by("query_id")
    ids = list(fits.values_list("query_id", flat=True))
    chosen = ids[:: max(1, -(-len(ids) // NOTED_QUERIES))]
    found = list(top_certainty(chosen).values())
    if found:
        CertaintyPoint.objects.create(
            project_id=project_id, certainty=sum(found) / len(found), lowest=min(found), queries=len(found)
        )


def _rows(statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
