"""Columns of texts in Arrow's memory behave as lists of strings do, however many parts a file was read in."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labeling.records import TrainingData
from tests.factories.lessons import make_data, make_examples, write_rows
from trainer import examples
from trainer.examples import load_training_data
from trainer.text_columns import TextColumn
from trainer.training.losses.elo import elo_of

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


def test_rows_of_an_earlier_version_in_a_mixture_have_no_instruction_and_the_elo_of_their_relevance(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "rows.parquet", make_data(4))
    table = pq.read_table(tmp_path / "rows.parquet")
    whole, half = table.num_rows, table.num_rows // 2
    elo = [None] * half + table.column("elo").to_pylist()[half:]
    told = pa.array([None] * half + ["cheap ones"] * (whole - half), pa.string())
    table = table.drop_columns(["elo"]).append_column("elo", pa.array(elo, pa.float64()))
    pq.write_table(table.append_column("instruction", told), tmp_path / "mixed.parquet")
    train = load_training_data(tmp_path / "mixed.parquet").train
    assert list(train.instructions) == ["" if at < half else "cheap ones" for at in range(len(train))]
    found = elo_of(train)
    assert found[half:].tolist() == elo[half : len(train)]
    assert found[:half] == pytest.approx(elo_of(replace(train, elo=None))[:half]) and np.isfinite(found).all()
