"""Stage 3: draws the next pairs of queries from their current state. Writes nothing.

Reads the state that samplers (plugins, see `scoring.sampling.samplers`) get. Its answers leave out the same position biases as the
scores. `workers.runs.advancing` creates rows and tasks for the drawn pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from django.db import connection
from django.db.models import BigIntegerField, F, Func, Value

from labeling.models import Query
from labeling.plugins import Sampler
from labeling.records import BoolArray, IntArray, QueryState
from scoring.columns import CALL_WEIGHT, copy_columns
from scoring.numerics.design.sets import pack_sets, within_budget
from scoring.preferences import preference_without_bias
from scoring.same_texts import same_texts


@dataclass(frozen=True, slots=True)
class CandidateState:
    """A sampler's state with the primary keys of its local indices, int64[size]; of candidates with one text the first.

    The texts decide the order of local indices and `seed`, so that the same data gives the same draws in every database.
    """

    candidate_ids: IntArray
    state: QueryState
    seed: int


_CANDIDATES = """
SELECT candidate.query_id, candidate.id, COALESCE(candidate.first_stage_rank, 0)::bigint,
       COALESCE(score.theta, 'NaN'::float8)
FROM labeling_candidate candidate JOIN labeling_document document ON document.id = candidate.document_id
LEFT JOIN scoring_score score ON score.candidate_id = candidate.id
WHERE candidate.query_id = ANY(%s) ORDER BY candidate.query_id, document.text_hash, document.external_id COLLATE "C"
"""

_SEEDS = "SELECT id, hashtextextended(text, 0) & 9223372036854775807 FROM labeling_query WHERE id = ANY(%s)"

_PAIRS = """
SELECT pair.query_id, pair.a_id, pair.b_id, vote.weight, COALESCE(vote.mean, 'NaN'::float8)
FROM labeling_pair pair CROSS JOIN LATERAL (
    SELECT COALESCE(sum(answers), 0) AS answers, COALESCE(sum(weight), 0.0)::float8 AS weight,
           sum(total) / NULLIF(sum(preferences), 0) AS mean
    FROM (
        SELECT count(*) AS answers, max({weight}) FILTER (WHERE kind = 'preference') AS weight,
               sum({preference}) AS total, count(preference) AS preferences
        FROM labeling_live_judgment answer
        LEFT JOIN scoring_judgefit measured ON measured.annotator_id = answer.annotator_id AND answer.call IS NOT NULL
        WHERE answer.pair_id = pair.id GROUP BY answer.annotator_id
    ) of_judge
) vote
WHERE pair.query_id = ANY(%s) AND (vote.answers > 0 OR pair.id = ANY(%s)) ORDER BY pair.query_id, pair.id
"""

# As above, where the answers of some annotators only guide: each counts as its weight, and does not make a pair drawn.
_GUIDED_PAIRS = """
SELECT pair.query_id, pair.a_id, pair.b_id, vote.weight::float8, COALESCE(vote.mean, 'NaN'::float8),
       (vote.asked = 0 AND pair.id <> ALL(%s::bigint[]))
