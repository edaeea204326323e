"""Measures how well rankings agree with human grades: first stage, each judge alone, Elo; with intervals.

Reads grades, which no judge may see. The terminal's final table, the pages and the REST interface use
it. Metrics come from `scoring.numerics`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from labeling.models import Annotator, Candidate, Project
from labeling.plugins import Rater, get_plugin
from labeling.records import FloatArray, IntArray
from labeling.stored_texts import stored_text
from scoring.columns import copy_columns, only_votes, read_columns
from scoring.numerics.measures.rankings import Measure, Ranked, ranks_of
from scoring.numerics.measures.resampling import Interval, bootstrap_interval
from scoring.project_fits import stored_terms
from scoring.raters import rate
from scoring.same_texts import distinct, expanded
from scoring.sampling.draw import sampled_queries

log = logging.getLogger(__name__)

Orders = dict[str, FloatArray]
LEAST_RANKED = 0.5
FIRST_STAGE, JUDGE_ORDER = stored_text("first stage"), stored_text("judge %(name)s")


@dataclass(frozen=True, slots=True)
class GradedQuery:
    """One query with at least one positive grade.

    Arrays contain its candidates in id order, after graded documents that are not candidates (id 0); an ungraded candidate
    counts as grade 0. `places` order the candidates by
    the imported document id, which breaks ties.
    """

    query_id: int
    candidate_ids: IntArray
    grades: IntArray
    places: IntArray


@dataclass(frozen=True, slots=True)
class Quality:
    """NDCG@k (linear gain) of one ranking: mean over `queries` with its bootstrap interval.

    `is_person`: `order` is a person's name, which is not translated. `of_queries`: the project's queries with a positive
    grade; 0 in figures that an earlier version stored.
    """

    order: str
    ndcg: Interval
    queries: int
    is_person: bool = False
    of_queries: int = 0


# Documents that are no candidates have the id 0: relevant or not, they are never retrieved.
_GRADED = """
WITH graded AS (
    SELECT query.id AS query_id, 0::bigint AS id, kept.grade, kept.document_external_id AS name
    FROM labeling_unmatchedgrade kept JOIN labeling_query query
        ON query.project_id = kept.project_id AND query.external_id = kept.query_external_id
    WHERE kept.project_id = %s AND (%s::bigint[] IS NULL OR query.id = ANY(%s))
    UNION ALL
    SELECT query.id, candidate.id, candidate.grade, document.external_id
    FROM labeling_query query JOIN labeling_candidate candidate ON candidate.query_id = query.id
    JOIN labeling_document document ON document.id = candidate.document_id
    WHERE query.project_id = %s AND (%s::bigint[] IS NULL OR query.id = ANY(%s))
)
SELECT query_id, id, COALESCE(grade, 0)::bigint,
    row_number() OVER (PARTITION BY query_id ORDER BY name COLLATE "C")
