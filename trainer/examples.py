"""Reads the rows of a snapshot's Parquet file as columns for a trainer. Imports no Django.

Neighbours: `scoring.snapshots.freeze` writes the file, `trainer.training.process` reads it for a trainer plugin.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labeling.records import Examples, PairExamples, TrainingData

__all__ = ["Examples", "TrainingData", "load_examples", "load_pairs", "load_training_data"]

_COLUMNS = ["split", "query_id", "query", "document", "relevance", "weight"]
_PAIR_COLUMNS = [
    "split", "query_id", "query", "instruction", "a_id", "b_id", "document_a", "document_b", "preference", "weight",
]  # fmt: skip
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
    table = pq.read_table(pairs, columns=_PAIR_COLUMNS, filters=pc.field("split") == split)
    numbers = {name: table.column(name).to_numpy() for name in ("preference", "weight", "query_id", "a_id", "b_id")}
    return PairExamples(
        queries=_texts(table.column("query")),
        a=_texts(table.column("document_a")),
        b=_texts(table.column("document_b")),
        instructions=_texts(table.column("instruction")),
        preferences=numbers["preference"].astype(np.float64),
        weights=numbers["weight"].astype(np.float64),
        query_ids=numbers["query_id"].astype(np.int64),
        a_ids=numbers["a_id"].astype(np.int64),
        b_ids=numbers["b_id"].astype(np.int64),
    )


def load_examples(rows: Path, split: str) -> Examples:
    """The rows of one split, by query; equal texts share memory."""
    table = pq.read_table(rows, columns=[*_COLUMNS, *_newer_columns(rows)], filters=pc.field("split") == split)
    told = _texts(table.column(INSTRUCTION)) if INSTRUCTION in table.column_names else []
    return Examples(
        queries=_texts(table.column("query")),
        documents=_texts(table.column("document")),
        labels=table.column("relevance").to_numpy().astype(np.float64),
        weights=table.column("weight").to_numpy().astype(np.float64),
        query_ids=table.column("query_id").to_numpy().astype(np.int64),
        elo=table.column(ELO).to_numpy().astype(np.float64) if ELO in table.column_names else None,
        instructions=told,
    )


def _newer_columns(rows: Path) -> list[str]:
    """The columns that files of earlier versions lack."""
    names = pq.read_schema(rows).names
    return [each for each in (ELO, INSTRUCTION) if each in names]


def _texts(column: pa.ChunkedArray) -> list[str]:
    if not len(column):
        return []
    encoded = column.dictionary_encode().combine_chunks()
    words: list[str] = encoded.dictionary.to_pylist()
    return [words[at] for at in encoded.indices.to_pylist()]
