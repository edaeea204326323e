"""Chooses the weights of token and list similarity in the scores of an embedding student, on queries with Elo. Imports no Django.

`trainer.token_similarity.mixed` is the score. Two weights are fitted, so the training queries can choose them, scored by models
that did not learn from them. Candidates are compared by the loss of the
training, which uses the whole list and so varies less by query than NDCG@10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from labeling.records import Examples, FloatArray
from scoring.numerics.measures.rankings import ndcg
from trainer.token_similarity import list_similarities, mixed, similarities
from trainer.training.dev_ndcg import NDCG_AT
from trainer.training.embedding.bi_encoder import BiEncoder
from trainer.training.embedding.line_search import FEWEST_QUERIES, SURE
from trainer.training.losses.elo import elo_of

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LIST_WEIGHTS = (0.0, 0.1, 0.2, 0.3)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)


@dataclass(frozen=True, slots=True)
class Signals:
    """Of one query's candidates, float64[n] each: cosine, token similarity, list similarity."""

    cosines: FloatArray
    tokens: FloatArray
    context: FloatArray

    def scores(self, token_weight: float, list_weight: float) -> FloatArray:
        return mixed(self.cosines, self.tokens, self.context, token_weight=token_weight, list_weight=list_weight)


@dataclass(frozen=True, slots=True)
class Weights:
    """The chosen weights, and their gain of NDCG@10 over the cosine alone (gain: relevance) on the queries that chose them."""

    tokens: float = 0.0
    context: float = 0.0
    gain: float = 0.0


def signals_of(model: BiEncoder, query: str, documents: Sequence[str], *, most: int) -> Signals:
    """The signals of a query's candidates under the model as it is."""
    asked = model.encode_tokens([query], "query", most=most)
    told = model.encode_tokens(documents, "document", most=most)
    cosines, tokens = similarities(asked[0], told)
    return Signals(np.array(cosines), np.array(tokens), list_similarities([own[0] for own in told]))


def measured_weights(
    model: BiEncoder,
    examples: Examples,
    queries: Sequence[slice],
    *,
    elo_scale: float,
    most: int,
    tokens: bool,
    context: bool,
    signals: Sequence[Signals] | None = None,
) -> Weights:
    """The weights of the signals that may enter, chosen on these queries; `signals` if other models have computed them."""
    signals = signals or [
        signals_of(model, examples.queries[rows.start], examples.documents[rows.start : rows.stop], most=most)
        for rows in queries
    ]
    elo = elo_of(examples)
    return chosen_weights(
        signals, [elo[rows] for rows in queries], [examples.labels[rows] for rows in queries],
        elo_scale=elo_scale, tokens=tokens, context=context,
    )  # fmt: skip


def chosen_weights(
    signals: Sequence[Signals],
    elo: Sequence[FloatArray],
    relevance: Sequence[FloatArray],
    *,
    elo_scale: float,
    tokens: bool,
    context: bool,
) -> Weights:
    """The weights that order these queries best; 0 where that is not sure."""
    grid = [(w, u) for u in (LIST_WEIGHTS if context else (0.0,)) for w in (WEIGHTS if tokens else (0.0,))]
    scores = [[own.scores(*weights) for weights in grid] for own in signals]
    losses = np.array([list_losses(own, each, elo_scale=elo_scale) for own, each in zip(scores, elo, strict=True)])
    values = np.array([[ndcg(row, each, NDCG_AT) for row in own] for own, each in zip(scores, relevance, strict=True)])
    place = choose_weight(losses, values)
    if not place:
        return Weights()
    return Weights(*grid[place], gain=float((values[:, place] - values[:, 0]).mean()))


def list_losses(scores: Sequence[FloatArray], elo: FloatArray, *, elo_scale: float) -> FloatArray:
    """float64[candidates, temperatures]: KL(softmax(elo / elo_scale) || softmax(scores / temperature)) of one query."""
    wanted = softmax(elo / elo_scale)
    constant = float(np.sum(wanted * np.log(np.maximum(wanted, 1e-300))))
    return np.array([[constant - float(wanted @ log_softmax(own / t)) for t in TEMPERATURES] for own in scores])


def choose_weight(losses: FloatArray, values: FloatArray) -> int:
    """Position of the candidate to keep, 0 for the cosine alone.

    `losses` float64[queries, candidates, temperatures], `values` float64[queries, candidates] NDCG@10. Each candidate has its best
    temperature. The cosine stays unless the candidate of the lowest loss lowers it by more than SURE standard errors and raises
    NDCG@10.
    """
    if len(losses) < FEWEST_QUERIES:
        return 0
    best_temperature = losses.mean(axis=0).argmin(axis=1)
    own = np.take_along_axis(losses, best_temperature[None, :, None], axis=2)[:, :, 0]
    best = int(own.mean(axis=0).argmin())
    gain = own[:, 0] - own[:, best]
    if gain.mean() <= SURE * _stderr(gain) or (values[:, best] - values[:, 0]).mean() <= 0.0:
        return 0
    return best


def _stderr(values: FloatArray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
