"""Chooses the weight of token similarity in the scores of an embedding student, on queries with Elo. Imports no Django.

The score is (1 - w) cosine + w mean MaxSim (`trainer.token_similarity`). One weight is fitted, so the training queries can choose it;
the cosine was trained on them and MaxSim was not, which leans the choice towards 0. Candidates are compared by the loss of the
training, which uses the whole list and so varies less by query than NDCG@10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, softmax

from labeling.records import Examples, FloatArray
from scoring.numerics.measures.rankings import ndcg
from trainer.token_similarity import similarities
from trainer.training.dev_ndcg import NDCG_AT
from trainer.training.embedding.bi_encoder import BiEncoder
from trainer.training.embedding.line_search import FEWEST_QUERIES, SURE
from trainer.training.losses.elo import elo_of

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)


def measured_weight(
    model: BiEncoder, examples: Examples, queries: Sequence[slice], *, elo_scale: float, most: int
) -> tuple[float, float]:
    """The weight, and its gain of NDCG@10 over the cosine alone (gain: relevance) on the queries that chose it."""
    losses, values = [], []
    elo = elo_of(examples)
    for rows in queries:
        asked = model.encode_tokens([examples.queries[rows.start]], "query", most=most)
        texts = [examples.documents[at] for at in range(rows.start, rows.stop)]
        cosines, tokens = similarities(asked[0], model.encode_tokens(texts, "document", most=most))
        mixed = [(1.0 - w) * np.array(cosines) + w * np.array(tokens) for w in WEIGHTS]
        losses.append(list_losses(mixed, elo[rows], elo_scale=elo_scale))
        values.append([ndcg(own, examples.labels[rows], NDCG_AT) for own in mixed])
    place = choose_weight(np.array(losses), np.array(values))
    gains = np.array(values).reshape(-1, len(WEIGHTS))
    return WEIGHTS[place], float((gains[:, place] - gains[:, 0]).mean()) if place else 0.0


def list_losses(scores: Sequence[FloatArray], elo: FloatArray, *, elo_scale: float) -> FloatArray:
    """float64[weights, temperatures]: KL(softmax(elo / elo_scale) || softmax(scores / temperature)) of one query."""
    wanted = softmax(elo / elo_scale)
    constant = float(np.sum(wanted * np.log(np.maximum(wanted, 1e-300))))
    return np.array([[constant - float(wanted @ log_softmax(own / t)) for t in TEMPERATURES] for own in scores])


def choose_weight(losses: FloatArray, values: FloatArray) -> int:
    """Position of the weight to keep, 0 for the cosine alone.

    `losses` float64[queries, weights, temperatures], `values` float64[queries, weights] NDCG@10. Each weight has its best
    temperature. The cosine stays unless the best weight lowers the loss by more than SURE standard errors and raises NDCG@10; of the
    weights within one standard error of the best, the smallest that raises NDCG@10 is kept.
    """
    if len(losses) < FEWEST_QUERIES:
        return 0
    best_temperature = losses.mean(axis=0).argmin(axis=1)
    own = np.take_along_axis(losses, best_temperature[None, :, None], axis=2)[:, :, 0]
    best = int(own.mean(axis=0).argmin())
    gain = own[:, 0] - own[:, best]
    if gain.mean() <= SURE * _stderr(gain):
        return 0
    better = (values - values[:, :1]).mean(axis=0) > 0.0
    close = [place for place in range(1, len(WEIGHTS)) if _is_close(own[:, place] - own[:, best]) and better[place]]
    return close[0] if close else 0


def _is_close(behind: FloatArray) -> bool:
    return bool(behind.mean() <= _stderr(behind))


def _stderr(values: FloatArray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
