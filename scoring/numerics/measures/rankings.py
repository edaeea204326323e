"""Measures of rankings, to the last digit those of trec_eval 9 where it has them.

trec_eval orders by score, read as a 32-bit float, and breaks ties by document id in descending order. A document that a
ranking does not name is not retrieved; an ungraded one counts as grade 0. `evaluate_run` takes dictionaries,
`Measure.of` one query's ranks. Neighbours: `metrics` for probabilities and agreement, `resampling` for intervals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from labeling.records import FloatArray, IntArray
from scoring.numerics.measures.metrics import MetricInput

Gain = Literal["linear", "exponential"]
BoolArray = npt.NDArray[np.bool_]

MOST_CUT_OFF = 1000
PERSISTENCE = 0.8
SYNTAX = (
    f"ndcg, ndcg_exp, recall, precision, map, mrr, rbp, err or success, with a cut-off from 1 to {MOST_CUT_OFF} such as "
    "ndcg@10; recall, precision and success need one; rbp.95 sets the persistence to .95"
)


class UnknownMetric(ValueError):
    """A measure's name that `Measure.parse` does not know."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One query's documents under one ranking, arrays over its documents in any order.

    `ranks` int64[n] from 1, 0 where not retrieved; `gains` float64[n] grades of at least 0; `relevant` bool[n];
    `highest` the highest grade of the scale, which ERR needs.
    """

    ranks: IntArray
    gains: FloatArray
    relevant: BoolArray
    highest: float = 1.0

    @classmethod
    def of_grades(
        cls, ranks: IntArray, grades: npt.ArrayLike, *, relevant_from: float = 1.0, highest: float | None = None
    ) -> Ranked:
        """By grades float64[n]: NaN counts as 0, and so does a negative grade, as in trec_eval."""
        gains = np.maximum(np.nan_to_num(np.asarray(grades, dtype=np.float64), nan=0.0), 0.0)
        top = float(gains.max(initial=1.0)) if highest is None else highest
        return cls(ranks, gains, gains >= relevant_from, top)

    def within(self, cut: int | None) -> IntArray:
        """Positions of the documents at rank `cut` or better, best first."""
        kept = np.flatnonzero((self.ranks > 0) & (self.ranks <= (cut or np.iinfo(np.int64).max)))
        return kept[np.argsort(self.ranks[kept])]

    def hits(self, cut: int | None) -> IntArray:
        """Ranks of the relevant documents within the cut-off, ascending."""
        kept = self.within(cut)
        return self.ranks[kept[self.relevant[kept]]]


def ranks_of(scores: npt.ArrayLike, ids: Sequence[str] | Sequence[int]) -> IntArray:
    """Ranks from 1 of scores float64[n], 0 where the score is NaN; ties by id as in trec_eval. Raises MetricInput.

    `ids` may be replaced by their places in code point order.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(ids),) or np.isinf(values).any():
        raise MetricInput(
            f"scores of shape {values.shape} for {len(ids)} ids; expected finite numbers, or NaN for none"
        )
    ranks = np.zeros(len(ids), dtype=np.int64)
    by_id = np.array(sorted(range(len(ids)), key=lambda i: ids[i], reverse=True), dtype=np.int64)
    by_id = by_id[~np.isnan(values[by_id])]
    ranks[by_id[np.argsort(-values[by_id], kind="stable")]] = np.arange(1, len(by_id) + 1)
    return ranks


# --- one query ---------------------------------------------------------------------------


def _gained(gains: FloatArray, gain: Gain) -> FloatArray:
    if gain == "exponential":
        return _exponential(gains, gains.max(initial=0.0))
    if gain != "linear":
        raise MetricInput(f"gain is {gain!r}; expected 'linear' (the grade) or 'exponential' (2^grade - 1)")
    return gains


def _exponential(gains: FloatArray, highest: float) -> FloatArray:
    """(2^gain - 1) / 2^highest, which does not overflow for grades up to the highest."""
    return np.exp2(gains - highest) - np.exp2(-highest)


