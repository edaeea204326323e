"""The gate: worse by more than chance, or on each of a few queries, is held back; reasons are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.factories.lessons import make_data, write_rows
from trainer.bases import MINILM, load_base
from trainer.evaluation.gate import (
    TOGETHER,
    compared,
    compared_on_all,
    held_back_reason,
    is_worse_on_each,
    result_of,
    shown_gate,
)
from trainer.evaluation.rankers import Scorer
from trainer.recommendation import recommended_trainer
from trainer.training.process import plain

GOOD = Scorer(lambda query, documents: np.array([text.split().count(query.split()[-1]) for text in documents], float))
BAD = Scorer(lambda query, documents: -np.array([text.split().count(query.split()[-1]) for text in documents], float))


def gate(tmp_path: Path, *, dev: int, student: Any, untrained: Any) -> dict[str, Any]:
    data = make_data(12, dev=dev)
    write_rows(tmp_path / "rows.parquet", data)
    return result_of(compared_on_all(tmp_path / "rows.parquet", student=student, untrained=untrained), data.train)


def test_a_student_that_is_worse_than_its_base_is_held_back_with_reasons(tmp_path: Path) -> None:
    found = gate(tmp_path, dev=12, student=BAD, untrained=GOOD)
    assert found["held_back"]
    (base,) = (row for row in found["comparisons"] if row["rival"] == "base")
    assert base["worse"] and base["split"] == "dev" and base["queries"] == 12 and base["high"] < 0.0
    assert {"few_queries", "good_base"} <= set(found["reasons"])


def test_few_dev_and_few_test_queries_prove_together_that_a_student_is_worse(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    for dev in (4, 6):
        data = split_evenly(file, dev=dev)
        found = result_of(compared_on_all(file, student=BAD, untrained=GOOD), data.train)
        by_split = {row["split"]: row for row in found["comparisons"] if row["rival"] == "base"}
        assert {name: row["queries"] for name, row in by_split.items()} == {
            "dev": dev // 2, "test": dev // 2, TOGETHER: dev,
        }  # fmt: skip
        assert not by_split["dev"]["worse"] and not by_split["test"]["worse"]
        assert by_split[TOGETHER]["worse"] and found["held_back"]
        assert by_split[TOGETHER]["each_worse"] is is_worse_on_each(found) is (dev == 4)
        told = "each held-out query worse" if dev == 4 else "worse by more than chance"
        assert told in held_back_reason(found) and f" on {dev} dev + test queries (" in held_back_reason(found)
        assert not result_of(compared_on_all(file, student=GOOD, untrained=BAD), data.train)["held_back"]


def split_evenly(file: Path, *, dev: int) -> Any:
    """Rows whose queries outside train are half dev and half test."""
    data = make_data(12, dev=dev)
    write_rows(file, data)
    rows = pq.read_table(file)
    splits, last = rows.column("split").to_pylist(), max(rows.column("query_id").to_pylist())
    moved = [
        "test" if split == "dev" and query > last - dev // 2 else split
        for split, query in zip(splits, rows.column("query_id").to_pylist(), strict=True)
    ]
    at = rows.column_names.index("split")
    pq.write_table(rows.set_column(at, "split", pa.array(moved, pa.string())), file)
    return data


def test_a_few_queries_hold_back_only_a_student_that_is_worse_on_each(tmp_path: Path) -> None:
    asked: list[str] = []

    def mostly_bad(query: str, documents: list[str]) -> np.ndarray:
        asked.append(query)
        counts = np.array([text.split().count(query.split()[-1]) for text in documents], float)
        return counts if len(asked) == 1 else -counts

    assert gate(tmp_path, dev=3, student=BAD, untrained=GOOD)["held_back"]
    assert not gate(tmp_path, dev=1, student=BAD, untrained=GOOD)["held_back"], "one query says nothing"
    found = gate(tmp_path, dev=3, student=Scorer(mostly_bad), untrained=GOOD)
    assert not found["held_back"] and not is_worse_on_each(found)
    # Three queries of dev do not outvote all nine of both splits.
    rows = compared(tmp_path / "rows.parquet", "dev", student=BAD, untrained=GOOD)
    large = [replace(row, split="test", queries=9, each_worse=False, difference=0.1, high=0.2) for row in rows]
    by_split = {"dev": rows, "test": large}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.evaluation.gate.compared", lambda file, split, **_: by_split[split])
        assert not any(row.is_worse for row in compared_on_all(tmp_path, student=BAD, untrained=GOOD))


def test_a_comparison_without_an_interval_says_why(tmp_path: Path) -> None:
    found = gate(tmp_path, dev=1, student=BAD, untrained=GOOD)
    shown = shown_gate(found)
    assert {(each["low"], each["high"], each["no_interval"]) for each in shown["comparisons"]} == {
        (None, None, "one query")
    }
    sentence = held_back_reason({"held_back": True, "comparisons": [{**found["comparisons"][0], "worse": True}]})
    assert "no interval: one query)" in sentence and " on 1 dev query (" in sentence
    pairs = {"log_loss": 0.5, "low": 0.5, "high": 0.5, "queries": 3}
    assert shown_gate({"pairs": pairs})["pairs"]["no_interval"] == "no spread between queries"
    assert shown_gate({"pairs": None, "held_back": False}) == {"pairs": None, "held_back": False}


def test_a_query_without_ranks_leaves_the_first_stage_in_the_comparison(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    write_rows(file, make_data(4, dev=12))
    rows = pq.read_table(file)
    ranks = [None if query == 1003 else 7 - rank for query, rank in zip(*_columns(rows), strict=True)]
    at = rows.column_names.index("first_stage_rank")
    pq.write_table(rows.set_column(at, "first_stage_rank", pa.array(ranks, pa.int64())), file)
    found = {row.rival: row for row in compared(file, "dev", student=BAD, untrained=GOOD)}
    assert (found["base"].queries, found["first_stage"].queries) == (12, 11)
    none = pa.nulls(len(ranks), pa.int64())
    pq.write_table(rows.set_column(at, "first_stage_rank", none), file)
    assert [row.rival for row in compared(file, "dev", student=BAD, untrained=GOOD)] == ["base"]


def _columns(rows: pa.Table) -> tuple[list[int], list[int]]:
    return rows.column("query_id").to_pylist(), rows.column("first_stage_rank").to_pylist()


def test_the_result_says_yes_or_no_in_json() -> None:
    """Numpy's bool is no number in JSON."""
    assert json.loads(json.dumps({"yes": np.bool_(True), "half": np.float32(0.5)}, default=plain)) == {
        "yes": True,
        "half": 0.5,
    }


