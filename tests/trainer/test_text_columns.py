"""Columns of texts in Arrow's memory behave as lists of strings do, however many parts a file was read in."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from labeling.records import TrainingData
from tests.factories.lessons import make_examples, write_rows
from trainer import examples
from trainer.text_columns import TextColumn

TEXTS = ["a", "b", "a", "ä", "", "c" * 50, "b"]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_column_reads_like_a_list(size: int) -> None:
    column = TextColumn([pa.array(TEXTS[start : start + size]) for start in range(0, len(TEXTS), size)])
    assert list(column) == TEXTS and column == TEXTS and column != TEXTS[1:] and len(column) == len(TEXTS)
    assert [column[at] for at in range(-len(TEXTS), len(TEXTS))] == TEXTS + TEXTS
    assert (column[2:5], column[::-2], column[:0]) == (TEXTS[2:5], TEXTS[::-2], [])
    assert pickle.loads(pickle.dumps(column)) == TEXTS
    with pytest.raises(IndexError, match="text 7 of 7"):
        column[len(TEXTS)]
    assert not TextColumn([]) and TextColumn([]) == []


def test_rows_read_in_small_parts_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData(make_examples(5, documents=4), make_examples(2, documents=3))
    write_rows(tmp_path / "rows.parquet", data)
    whole = examples.load_training_data(tmp_path / "rows.parquet")
    monkeypatch.setattr(examples, "ROWS_AT_ONCE", 3)
    parts = examples.load_training_data(tmp_path / "rows.parquet")
    for one, other, made in ((whole.train, parts.train, data.train), (whole.dev, parts.dev, data.dev)):
        assert one.documents == other.documents == list(made.documents)
        assert one.queries == other.queries and (one.labels == other.labels).all()
        assert (one.query_ids == other.query_ids).all() and (one.weights == other.weights).all()