def _discounted(gains: FloatArray, ranks: npt.ArrayLike) -> float:
    return float(np.sum(gains / np.log2(np.asarray(ranks, dtype=np.float64) + 1.0)))


def _ndcg(ranked: Ranked, cut: int | None, gain: Gain) -> float:
    gains = _gained(ranked.gains, gain)
    ideal = np.sort(gains)[::-1][:cut]
    best = _discounted(ideal, np.arange(1, len(ideal) + 1))
    kept = ranked.within(cut)
    return _discounted(gains[kept], ranked.ranks[kept]) / best if best > 0.0 else 0.0


def _recall(ranked: Ranked, cut: int | None) -> float:
    total = np.count_nonzero(ranked.relevant)
    return len(ranked.hits(cut)) / total if total else 0.0


def _precision(ranked: Ranked, cut: int | None) -> float:
    assert cut is not None
    return len(ranked.hits(cut)) / cut


def _average_precision(ranked: Ranked, cut: int | None) -> float:
    total, hits = np.count_nonzero(ranked.relevant), ranked.hits(cut)
    return float(np.sum(np.arange(1, len(hits) + 1) / hits)) / total if total else 0.0


def _reciprocal_rank(ranked: Ranked, cut: int | None) -> float:
    hits = ranked.hits(cut)
    return 1.0 / float(hits[0]) if hits.size else 0.0


def _rank_biased_precision(ranked: Ranked, cut: int | None, persistence: float) -> float:
    """Moffat and Zobel 2008: (1 - p) times the sum of p^(rank - 1) over relevant documents."""
    return (1.0 - persistence) * float(np.sum(persistence ** (ranked.hits(cut) - 1.0)))


def _expected_reciprocal_rank(ranked: Ranked, cut: int | None) -> float:
    """Chapelle et al. 2009: a reader stops at a document with probability (2^grade - 1) / 2^highest."""
    kept = ranked.within(cut)
    stops = _exponential(ranked.gains[kept], ranked.highest)
    goes_on = np.append(1.0, np.cumprod(1.0 - stops))[:-1]
    return float(np.sum(goes_on * stops / ranked.ranks[kept]))


def _success(ranked: Ranked, cut: int | None) -> float:
    return float(ranked.hits(cut).size > 0)


