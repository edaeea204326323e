"""Warm start for embedder bases: pairs of the training texts, labelled by the base's own cosine.

A cross-encoder made from an embedder starts with an untrained head, and a few dozen queries teach it less than the
embedder already knows. These pairs cost only computing time. `trainer.training.fine_tuning` trains on them before it trains
on the scores. Imports no Django.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from scipy.special import expit

from labeling.plugins import Report
from labeling.records import Examples, IntArray
from labeling.retrieval.embedder import load_embedder
from trainer.bases import Base, embedder_name
from trainer.recommendation import is_bi_encoder
from trainer.training.label_scaling import STEEPNESS
from trainer.training.options import PointwiseOptions, RerankerOptions

WARM_TIMES, WARM_LENGTH = 2, 64
MOST_TEXTS = 2000
DOCUMENT_CHARACTERS = 300
SHORTEST_SENTENCE, LONGEST_SENTENCE = 20, 200
# The rest are random pairs: near pairs are hard to distinguish, and the model must also learn distant ones.
NEAR_SHARE = 0.7
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


def is_embedder(base: Base) -> bool:
    """Whether the base was saved as a sentence-transformers embedder and has no head that ranks."""
    return not base.ranks_untrained and is_bi_encoder(base)


def warm_options(options: RerankerOptions) -> PointwiseOptions:
    """The options of the warm start: twice the rows per step, twice the learning rate, short texts, squared error."""
    own = options.model_dump(include=set(PointwiseOptions.model_fields))
    changes = {
        "warm_steps": 0,
        "max_steps": options.warm_steps,
        "epochs": 1,
        "batch_size": WARM_TIMES * options.batch_size,
        "learning_rate": WARM_TIMES * options.learning_rate,
        "max_length": min(options.max_length, WARM_LENGTH),
    }
    return PointwiseOptions.model_construct(**(own | changes))


def own_order(base: Base, data: Examples, *, count: int, seed: int, threads: int) -> Examples:
    """`count` pairs of a query, or a sentence of a document, and the beginning of a document, labelled by cosine.

    All texts come from `data`; `base` must be an embedder. Deterministic on one machine with the same `threads`.
    """
    rng = np.random.default_rng(seed)
    whole = _some(list(dict.fromkeys(data.documents)), rng)
    asked = [*_some(list(dict.fromkeys(data.queries)), rng), *_sentences(whole, rng)]
    documents = [text[:DOCUMENT_CHARACTERS] for text in whole]
    embedder = load_embedder(embedder_name(base.name))
    cosine = (
        embedder.encode(asked, role="query", threads=threads)
        @ embedder.encode(documents, role="document", threads=threads).T
    )
    queries = rng.integers(len(asked), size=count)
    ranked = np.argsort(-cosine, axis=1, kind="stable")
    chosen = ranked[queries, _ranks(count, len(documents), rng)]
    found = cosine[queries, chosen].astype(np.float64)
    # Standardised, because every embedder has its own range.
    return Examples(
        queries=[asked[at] for at in queries.tolist()],
        documents=[documents[at] for at in chosen.tolist()],
        labels=expit(STEEPNESS * (found - found.mean()) / max(float(found.std()), 1e-6)),
        weights=np.ones(count),
        query_ids=queries.astype(np.int64),
    )


def _some(texts: list[str], rng: np.random.Generator) -> list[str]:
    return [texts[at] for at in np.sort(rng.permutation(len(texts))[:MOST_TEXTS]).tolist()]


def _sentences(documents: list[str], rng: np.random.Generator) -> list[str]:
    """One sentence of query length from each document that has one."""
    found = []
    for text in documents:
        parts = [part for part in _SENTENCES.split(text) if SHORTEST_SENTENCE <= len(part) <= LONGEST_SENTENCE]
        if parts:
            found.append(parts[rng.integers(len(parts))])
    return found


def _ranks(count: int, documents: int, rng: np.random.Generator) -> IntArray:
    """Rank of the document of each pair, int64[count] from 0; log-uniform, so mostly low ranks."""
    near = np.floor(np.exp(rng.random(count) * np.log(documents))).astype(np.int64) - 1
    anywhere = rng.integers(documents, size=count)
    return np.asarray(np.where(rng.random(count) < NEAR_SHARE, near, anywhere), dtype=np.int64)


class WarmReport:
    """Reports a warm start as its own phase, so that its steps and losses do not enter the training's curves."""

    def __init__(self, report: Report, steps: int) -> None:
        self._report, self._steps = report, steps

    def __call__(self, kind: str, **values: Any) -> None:
        if kind == "checkpoint":
            self._report(kind)
        elif kind == "out_of_memory":
            self._report(kind, **values)
        elif kind in ("step", "resumed"):
            told = {name: values[name] for name in ("eta_s", "tokens_per_s", "memory_bytes") if name in values}
            self._report("warm_start", step=values["step"], steps=self._steps, **told)
