"""The quality of a pairwise student's answers: log-loss, accuracy, calibration, position bias, cycles.

Pure; `trainer.training.pairwise.held_out` asks the student, `trainer.training.pairwise.gate` compares it. Imports no Django.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, xlogy

from labeling.records import FloatArray, IntArray, PairExamples
from scoring.numerics.measures.resampling import bootstrap_interval

CLEAR = 0.25
BINS = 10
MOST_TRIPLES = 300
# An answer of one half to every pair.
CHANCE = float(np.log(2.0))


@dataclass(frozen=True, slots=True)
class HeldOutPairs:
    """Figures on held-out pairs of `split`.

    `log_loss` in nats, the mean over queries of the mean over their pairs, with its 95 % interval `low` to `high`;
    `panel_entropy`: the log-loss of the panel's own mean, which no answer can be below. `accuracy` over the `clear` pairs, those with |preference - 0.5| > 0.25; None without
    one. `ece`: expected calibration error in ten bins. `position_bias`: mean P(first shown) - 0.5 over both orders; `flips`:
    share of pairs whose side depends on the order. `cycles`: share of `triples` of documents that the student orders in a
    circle, None without a triple.
    """

    split: str
    pairs: int
    queries: int
    log_loss: float
    low: float
    high: float
    panel_entropy: float
    accuracy: float | None
    clear: int
    ece: float
    position_bias: float
    flips: float
    cycles: float | None = None
    triples: int = 0

    @property
    def beats_chance(self) -> bool:
        """Whether the log-loss is below that of answering one half to every pair, by more than chance."""
        return self.high < CHANCE


def symmetric(first: FloatArray, second: FloatArray) -> FloatArray:
    """Logit of a over b from the logits of the document shown first, with a first and with b first; float64[n]."""
    return (first - second) / 2.0


def cross_entropies(logits: FloatArray, preferences: FloatArray) -> FloatArray:
    """-p log s - (1 - p) log(1 - s) with s = sigmoid(logit), float64[n] in nats."""
    return np.asarray(np.logaddexp(0.0, -logits) + (1.0 - preferences) * logits)


def entropies(preferences: FloatArray) -> FloatArray:
    """The same for s = p: what the panel's mean itself costs, float64[n] in nats."""
    return np.asarray(-xlogy(preferences, preferences) - xlogy(1.0 - preferences, 1.0 - preferences))


def calibration_error(probabilities: FloatArray, preferences: FloatArray) -> float:
    """Expected calibration error in ten bins of equal width; each pair counts from both sides."""
    said = np.concatenate([probabilities, 1.0 - probabilities])
    wanted = np.concatenate([preferences, 1.0 - preferences])
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    sums = np.bincount(bins, weights=said - wanted, minlength=BINS)
    return float(np.abs(sums).sum() / len(said))


def cyclic(ab: FloatArray, bc: FloatArray, ca: FloatArray) -> float:
    """Share of triples whose logits all point the same way round."""
    same = (np.sign(ab) == np.sign(bc)) & (np.sign(bc) == np.sign(ca)) & (ab != 0.0)
    return float(same.mean())


def figures(split: str, pairs: PairExamples, first: FloatArray, second: FloatArray) -> HeldOutPairs:
    """The figures of pairs from the logits of both orders, float64[n] each; without cycles."""
    logits = symmetric(first, second)
    losses = cross_entropies(logits, pairs.preferences)
    # Pairs of one query are not independent.
    interval = bootstrap_interval(by_query(losses, pairs.query_ids), rng=np.random.default_rng(0), resamples=2000)
    clear = np.abs(pairs.preferences - 0.5) > CLEAR
    right = np.sign(logits) == np.sign(pairs.preferences - 0.5)
    return HeldOutPairs(
        split=split,
        pairs=len(pairs),
        queries=len(np.unique(pairs.query_ids)),
        log_loss=interval.estimate,
        low=interval.low,
        high=interval.high,
        panel_entropy=float(by_query(entropies(pairs.preferences), pairs.query_ids).mean()),
        accuracy=float(right[clear].mean()) if clear.any() else None,
        clear=int(clear.sum()),
        ece=calibration_error(expit(logits), pairs.preferences),
        position_bias=float((expit(first) + expit(second)).mean() / 2.0 - 0.5),
        flips=float((first * second > 0.0).mean()),
    )


def by_query(losses: FloatArray, query_ids: IntArray) -> FloatArray:
    """The mean loss of each query, float64[queries] in order of their ids."""
    _, of_query = np.unique(query_ids, return_inverse=True)
    return np.asarray(np.bincount(of_query, weights=losses) / np.bincount(of_query))


def triples_of(pairs: PairExamples, rng: np.random.Generator, *, most: int = MOST_TRIPLES) -> PairExamples | None:
    """Three pairs (ab, bc, ca) of each of up to `most` random triples of documents of one query; None without a triple."""
    documents: dict[int, dict[int, str]] = {}
    place: dict[int, int] = {}
    for at, query in enumerate(pairs.query_ids.tolist()):
        place.setdefault(query, at)
        own = documents.setdefault(query, {})
        own[int(pairs.a_ids[at])], own[int(pairs.b_ids[at])] = pairs.a[at], pairs.b[at]
    queries = [query for query, own in documents.items() if len(own) > 2]
    if not queries:
        return None
    columns: list[tuple[int, int, int]] = []
    for number in rng.integers(len(queries), size=most).tolist():
        query = queries[number]
        a, b, c = rng.choice(sorted(documents[query]), 3, replace=False).tolist()
        columns += [(query, a, b), (query, b, c), (query, c, a)]
    return PairExamples(
        queries=[pairs.queries[place[query]] for query, _, _ in columns],
        a=[documents[query][a] for query, a, _ in columns],
        b=[documents[query][b] for query, _, b in columns],
        instructions=[pairs.instructions[place[query]] for query, _, _ in columns],
        preferences=np.full(len(columns), 0.5),
        weights=np.ones(len(columns)),
        query_ids=np.array([query for query, _, _ in columns], dtype=np.int64),
        a_ids=np.array([a for _, a, _ in columns], dtype=np.int64),
        b_ids=np.array([b for _, _, b in columns], dtype=np.int64),
    )


def some_pairs(pairs: PairExamples, count: int) -> PairExamples:
    """At most `count` pairs, drawn at random from those of all queries, in their order; the same ones each time."""
    if count >= len(pairs):
        return pairs
    chosen = np.sort(np.random.default_rng(0).choice(len(pairs), count, replace=False))
    columns = (getattr(pairs, name) for name in PairExamples.__slots__)
    return PairExamples(*(_chosen(column, chosen) for column in columns))


def _chosen(column: Any, rows: IntArray) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]