FROM labeling_pair pair CROSS JOIN LATERAL (
    SELECT count(*) AS answers, count(*) FILTER (WHERE own.guide IS NULL) AS asked,
           COALESCE(sum(COALESCE(own.guide, 1.0)) FILTER (WHERE own.mean IS NOT NULL), 0.0) AS weight,
           sum(own.mean * COALESCE(own.guide, 1.0))
               / NULLIF(sum(COALESCE(own.guide, 1.0)) FILTER (WHERE own.mean IS NOT NULL), 0.0) AS mean
    FROM (
        SELECT avg({preference}) AS mean, max(term.weight) AS guide FROM labeling_live_judgment answer
        LEFT JOIN unnest(%s::bigint[], %s::float8[]) AS term (guiding, weight) ON term.guiding = annotator_id
        WHERE pair_id = pair.id GROUP BY annotator_id
    ) own
) vote
WHERE pair.query_id = ANY(%s) AND (vote.answers > 0 OR pair.id = ANY(%s)) ORDER BY pair.query_id, pair.id
"""
_PAIR_FIELDS = [("query", "i8"), ("a", "i8"), ("b", "i8"), ("weight", "f8"), ("mean", "f8")]

_FITS = "SELECT query_id, prior_precision, logit_scale FROM scoring_queryfit WHERE query_id = ANY(%s)"


def query_states(
    query_ids: Sequence[int],
    *,
    pending: Sequence[int] = (),
    guides: Mapping[int, float] | None = None,
    recorded: Mapping[int, IntArray] | None = None,
) -> dict[int, CandidateState]:
    """Return the state of each query by id.

    A pair counts as drawn if it has an answer or is in `pending` (ids of queued pairs), so that pairs of a cancelled
    run may be drawn again. `guides`: annotators whose answers inform with this weight, but leave a pair free to be drawn.
    `recorded`: candidate ids int64[r, 2] of the recorded pairs by query.
    """
    ids = [list(query_ids)]
    candidates = copy_columns(_CANDIDATES, ids, [("query", "i8"), ("id", "i8"), ("rank", "i8"), ("theta", "f8")])
    waiting = list(pending)
    preference, biases = preference_without_bias(query_ids)
    if guides:
        parameters = [waiting, *biases, list(guides), list(guides.values()), *ids, waiting]
        pairs = copy_columns(_GUIDED_PAIRS.format(preference=preference), parameters, [*_PAIR_FIELDS, ("free", "b1")])
    else:
        pairs = copy_columns(
            _PAIRS.format(preference=preference, weight=CALL_WEIGHT), [*biases, *ids, waiting], _PAIR_FIELDS
        )
    fits = {
        int(row["query"]): row for row in copy_columns(_FITS, ids, [("query", "i8"), ("prior", "f8"), ("scale", "f8")])
    }
    seeds = {int(row["id"]): int(row["seed"]) for row in copy_columns(_SEEDS, ids, [("id", "i8"), ("seed", "i8")])}
    repeated = same_texts(query_ids)
    candidates = candidates[~np.isin(candidates["id"].astype(np.int64), repeated[:, 1])]
    known, states = recorded or {}, {}
    for query in query_ids:
        own, same = pairs[pairs["query"] == query], repeated[repeated[:, 0] == query, 1:]
        drawn = _distinct(own, same) if len(same) else own
        mine = candidates[candidates["query"] == query]
        states[query] = _state(mine, drawn, fits.get(query), known.get(query), seed=seeds.get(query, 0))
    return states


def _distinct(pairs: np.ndarray, same: IntArray) -> np.ndarray:
    """The pairs of a query over distinct texts; `same` int64[r, 2]: candidates and the first one with their text.

    Pairs that become one have their weights added, and the mean of their preferences.
    """
    first = dict(same.tolist())
    found: dict[tuple[int, int], np.void] = {}
    for row in pairs:
        a, b = (first.get(each, each) for each in (int(row["a"]), int(row["b"])))
        if a == b:
            continue
        new = row.copy()
        new["a"], new["b"] = min(a, b), max(a, b)
        if a > b:
            new["mean"] = 1.0 - new["mean"]
        known = found.get((int(new["a"]), int(new["b"])))
        found[int(new["a"]), int(new["b"])] = new if known is None else _joined(known, new)
    return np.array([found[key] for key in sorted(found)], dtype=pairs.dtype)


def _joined(one: np.void, other: np.void) -> np.void:
    joined = one.copy()
    weights = np.array([one["weight"], other["weight"]], dtype=np.float64)
    means = np.array([one["mean"], other["mean"]], dtype=np.float64)
    known = np.isfinite(means) & (weights > 0.0)
    joined["weight"] = weights.sum()
    joined["mean"] = np.average(means[known], weights=weights[known]) if known.any() else np.nan
    if "free" in (one.dtype.names or ()):
        joined["free"] = bool(one["free"] and other["free"])
    return joined


def _state(
    mine: np.ndarray, drawn: np.ndarray, fit: np.void | None, recorded: IntArray | None, *, seed: int
) -> CandidateState:
    ids = mine["id"].astype(np.int64)
    local, turned = _local(ids, np.stack([drawn["a"], drawn["b"]], axis=1).astype(np.int64))
    order = np.lexsort((local[:, 1], local[:, 0]))
    mean = drawn["mean"].astype(np.float64)
    preference = np.where(turned, 1.0 - mean, mean)
    theta = mine["theta"].astype(np.float64)
    rated = fit is not None and bool(np.isfinite(theta).all())
    known = {"prior_precision": float(fit["prior"]), "logit_scale": float(fit["scale"])} if fit is not None else {}
    state = QueryState(
        size=len(ids),
        pairs=local[order],
        first_stage_rank=mine["rank"].astype(np.int64),
        theta=theta if rated else None,
        preference=preference[order],
        weight=drawn["weight"].astype(np.float64)[order],
        free=drawn["free"].astype(np.bool_)[order] if "free" in (drawn.dtype.names or ()) else None,
        recorded=None if recorded is None else _recorded(ids, recorded),
        **known,
    )
    return CandidateState(candidate_ids=ids, state=state, seed=seed)


def _local(ids: IntArray, pairs: IntArray) -> tuple[IntArray, BoolArray]:
    """Pairs of candidate ids as local indices a < b, int64[m, 2], and whether their sides were exchanged, bool[m]."""
    order = np.argsort(ids, kind="stable")
    local = order[np.searchsorted(ids, pairs, sorter=order)].astype(np.int64).reshape(-1, 2)
    return np.sort(local, axis=1), local[:, 0] > local[:, 1]


def _recorded(ids: IntArray, recorded: IntArray) -> IntArray:
    """Recorded pairs as local indices, without those of candidates that repeat another one's text."""
    return _local(ids, recorded[np.isin(recorded, ids).all(axis=1)])[0]


