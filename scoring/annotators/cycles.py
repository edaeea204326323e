"""Triples of documents in which the panel contradicts itself: a before b, b before c, c before a.

The panel's side on a pair is that of the mean of its judges' answers, both orders of a judge averaged first; ties take no side.
People's answers are left out. Pages and REST list the triples, and the sampler `conflicts` re-asks their pairs in the order of
presentation that is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from labeling.models import Project
from labeling.records import FloatArray, IntArray
from scoring.annotators.counted import UnknownJudge, panel_judges
from scoring.columns import copy_columns
from scoring.numerics.judges.judge_checks import Estimate, cycles_of, intransitive_triples, ratio
from scoring.project_fits import sampled_query_ids

MOST_LISTED = 100


@dataclass(frozen=True, slots=True)
class Cycle:
    """Candidates that the panel orders in a circle: each before the next, the last before the first.

    `preferences`: P(each before the next); `margin`: the distance of the least decided of them from one half.
    """

    query_id: int
    candidate_ids: tuple[int, int, int]
    preferences: tuple[float, float, float]

    @property
    def margin(self) -> float:
        return min(self.preferences) - 0.5


@dataclass(frozen=True, slots=True)
class PanelCycles:
    """Of a sample of rated queries: the panel's `cycles` of `triples` (their `share` has an interval over queries), the clearest
    first. The share of each judge alone is in its scorecard. `problem`: why the panel is unknown, else empty.
    """

    cycles: int
    triples: int
    share: Estimate | None
    listed: tuple[Cycle, ...]
    problem: str = ""


def panel_cycles(project: Project, *, most: int = MOST_LISTED, seed: int = 0) -> PanelCycles:
    """Count and list the circles of the project's judges."""
    try:
        judges = panel_judges(project)
    except UnknownJudge as error:
        return PanelCycles(0, 0, None, (), str(error))
    panel = _panel(_answers(sampled_query_ids(project.pk, seed=seed), judges))
    counts = _counts(panel)
    found = _clearest_first(_cycles(panel))
    return PanelCycles(
        cycles=int(counts[:, 0].sum()),
        triples=int(counts[:, 1].sum()),
        share=ratio(counts[:, 0], counts[:, 1], np.random.default_rng(0)) if counts[:, 1].sum() else None,
        listed=tuple(found[:most]),
    )


def _clearest_first(cycles: Iterable[Cycle]) -> list[Cycle]:
    """The circles by margin; of equal ones each query has its first before any has its second."""
    found = sorted(cycles, key=lambda each: (-each.margin, each.query_id, each.candidate_ids))
    places: Counter[tuple[float, int]] = Counter()
    turns = []
    for each in found:
        turns.append(places[each.margin, each.query_id])
        places[each.margin, each.query_id] += 1
    order = sorted(range(len(found)), key=lambda at: (-found[at].margin, turns[at]))
    return [found[at] for at in order]


def contradicting_pairs(project_id: int, query_ids: Sequence[int]) -> dict[int, IntArray]:
    """Candidate ids int64[m, 2], a < b, of the pairs in the panel's circles, by query. Raises UnknownJudge."""
    judges = panel_judges(Project.objects.get(pk=project_id))
    found: dict[int, set[tuple[int, int]]] = {}
    for each in _cycles(_panel(_answers(query_ids, judges))):
        a, b, c = each.candidate_ids
        own = found.setdefault(each.query_id, set())
        own.update((min(pair), max(pair)) for pair in ((a, b), (b, c), (a, c)))
    return {query: np.array(sorted(pairs), dtype=np.int64) for query, pairs in found.items()}


_ANSWERS = """
SELECT pair.query_id, pair.a_id, pair.b_id, answer.annotator_id, avg(answer.preference)::float8 AS preference
FROM labeling_pair pair JOIN labeling_live_judgment answer ON answer.pair_id = pair.id
WHERE pair.query_id = ANY(%s) AND answer.annotator_id = ANY(%s) AND answer.kind = 'preference'
GROUP BY pair.id, pair.query_id, pair.a_id, pair.b_id, answer.annotator_id
ORDER BY pair.query_id, pair.a_id, pair.b_id, answer.annotator_id
"""


def _answers(query_ids: Sequence[int], judges: Sequence[int]) -> np.ndarray:
    """One row for each judge and pair, in the order of queries and pairs."""
    fields = [(name, "i8") for name in ("query", "a", "b", "annotator")] + [("preference", "f8")]
    return copy_columns(_ANSWERS, [list(query_ids), list(judges)], fields)


def _panel(answers: np.ndarray) -> np.ndarray:
    """One row for each pair, with the mean of its judges."""
    if not len(answers):
        return answers
    first = np.flatnonzero(
        np.append(True, (answers["a"][1:] != answers["a"][:-1]) | (answers["b"][1:] != answers["b"][:-1]))
    )
    panel = answers[first].copy()
    counts = np.diff(np.append(first, len(answers)))
    panel["preference"] = np.add.reduceat(answers["preference"].astype(np.float64), first) / counts
    return panel


def _by_query(rows: np.ndarray) -> list[tuple[int, IntArray, IntArray, FloatArray]]:
    """(query, ids of its candidates, local pairs int64[m, 2], preferences) of each query."""
    found = []
    for part in np.split(rows, np.flatnonzero(np.diff(rows["query"].astype(np.int64))) + 1) if len(rows) else []:
        pairs = np.stack([part["a"], part["b"]], axis=1).astype(np.int64)
        ids, local = np.unique(pairs, return_inverse=True)
        found.append((int(part["query"][0]), ids, local.reshape(-1, 2), part["preference"].astype(np.float64)))
    return found


def _counts(rows: np.ndarray) -> IntArray:
    """(cycles, triples) of each query, int64[q, 2]."""
    counts = [intransitive_triples(pairs[:, 0], pairs[:, 1], own, len(ids)) for _, ids, pairs, own in _by_query(rows)]
    return np.array(counts, dtype=np.int64).reshape(-1, 2)


def _cycles(panel: np.ndarray) -> list[Cycle]:
    return [
        Cycle(query, (int(ids[i]), int(ids[j]), int(ids[k])), preferences)
        for query, ids, pairs, own in _by_query(panel)
        for (i, j, k), preferences in cycles_of(pairs[:, 0], pairs[:, 1], own, len(ids))
    ]
