"""Reads the rows of a snapshot's Parquet file as columns for a trainer. Imports no Django.

Neighbours: `scoring.snapshots.freeze` writes the file, `trainer.training.process` reads it for a trainer plugin.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labeling.records import Examples, IntArray, PairExamples, TrainingData
from trainer.text_columns import TextColumn

__all__ = ["Examples", "TrainingData", "drawn_queries", "load_examples", "load_pairs", "load_training_data"]

_COLUMNS = ["split", "query_id", "query", "document", "relevance", "weight"]
_PAIR_COLUMNS = [
    "split", "query_id", "query", "instruction", "a_id", "b_id", "document_a", "document_b", "preference", "weight",
]  # fmt: skip
ROWS_AT_ONCE = 8_192
ELO, INSTRUCTION = "elo", "instruction"


class EmptySnapshot(ValueError):
    """The file has no rows to train on."""


def load_training_data(rows: Path, pairs: Path | None = None) -> TrainingData:
    """The splits train and dev of a snapshot's rows, and of its pairs where their file is given. Raises EmptySnapshot."""
    train = load_examples(rows, "train")
    if not len(train):
        raise EmptySnapshot(f"{rows.name} has no rows in the split train; freeze a snapshot with looser filters")
    split_pairs = {} if pairs is None else {f"{split}_pairs": load_pairs(pairs, split) for split in ("train", "dev")}
    return TrainingData(train=train, dev=load_examples(rows, "dev"), **split_pairs)


def load_pairs(pairs: Path, split: str) -> PairExamples:
    """The pairs of one split, by query; equal texts share memory."""
    read = _read(pairs, split, _PAIR_COLUMNS)
    return PairExamples(
        queries=read.texts("query"),
        a=read.texts("document_a"),
        b=read.texts("document_b"),
        instructions=read.texts("instruction"),
        preferences=read.numbers("preference", np.float64),
        weights=read.numbers("weight", np.float64),
        query_ids=read.numbers("query_id", np.int64),
        a_ids=read.numbers("a_id", np.int64),
        b_ids=read.numbers("b_id", np.int64),
    )


def load_examples(rows: Path | IO[bytes], split: str) -> Examples:
    """The rows of one split, by query; equal texts share memory."""
    newer = _newer_columns(rows)
    read = _read(rows, split, [*_COLUMNS, *newer])
    return Examples(
        queries=read.texts("query"),
        documents=read.texts("document"),
        labels=read.numbers("relevance", np.float64),
        weights=read.numbers("weight", np.float64),
        query_ids=read.numbers("query_id", np.int64),
        elo=read.numbers(ELO, np.float64) if ELO in newer else None,
        instructions=read.texts(INSTRUCTION) if INSTRUCTION in newer else [],
    )


def drawn_queries(sizes: IntArray, rows: int) -> IntArray:
    """Ascending places of queries drawn at random, with at most `rows` rows together and at least one query.

    `sizes` int64[queries]: the rows of each. Queries stand in the order of their import, so that the first ones may be of one
    project or subject. The same sizes give the same places.
    """
    order = np.random.default_rng(0).permutation(len(sizes))
    count = int(np.searchsorted(np.cumsum(sizes[order]), rows, side="right"))
    return np.sort(order[: max(count, 1)])


def _newer_columns(rows: Path | IO[bytes]) -> list[str]:
    """The columns that files of earlier versions lack."""
    names = pq.read_schema(rows).names
    return [each for each in (ELO, INSTRUCTION) if each in names]


@dataclass
class _Columns:
    """Some rows of a file, column by column in parts."""

    parts: dict[str, list[pa.Array]]

    def texts(self, name: str) -> TextColumn:
        return TextColumn(self.parts[name])

    def numbers(self, name: str, kind: type[np.generic]) -> Any:
        found = [part.to_numpy(zero_copy_only=False) for part in self.parts[name]]
        return np.concatenate(found).astype(kind) if found else np.empty(0, dtype=kind)


def _read(path: Path | IO[bytes], split: str, columns: list[str]) -> _Columns:
    """The rows of one split, read ROWS_AT_ONCE at a time, so that the other splits and the file's pages are never held as a whole."""
    kept: dict[str, list[pa.Array]] = {name: [] for name in columns}
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
            chosen = batch.filter(pc.equal(batch.column("split"), split))
            for name in columns if len(chosen) else ():
                part = chosen.column(name)
                # A mixture has no instructions for the rows of an earlier version's snapshot.
                kept[name].append(part.fill_null("").dictionary_encode() if pa.types.is_string(part.type) else part)
    return _Columns(kept)
