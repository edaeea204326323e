"""Draws the cross-query pairs of stage 6. Writes nothing.

The sampler (a plugin with `across_queries`) draws a graph of the project's rated queries; the candidates
of each edge come from the middle of their queries. `workers.runs.planning` creates rows and tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labeling.plugins import Sampler
from labeling.records import FloatArray, IntArray, QueryState
from scoring.calibration.data import Strengths, read_strengths
from scoring.columns import copy_columns
from scoring.models import QueryFit
from scoring.numerics.calibration.calibration import MIDDLE


def is_across(sampler: Sampler) -> bool:
    """Return whether a sampler draws pairs of queries instead of pairs of candidates."""
    return bool(getattr(sampler, "across_queries", False))


def are_linkable(project_id: int, query_ids: Sequence[int] | None = None) -> bool:
    """Return whether at least two of the given queries are rated."""
    rated = QueryFit.objects.filter(query__project_id=project_id, judgments__gt=0)
    if query_ids is not None:
        rated = rated.filter(query_id__in=query_ids)
    return len(rated.values_list("query_id")[:2]) == 2


def _linkable(strengths: Strengths, query_ids: Sequence[int] | None) -> Strengths:
    """The compared candidates of the wanted queries."""
    kept = strengths.compared.copy()
    if query_ids is not None:
        kept &= np.isin(strengths.query_ids, np.asarray(query_ids, dtype=np.int64))[strengths.owner]
    owner = strengths.owner[kept]
    left, starts = np.unique(owner, return_index=True)
    return Strengths(
        query_ids=strengths.query_ids[left],
        names=strengths.names[left],
        starts=np.append(starts, len(owner)).astype(np.int64),
        candidate_ids=strengths.candidate_ids[kept],
        logits=strengths.logits[kept],
        compared=strengths.compared[kept],
        thresholds=strengths.thresholds[left],
    )


_DRAWN = """
SELECT DISTINCT LEAST(a.query_id, b.query_id), GREATEST(a.query_id, b.query_id)
FROM labeling_pair pair
JOIN labeling_candidate a ON a.id = pair.a_id JOIN labeling_candidate b ON b.id = pair.b_id
JOIN labeling_query query ON query.id = a.query_id
WHERE pair.query_id IS NULL AND query.project_id = %s AND a.query_id <> b.query_id AND (pair.id = ANY(%s) OR EXISTS (
    SELECT 1 FROM labeling_live_judgment judgment WHERE judgment.pair_id = pair.id))
"""


def sample_cross_pairs(
    project_id: int,
    sampler: Sampler,
    *,
    budget: int,
    seed: int,
    round_number: int,
    query_ids: Sequence[int] | None = None,
    pending: Sequence[int] = (),
) -> IntArray:
    """Return the next cross-query pairs as candidate ids int64[m, 2], a < b; empty when complete.

    Two queries count as joined if one of their pairs was answered or is in `pending`.
    """
    nodes = _linkable(read_strengths(project_id), query_ids)
    if len(nodes.query_ids) < 2:
        return np.empty((0, 2), dtype=np.int64)
    rng = np.random.default_rng([seed, round_number])
    by_name = np.argsort(nodes.names, kind="stable")  # the texts decide the draw, not the order of import
    state = QueryState(
        size=len(nodes.query_ids),
        pairs=_sorted(np.argsort(by_name)[_drawn_edges(project_id, nodes.query_ids, pending)]),
        first_stage_rank=np.zeros(len(nodes.query_ids), dtype=np.int64),
    )
    edges = sampler.sample(state, budget, rng)
    if not len(edges):
        return np.empty((0, 2), dtype=np.int64)
    chosen = middle_candidates(nodes.logits, nodes.starts, by_name[edges].ravel(), rng).reshape(-1, 2)
    return np.sort(nodes.candidate_ids[chosen], axis=1)


def middle_candidates(logits: FloatArray, starts: IntArray, queries: IntArray, rng: np.random.Generator) -> IntArray:
    """Return a random candidate of middle strength for each entry of `queries`, as an index into logits."""
    sizes = np.diff(starts)
    ranked = np.lexsort((logits, np.repeat(np.arange(len(sizes)), sizes)))
    last = sizes[queries] - 1
    low, high = np.floor(MIDDLE[0] * last).astype(np.int64), np.ceil(MIDDLE[1] * last).astype(np.int64)
    return np.asarray(ranked[starts[queries] + rng.integers(low, high + 1)])


def _sorted(edges: IntArray) -> IntArray:
    """The edges with a < b, in order."""
    ends = np.sort(edges.reshape(-1, 2), axis=1)
    return ends[np.lexsort((ends[:, 1], ends[:, 0]))]


def _drawn_edges(project_id: int, nodes: IntArray, pending: Sequence[int]) -> IntArray:
    rows = copy_columns(_DRAWN, [project_id, list(pending)], [("a", "i8"), ("b", "i8")])
    a, b = rows["a"].astype(np.int64), rows["b"].astype(np.int64)
    known = np.isin(a, nodes) & np.isin(b, nodes)
    return np.stack([np.searchsorted(nodes, a[known]), np.searchsorted(nodes, b[known])], axis=1).astype(np.int64)
