"""NDCG@10 on the dev split during training, with relevance as gain. Imports no Django."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from labeling.records import Examples
from scoring.numerics.measures.rankings import ndcg

NDCG_AT = 10


class LossNotFinite(ArithmeticError):
    """The loss became NaN or infinite."""


def first_queries(examples: Examples, rows: int) -> Examples:
    """The first whole queries with at least `rows` rows together."""
    if len(examples) <= rows:
        return examples
    stop = int(np.searchsorted(np.cumsum(np.diff(_bounds(examples))), rows, side="right"))
    end = int(_bounds(examples)[max(stop, 1)])
    return Examples(
        examples.queries[:end],
        examples.documents[:end],
        examples.labels[:end],
        examples.weights[:end],
        examples.query_ids[:end],
        None if examples.elo is None else examples.elo[:end],
    )


def _bounds(examples: Examples) -> Any:
    return np.append(np.flatnonzero(np.diff(examples.query_ids, prepend=examples.query_ids[0] - 1)), len(examples))


def dev_ndcg(model: Any, dev: Examples, *, batch_size: int, bf16: bool = False) -> float:
    """Mean NDCG@10 of the queries, gains being relevance. Raises LossNotFinite if a score is not finite."""
    pairs = list(zip(dev.queries, dev.documents, strict=True))
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        logits = model.predict(
            pairs,
            batch_size=batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
            convert_to_tensor=True,
        )
    scores = logits.float().cpu().numpy().astype(np.float64).reshape(-1)
    if not np.isfinite(scores).all():
        raise not_finite("a score of the dev split")
    bounds = _bounds(dev)
    return float(np.mean([ndcg(scores[a:b], dev.labels[a:b], NDCG_AT) for a, b in itertools.pairwise(bounds.tolist())]))


def not_finite(what: str) -> LossNotFinite:
    return LossNotFinite(
        f"{what} is not a finite number: training became unstable; choose a smaller learning_rate (a tenth), "
        "more warmup, or fp32"
    )