def test_a_better_student_passes(tmp_path: Path) -> None:
    better = gate(tmp_path, dev=12, student=GOOD, untrained=BAD)
    assert not better["held_back"] and better["reasons"] == []
    assert {row["rival"] for row in better["comparisons"]} == {"base", "first_stage"}


def test_the_gate_draws_its_queries_from_the_whole_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.evaluation.gate.MOST_ROWS", 70)
    asked: list[str] = []

    def noted(query: str, documents: list[str]) -> np.ndarray:
        asked.append(documents[0])
        return np.arange(len(documents), dtype=float)

    data = make_data(4, dev=40)
    write_rows(tmp_path / "rows.parquet", data)
    rows = compared(tmp_path / "rows.parquet", "dev", student=Scorer(noted), untrained=GOOD)
    assert {row.queries for row in rows} == {11}, "whole queries of six rows"
    places = sorted(list(data.dev.documents).index(each) // 6 for each in asked)
    assert places[0] < 12 and places[-1] > 27


def test_the_reason_of_a_base_that_won_has_the_figures() -> None:
    facts = {"held_out_queries": 18, "best_gain": 0.0123, "best_gain_stderr": 0.01}
    told = held_back_reason({"held_back": True, "base_won": True, "facts": facts})
    assert told.endswith("(on 18 held-out queries the best one has +0.012 NDCG@10, standard error 0.010)")
    assert held_back_reason({"base_won": True}).endswith("nothing is published")


def test_the_recommendation_depends_on_base_and_queries() -> None:
    base = load_base(MINILM)
    assert recommended_trainer(base, 40).trainer == "embedding"
    assert recommended_trainer(base, 40).reason == "few_queries"
    assert recommended_trainer(base, 10**6).reason == "embedder"
