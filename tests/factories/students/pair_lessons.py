"""Small made-up pairs with a panel's preference: the document with more words about fish is the better one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labeling.records import Examples, PairExamples, TrainingData
from tests.factories.lessons import WORDS, make_examples, write_rows


def make_pairs(
    queries: int, *, pairs: int = 6, documents: int = 5, first: int = 0, seed: int = 0, instruction: str = ""
) -> PairExamples:
    """Random pairs of each query; preference = sigmoid of the difference of their words about fish."""
    rng = np.random.default_rng([seed, first, 9])
    rows: list[tuple[str, str, str, float, int, int, int]] = []
    for number in range(first, first + queries):
        word = WORDS[number % len(WORDS)]
        texts = [" ".join(rng.choice(WORDS, 6).tolist()) for _ in range(documents)]
        for _ in range(pairs):
            a, b = sorted(rng.choice(documents, 2, replace=False).tolist())
            apart = 1.5 * (_fishy(texts[a]) - _fishy(texts[b]))
            rows.append((f"about {word}", texts[a], texts[b], 1.0 / (1.0 + float(np.exp(-apart))), number, a, b))
    asked, a_texts, b_texts, preferences, ids, a_ids, b_ids = zip(*rows, strict=True)
    return PairExamples(
        queries=list(asked),
        a=list(a_texts),
        b=list(b_texts),
        instructions=[instruction] * len(rows),
        preferences=np.array(preferences),
        weights=np.ones(len(rows)),
        query_ids=np.array(ids, dtype=np.int64),
        a_ids=np.array(a_ids, dtype=np.int64),
        b_ids=np.array(b_ids, dtype=np.int64),
    )


def _fishy(text: str) -> int:
    return sum(word in WORDS[:4] for word in text.split())


def make_pair_data(queries: int = 24, *, dev: int = 6, **options: Any) -> TrainingData:
    nothing = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    return TrainingData(
        make_examples(2), nothing, make_pairs(queries, **options), make_pairs(dev, first=1000, **options)
    )


def write_pairs(path: Path, **splits: PairExamples) -> None:
    """The pairs of each split as a snapshot's file."""
    parts = list(splits.items())
    columns: dict[str, list[Any]] = {"split": [name for name, part in parts for _ in range(len(part))]}
    names = {
        "query_id": "query_ids", "query": "queries", "instruction": "instructions", "a_id": "a_ids", "b_id": "b_ids",
        "document_a": "a", "document_b": "b", "preference": "preferences", "weight": "weights",
    }  # fmt: skip
    for column, own in names.items():
        columns[column] = [value for _, part in parts for value in np.asarray(getattr(part, own)).tolist()]
    pq.write_table(pa.table(columns), path)


def write_pair_workspace(workspace: Path, data: TrainingData) -> None:
    """Rows and pairs as the training process reads them; the test pairs are others than those of dev."""
    assert data.train_pairs is not None and data.dev_pairs is not None
    write_rows(workspace / "rows.parquet", TrainingData(make_examples(2), make_examples(1, first=1000)))
    write_pairs(workspace / "pairs.parquet", train=data.train_pairs, dev=data.dev_pairs, test=make_pairs(8, first=2000))