FROM graded WHERE query_id IN (
    SELECT query_id FROM graded GROUP BY query_id HAVING max(grade) > 0 AND max(id) > 0
) ORDER BY query_id, id
"""


def graded_queries(project_id: int, *, among: Sequence[int] | None = None) -> list[GradedQuery]:
    """Return the queries of a project (of `among`, if given) with positive grades, in id order."""
    wanted = None if among is None else list(among)
    rows = copy_columns(
        _GRADED,
        [project_id, wanted, wanted, project_id, wanted, wanted],
        [("query", "i8"), ("id", "i8"), ("grade", "i8"), ("place", "i8")],
    )
    queries, starts = np.unique(rows["query"].astype(np.int64), return_index=True)
    parts = np.split(rows, starts[1:]) if len(queries) else []
    return [
        GradedQuery(int(query), *(mine[name].astype(np.int64) for name in ("id", "grade", "place")))
        for query, mine in zip(queries, parts, strict=True)
    ]


def graded_with_elo(project: Project, *, most: int) -> list[GradedQuery]:
    """Return at most `most` graded queries of which some candidate has an Elo, drawn by their texts, in id order."""
    compared = Candidate.objects.filter(query__project=project, score__comparisons__gt=0)
    found = graded_queries(project.pk, among=list(compared.values_list("query_id", flat=True).distinct()))
    drawn = set(sampled_queries([each.query_id for each in found], most))
    return [each for each in found if each.query_id in drawn]


def ranking_quality(project: Project, *, k: int = 10) -> list[Quality]:
    """Return NDCG@k of the first stage, of each annotator alone and of Elo; empty without grades.

    Once there is an Elo, all rankings are measured on the graded queries that have one: a run may ask about a few queries,
    and the others say nothing of its answers. As on the leaderboard, queries that a ranking lacks are left out of its mean.
    Leaves out annotators who ranked fewer than half of these queries' documents with an Elo, since ties would decide
    most of their ranking.
    """
    whole = graded_queries(project.pk)
    if not whole:
        return []
    first_stage, elo = _first_stage(project), _elo(project)
    graded = _ranked(elo, whole) or whole
    annotators = judge_orders(project, [query.query_id for query in graded])
    people = set(Annotator.objects.filter(project=project, is_person=True).values_list("name", flat=True))
    rated = elo.keys() & set(np.concatenate([query.candidate_ids for query in graded]).tolist())
    kept = [(name, own, name in people) for name, own in annotators.items() if len(own) >= LEAST_RANKED * len(rated)]
    found = []
    for name, scores, is_person in [(FIRST_STAGE, first_stage, False), *kept, ("Elo", elo, False)]:
        ranked = _ranked(scores, graded)
        if ranked:
            row = measure(name, scores, ranked, k=k)
            found.append(replace(row, is_person=is_person, of_queries=len(whole)))
    return found


def _ranked(scores: Mapping[int, float], graded: list[GradedQuery]) -> list[GradedQuery]:
    return [query for query in graded if not scores.keys().isdisjoint(query.candidate_ids.tolist())]


def measure(name: str, scores: Mapping[int, float], graded: list[GradedQuery], *, k: int = 10) -> Quality:
    """Return NDCG@k of scores by candidate id; a candidate without a score is not retrieved, ties go by document id."""
    values = ndcg_of_queries(scores, graded, k=k)
    return Quality(order=name, ndcg=bootstrap_interval(values, rng=np.random.default_rng(0)), queries=len(values))


def ndcg_of_queries(scores: Mapping[int, float], graded: list[GradedQuery], *, k: int = 10) -> list[float]:
    """Return NDCG@k of each query, as `measure` does for their mean."""
    wanted = Measure("ndcg", k)
    values = []
    for query in graded:
        own = np.array([scores.get(each, np.nan) for each in query.candidate_ids.tolist()], dtype=np.float64)
        values.append(wanted.of(Ranked.of_grades(ranks_of(own, query.places.tolist()), query.grades)))
    return values


def _first_stage(project: Project) -> dict[int, float]:
    rows = Candidate.objects.filter(query__project=project, first_stage_rank__isnull=False)
    return {pk: -float(rank or 0) for pk, rank in rows.values_list("id", "first_stage_rank")}


def _elo(project: Project) -> dict[int, float]:
    rows = Candidate.objects.filter(query__project=project, score__isnull=False, score__comparisons__gt=0)
    return dict(rows.values_list("id", "score__elo"))


def judge_orders(project: Project, query_ids: list[int]) -> dict[str, Mapping[int, float]]:
    """Return `judge_strengths` by the annotator's name, with the prefix "judge" for models."""
    strengths = judge_strengths(project, query_ids)
    annotators = Annotator.objects.filter(pk__in=list(strengths)).values_list("id", "name", "is_person")
    names = {pk: name if is_person else judge_order(name) for pk, name, is_person in annotators}
    orders: dict[str, Mapping[int, float]] = {}
    for annotator, own in strengths.items():
        orders[_unused(names[annotator], orders)] = own
    return orders


def judge_order(name: str) -> str:
    """Return the name of the ranking by one judge, which distinguishes the judge BM25 from plain BM25."""
    return JUDGE_ORDER % {"name": name}


def judge_strengths(project: Project, query_ids: list[int]) -> dict[int, Mapping[int, float]]:
    """Return strengths by candidate id from the votes of each annotator alone, by annotator id; the same for equal texts.

    Without the position bias that the stored scores leave out. Leaves out annotators whose votes alone cannot be fitted.
    """
    read = read_columns(query_ids)
    one = distinct(read)
    rater = cast(Rater, get_plugin("rater", project.rater).from_dict(project.rater_options))
    terms = {each: [1.0, bias, 1.0] for each, (_, bias, _) in stored_terms(project).items()}
    found: dict[int, Mapping[int, float]] = {}
    for position, annotator in enumerate(read.annotator_ids.tolist()):
        try:
            own = only_votes(one.read, one.read.columns.judge == position)
            fit = expanded(rate(rater, own, terms), one, read)
        except (ValueError, RuntimeError) as error:
            # The pairs of one judge may be disconnected even if those of all judges together are connected.
            log.warning("annotator %d cannot be measured alone: %s", annotator, error)
            continue
        compared = fit.comparisons > 0
        found[annotator] = dict(zip(read.candidate_ids[compared].tolist(), fit.theta[compared].tolist(), strict=True))
    return found


def _unused(name: str, taken: Mapping[str, object]) -> str:
    return name if name not in taken else f"{name} ({sum(each.startswith(name) for each in taken) + 1})"