_MEASURES: dict[str, Callable[[Ranked, int | None], float]] = {
    "ndcg": lambda ranked, cut: _ndcg(ranked, cut, "linear"),
    "ndcg_exp": lambda ranked, cut: _ndcg(ranked, cut, "exponential"),
    "recall": _recall,
    "precision": _precision,
    "map": _average_precision,
    "mrr": _reciprocal_rank,
    "err": _expected_reciprocal_rank,
    "success": _success,
}
MEASURES = (*_MEASURES, "rbp")
_NEEDS_CUT_OFF = {"recall", "precision", "success"}
_SHOWN = {
    "ndcg": "NDCG", "ndcg_exp": "NDCG (exp.)", "recall": "Recall", "precision": "Precision", "map": "MAP", "mrr": "MRR",
    "rbp": "RBP", "err": "ERR", "success": "Success",
}  # fmt: skip
_FORM = re.compile(r"(?P<name>[a-z]+(?:_exp)?)(?:\.(?P<persistence>[0-9]{1,3}))?(?:@(?P<cut>[1-9][0-9]{0,3}))?")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure with its cut-off (None: the whole ranking); `str` gives the name that `parse` reads."""

    name: str
    cut: int | None = None
    persistence: str = ""

    @classmethod
    def parse(cls, text: str) -> Measure:
        """Read a name such as ndcg@10, map or rbp.95@100. Raises UnknownMetric."""
        found = _FORM.fullmatch(text.strip().lower())
        name = found["name"] if found else ""
        cut = int(found["cut"]) if found and found["cut"] else None
        persistence = (found["persistence"] or "").rstrip("0") if found else ""
        if (
            name not in MEASURES
            or (cut or 1) > MOST_CUT_OFF
            or (cut is None and name in _NEEDS_CUT_OFF)
            or (found and found["persistence"] is not None and (name != "rbp" or not persistence))
        ):
            raise UnknownMetric(f"the measure is {text[:40]!r}; expected {SYNTAX}")
        return cls(name, cut, persistence)

    def of(self, ranked: Ranked) -> float:
        """The value of one query in [0, 1]; 0 where nothing is relevant."""
        if self.name == "rbp":
            p = float(f"0.{self.persistence}") if self.persistence else PERSISTENCE
            return _rank_biased_precision(ranked, self.cut, p)
        return _MEASURES[self.name](ranked, self.cut)

    @property
    def label(self) -> str:
        """The name as a heading, such as NDCG@10."""
        return self._with(_SHOWN[self.name])

    def __str__(self) -> str:
        return self._with(self.name)

    def _with(self, name: str) -> str:
        persistence = f".{self.persistence}" if self.persistence else ""
        return f"{name}{persistence}" + (f"@{self.cut}" if self.cut else "")


# --- all queries -------------------------------------------------------------------------


def evaluate_run(
    run: Mapping[str, Mapping[str, float]],
    grades: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
    *,
    complete: bool = False,
    relevant_from: float = 1.0,
) -> dict[str, dict[str, float]]:
    """{metric: {query: value}} for every query that has both a ranking and grades, with or without a relevant document.

    `run[query][document]` is a score, compared as a 32-bit float; `grades[query][document]` a grade. `complete`
    (trec_eval's -c) adds the other graded queries with the value 0. Raises UnknownMetric, MetricInput.
    """
    measures = {metric: Measure.parse(metric) for metric in metrics}
    values: dict[str, dict[str, float]] = {metric: {} for metric in metrics}
    highest = max((float(grade) for own in grades.values() for grade in own.values()), default=1.0)
    for query in sorted(grades.keys() if complete else run.keys() & grades.keys()):
        ranked = _ranked(run.get(query, {}), grades[query], relevant_from, max(highest, 1.0))
        for metric, measure in measures.items():
            values[metric][query] = measure.of(ranked)
    return values


def _ranked(scores: Mapping[str, float], grades: Mapping[str, float], relevant_from: float, highest: float) -> Ranked:
    ids = list(scores)
    ranks = dict(zip(ids, run_ranks([scores[each] for each in ids], ids).tolist(), strict=True))
    places = np.array([ranks.get(each, 0) for each in grades], dtype=np.int64)
    return Ranked.of_grades(places, list(grades.values()), relevant_from=relevant_from, highest=highest)


def run_ranks(scores: Sequence[float], ids: Sequence[str]) -> IntArray:
    """`ranks_of` of a run's scores, which trec_eval reads as 32-bit floats."""
    return ranks_of(np.asarray(scores, dtype=np.float32).astype(np.float64), ids)


def ndcg(scores: npt.ArrayLike, grades: npt.ArrayLike, k: int | None = 10, *, gain: Gain = "linear") -> float:
    """NDCG@k in [0, 1] of one query's scores float64[n]; documents of equal score share their expected gain.

    The mean over all orders of the ties (McSherry and Najork 2008), so the order of the arrays does not matter. 0 where
    nothing is relevant.
    """
    values = np.asarray(scores, dtype=np.float64)
    gains = _gained(np.maximum(np.asarray(grades, dtype=np.float64), 0.0), gain)
    if values.shape != gains.shape or not np.isfinite(values).all():
        raise MetricInput(f"scores of shape {values.shape} for grades of shape {gains.shape}; expected finite numbers")
    levels, group = np.unique(-values, return_inverse=True)
    means = np.bincount(group, gains, len(levels)) / np.bincount(group, minlength=len(levels))
    ranked, ideal = means[np.sort(group)][:k], np.sort(gains)[::-1][:k]
    places = np.arange(1, len(ideal) + 1)
    best = _discounted(ideal, places)
    return _discounted(ranked, places) / best if best > 0.0 else 0.0
