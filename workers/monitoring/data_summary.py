"""Counts over all rows of a project: its texts and grades by domain, its answers by kind, and the distribution of Elo.

Each reads every row, so pages and reports show the stored figure (`workers.monitoring.project_figures`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import Count

from labeling.models import Project, Query
from scoring.models import Score

ELO_COLUMNS = 32
FEW_COMPARISONS = 4


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """The queries, candidates, grades and scores of one domain."""

    domain: str
    queries: int
    candidates: int
    graded: int
    queries_graded: int
    rated: int


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """The live answers of all people, or of all judges: by kind, on `pairs` distinct pairs, from `first` to `last`."""

    by_person: bool
    preferences: int
    both_irrelevant: int
    cannot_judge: int
    pairs: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class EloHistogram:
    """The number of rated candidates in each of ELO_COLUMNS equal spans from `low` to `high`; without candidates no counts."""

    low: float
    high: float
    counts: tuple[int, ...]


_DOMAINS = """
SELECT query.domain, count(DISTINCT query.id), count(candidate.id), count(candidate.grade),
       count(DISTINCT query.id) FILTER (WHERE candidate.grade IS NOT NULL),
       count(score.candidate_id) FILTER (WHERE score.comparisons > 0)
FROM labeling_query query LEFT JOIN labeling_candidate candidate ON candidate.query_id = query.id
LEFT JOIN scoring_score score ON score.candidate_id = candidate.id
WHERE query.project_id = %s GROUP BY 1 ORDER BY 1
"""

_ANSWERS = """
SELECT answer.by_person, count(*) FILTER (WHERE answer.kind = 'preference'),
       count(*) FILTER (WHERE answer.kind = 'both_irrelevant'), count(*) FILTER (WHERE answer.kind = 'cannot_judge'),
       count(DISTINCT answer.pair_id), min(answer.created_at), max(answer.created_at)
FROM labeling_live_judgment answer JOIN labeling_annotator annotator ON annotator.id = answer.annotator_id
WHERE annotator.project_id = %s GROUP BY 1 ORDER BY 1
"""

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


def domain_counts(project: Project) -> list[DomainCounts]:
    """Return the counts of each domain, in order."""
    with connection.cursor() as cursor:
        cursor.execute(_DOMAINS, [project.pk])
        return [DomainCounts(*row) for row in cursor.fetchall()]


def answer_counts(project: Project) -> list[AnswerCounts]:
    """Return the counts of the judges and of the people who have answered."""
    with connection.cursor() as cursor:
        cursor.execute(_ANSWERS, [project.pk])
        return [AnswerCounts(*row) for row in cursor.fetchall()]


def elo_histogram(project: Project) -> EloHistogram:
    """Return the distribution of Elo over all rated candidates."""
    with connection.cursor() as cursor:
        cursor.execute(_HISTOGRAM, {"project": project.pk, "columns": ELO_COLUMNS})
        rows = cursor.fetchall()
    if not rows:
        return EloHistogram(0.0, 0.0, ())
    counts = [0] * ELO_COLUMNS
    for _, _, bucket, number in rows:
        counts[min(bucket, ELO_COLUMNS) - 1] += number
    return EloHistogram(rows[0][0], rows[0][1], tuple(counts))


_SIZES = """
SELECT size, count(*) FROM (
    SELECT count(*) AS size FROM labeling_candidate candidate
    JOIN labeling_query query ON query.id = candidate.query_id
    JOIN scoring_queryfit fit ON fit.query_id = query.id
    WHERE query.project_id = %s AND fit.judgments > 0 GROUP BY query.id
) judged GROUP BY size
"""


def judged_sizes(project: Project) -> dict[int, int]:
    """Return the number of judged queries by number of candidates."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZES, [project.pk])
        return dict(cursor.fetchall())


def few_comparisons(project: Project) -> int:
    """Return the number of rated documents with fewer opponents than possible, up to FEW_COMPARISONS; equal texts are one opponent."""
    rated = Score.objects.filter(candidate__query__project=project)
    unsure = rated.filter(comparisons__gt=0, comparisons__lt=FEW_COMPARISONS)
    met = unsure.values("candidate__query", "comparisons").annotate(documents=Count("pk")).order_by()
    sizes = dict(
        Query.objects.filter(pk__in=[each["candidate__query"] for each in met])
        .annotate(texts=Count("candidates__document__text_hash", distinct=True))
        .values_list("pk", "texts")
    )
    return sum(each["documents"] for each in met if each["comparisons"] < sizes[each["candidate__query"]] - 1)
