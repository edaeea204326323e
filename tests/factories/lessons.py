"""Small made-up training data: documents about one of a few words, of very different lengths."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labeling.records import Examples, TrainingData
from trainer.training.options import PointwiseOptions

WORDS = ["goldfish", "pond", "carp", "water", "bread", "oven", "flour", "yeast"]


def make_examples(queries: int, *, documents: int = 6, first: int = 0, seed: int = 0, easy: bool = False) -> Examples:
    """Relevance is how often the query's word stands in the document."""
    rng = np.random.default_rng([seed, first])
    rows: list[tuple[str, str, float, int]] = []
    for number in range(first, first + queries):
        word = WORDS[number % len(WORDS)]
        for _ in range(documents):
            words = rng.choice(WORDS, int(rng.integers(3, 30))).tolist()
            rows.append((f"about {word}", " ".join(words), min(1.0, words.count(word) / 4), number))
    texts, documents_, labels, ids = zip(*rows, strict=True)
    return Examples(list(texts), list(documents_), np.array(labels), np.ones(len(rows)), np.array(ids, dtype=np.int64))


def make_data(queries: int = 16, *, dev: int = 4, **options: Any) -> TrainingData:
    return TrainingData(make_examples(queries, **options), make_examples(dev, first=1000, **options))


def make_options(base: Path | str, **options: Any) -> PointwiseOptions:
    """Few and small steps on one thread."""
    small: dict[str, Any] = {
        "base": str(base), "precision": "fp32", "rank": 4, "max_length": 96, "batch_size": 8, "epochs": 2, "eval_steps": 5, "threads": 1,
    }  # fmt: skip
    return PointwiseOptions.model_validate(small | options)


def rows_file(queries: int = 2, *, dev: int = 5) -> bytes:
    """A snapshot's file with so many training and dev queries."""
    written = io.BytesIO()
    write_rows(written, make_data(queries, dev=dev))
    return written.getvalue()


def write_rows(path: Path | IO[bytes], data: TrainingData) -> None:
    """The data as a snapshot's file, with the columns that training and the gate read."""
    parts = [("train", data.train), ("dev", data.dev)]
    rows = len(data.train) + len(data.dev)
    pq.write_table(
        pa.table(
            {
                "split": [name for name, part in parts for _ in range(len(part))],
                "query_id": [int(each) for _, part in parts for each in part.query_ids],
                "query": [text for _, part in parts for text in part.queries],
                "document": [text for _, part in parts for text in part.documents],
                "relevance": [float(each) for _, part in parts for each in part.labels],
                "weight": [float(each) for _, part in parts for each in part.weights],
                "elo": [1500.0 + 400.0 * float(each) for _, part in parts for each in part.labels],
                "project": ["fish"] * rows,
                "domain": [""] * rows,
                "query_external_id": [f"q{each}" for _, part in parts for each in part.query_ids],
                "candidate_id": list(range(rows)),
                "document_external_id": [f"d{number}" for number in range(rows)],
                "comparisons": [3] * rows,
                "grade": pa.nulls(rows, pa.float64()),
                "first_stage_rank": [number % 6 + 1 for number in range(rows)],
            }
        ),
        path,
    )


class Report(list[tuple[str, dict[str, Any]]]):
    """A report that remembers."""

    def __call__(self, kind: str, **values: Any) -> None:
        self.append((kind, values))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [values for each, values in self if each == kind]
