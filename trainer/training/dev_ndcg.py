"""NDCG@10 on the dev split during training, with relevance as gain. Imports no Django."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from labeling.records import Examples, IntArray
from scoring.numerics.measures.rankings import ndcg
from trainer.examples import drawn_queries

NDCG_AT = 10
FEWEST_QUERIES = 6


class LossNotFinite(ArithmeticError):
    """The loss became NaN or infinite."""


def some_queries(examples: Examples, rows: int) -> Examples:
    """Whole queries drawn at random with at most `rows` rows together, at least one; in their order, the same ones each time."""
    if len(examples) <= rows:
        return examples
    bounds = _bounds(examples)
    chosen = drawn_queries(np.diff(bounds), rows)
    kept = np.concatenate([np.arange(bounds[at], bounds[at + 1]) for at in chosen.tolist()])
    return _chosen(examples, kept)


def are_too_few(dev: Examples) -> bool:
    """Whether a head that has learned nothing may order these queries well by chance."""
    return len(np.unique(dev.query_ids)) < FEWEST_QUERIES


def with_an_order(examples: Examples) -> Examples:
    """The queries whose labels differ: every model ranks the others equally well, so they choose no checkpoint."""
    bounds = _bounds(examples) if len(examples) else np.zeros(1, dtype=np.int64)
    kept = np.zeros(len(examples), dtype=np.bool_)
    for start, stop in itertools.pairwise(bounds.tolist()):
        kept[start:stop] = np.ptp(examples.labels[start:stop]) > 0.0
    return examples if kept.all() else _chosen(examples, np.flatnonzero(kept))


def _chosen(examples: Examples, kept: IntArray) -> Examples:
    return Examples(**{each.name: _rows(getattr(examples, each.name), kept) for each in fields(examples)})


def _rows(column: Any, kept: IntArray) -> Any:
    if isinstance(column, np.ndarray):
        return column[kept]
    return [column[row] for row in kept.tolist()] if column else column


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