def sample_pairs(
    query_ids: Sequence[int],
    sampler: Sampler,
    *,
    budgets: Mapping[int, int],
    seed: int,
    round_number: int,
    pending: Sequence[int] = (),
    guides: Mapping[int, float] | None = None,
    recorded: Mapping[int, IntArray] | None = None,
) -> dict[int, IntArray]:
    """Return the next pairs of each query as candidate ids int64[m, 2], a < b, without queries that need none.

    The draw depends only on the query's state, seed and round, so that a repeat draws the same pairs.
    `pending`, `guides`, `recorded`: see `query_states`.
    """
    drawn: dict[int, IntArray] = {}
    for query, known in query_states(query_ids, pending=pending, guides=guides, recorded=recorded).items():
        rng = np.random.default_rng([seed, round_number, known.seed])
        pairs = sampler.sample(known.state, budgets[query], rng)
        if len(pairs):
            drawn[query] = np.sort(known.candidate_ids[pairs], axis=1)
    return drawn


def sample_sets(
    query_ids: Sequence[int],
    sampler: Sampler,
    *,
    set_size: int,
    budgets: Mapping[int, int],
    seed: int,
    round_number: int,
    pending: Sequence[int] = (),
) -> dict[int, IntArray]:
    """As `sample_pairs`, for judges that read `set_size` documents in a call: sets of candidate ids int64[m, set_size].

    -1 stands behind the last document of a smaller set. A sampler that chooses no sets has its pairs joined to sets.
    """
    drawn: dict[int, IntArray] = {}
    for query, known in query_states(query_ids, pending=pending).items():
        rng = np.random.default_rng([seed, round_number, known.seed])
        chosen = sampler.sample_sets(known.state, budgets[query], rng, set_size=set_size)
        if chosen is None:
            rng = np.random.default_rng([seed, round_number, known.seed])
            chosen = pack_sets(sampler.sample(known.state, budgets[query], rng), set_size)
            chosen = within_budget(chosen, budgets[query])
        if len(chosen):
            drawn[query] = np.where(chosen >= 0, known.candidate_ids[chosen], -1)
    return drawn


# Two candidates of each query are looked up; counting them would read every candidate of the project.
_COMPARABLE = """
SELECT query.id FROM labeling_query query
WHERE query.project_id = %(project)s AND query.excluded_at IS NULL AND query.id > %(after)s
  AND (%(queries)s::bigint[] IS NULL OR query.id = ANY(%(queries)s))
  AND EXISTS (SELECT 1 FROM labeling_candidate candidate WHERE candidate.query_id = query.id OFFSET 1)
ORDER BY query.id LIMIT %(most)s
"""


def sampled_queries(query_ids: Collection[int], most: int) -> list[int]:
    """Return at most `most` of the queries, drawn by their texts, in id order."""
    place = Func(F("text"), Value(0), function="hashtextextended", output_field=BigIntegerField())
    rows = Query.objects.filter(pk__in=query_ids).order_by(place, "pk").values_list("pk", flat=True)
    return sorted(rows[:most])


def comparable_query_ids(
    project_id: int, query_ids: Sequence[int] | None = None, *, after: int = 0, most: int | None = None
) -> list[int]:
    """Return the queries with at least two candidates that are not excluded, in id order: at most `most`, those behind the id `after`."""
    chosen = None if query_ids is None else list(query_ids)
    with connection.cursor() as cursor:
        cursor.execute(_COMPARABLE, {"project": project_id, "queries": chosen, "after": after, "most": most})
        return [row[0] for row in cursor.fetchall()]
