"""The gate of pairwise students: worse than the base or the first stage by more than chance is held back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import logit

from labeling.records import PairExamples
from tests.factories.students.pair_lessons import make_pairs, write_pairs
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from trainer.bases import load_base
from trainer.evaluation.gate import held_back_reason
from trainer.training.pairwise.apart import ApartStudent
from trainer.training.pairwise.figures import figures, some_pairs
from trainer.training.pairwise.gate import compared, hold_at_pairs_gate, result_of, rivals_of
from trainer.training.pairwise.student import untrained_student
from zelo_site.pages.rerankers.training import gate_advice, gate_lines

pytestmark = pytest.mark.usefixtures("all_models_allowed")


def panel(pairs: PairExamples) -> np.ndarray:
    return np.asarray(logit(np.clip(pairs.preferences, 0.02, 0.98)))


def write_ranks(path: Path, pairs: PairExamples, *, rank_of: dict[tuple[int, int], int | None]) -> None:
    keys = sorted(rank_of)
    table = {"query_id": [q for q, _ in keys], "candidate_id": [c for _, c in keys]}
    pq.write_table(pa.table({**table, "first_stage_rank": pa.array([rank_of[key] for key in keys], pa.int64())}), path)


def test_a_student_that_judges_worse_than_its_base_is_held_back_with_reasons() -> None:
    held_out = {"dev": make_pairs(12, first=1000), "test": make_pairs(12, first=2000)}
    good = {split: panel(pairs) for split, pairs in held_out.items()}
    rows = compared(held_out, {split: 0.2 * each for split, each in good.items()}, {"base": good})
    assert {(row["split"], row["queries"], row["worse"]) for row in rows} == {("dev", 12, True), ("test", 12, True)}
    assert all(row["low"] > 0.0 and row["student"] > row["other"] for row in rows)
    weak = figures("test", held_out["test"], 0.2 * good["test"], -0.2 * good["test"])
    assert weak.beats_chance
    found = result_of(weak, rows, make_pairs(200, pairs=1))
    assert found["held_back"] and found["reasons"] == ["good_base"]
    sentence = held_back_reason(found)
    assert (
        "it judges worse by more than chance, log-loss 0." in sentence
        and "of the untrained base on 12 test" in sentence
    )
    assert ["base already judges" in each for each in gate_advice(found, trainer="pairwise")] == [True]
    assert [(line.split, line.measure) for line in gate_lines(found)] == [("dev", "log-loss"), ("test", "log-loss")]
    at_chance = held_back_reason({"held_back": True, "comparisons": [], "pairs": {}})
    assert "not below .693 by more than chance" in at_chance


def test_rivals_answer_at_their_best_temperature_on_the_dev_pairs() -> None:
    held_out = {"dev": make_pairs(12, first=1000), "test": make_pairs(12, first=2000)}
    good = {split: panel(pairs) for split, pairs in held_out.items()}
    rows = compared(held_out, good, {"base": {split: 10.0 * each for split, each in good.items()}})
    assert [row["difference"] for row in rows] == pytest.approx([0.0, 0.0], abs=2e-3)
    assert not any(row["worse"] for row in rows)
    unknown = {"dev": np.full(len(held_out["dev"]), np.nan), "test": 10.0 * good["test"]}
    (row,) = compared(held_out, good, {"first_stage": unknown})
    assert row["difference"] == pytest.approx(0.0, abs=2e-3), "where it ranked no dev pair on those of test"
    alone = {"test": held_out["test"]}
    (row,) = compared(alone, {"test": good["test"]}, {"base": {"test": 10.0 * good["test"]}})
    assert row["difference"] == pytest.approx(0.0, abs=2e-3), "without dev pairs on those that there are"


def test_the_first_stage_is_a_rival_where_it_has_ranks(tmp_path: Path) -> None:
    pairs = make_pairs(8, first=2000)
    keys = {
        (q, c)
        for ids in (pairs.a_ids, pairs.b_ids)
        for q, c in zip(pairs.query_ids.tolist(), ids.tolist(), strict=True)
    }
    ranks = {key: None if key[0] == 2003 else key[1] + 1 for key in keys}
    write_ranks(tmp_path / "rows.parquet", pairs, rank_of=ranks)
    rivals = rivals_of({"test": pairs}, untrained=None, rows_file=tmp_path / "rows.parquet")
    assert set(rivals) == {"first_stage"}
    found = rivals["first_stage"]["test"]
    unknown = pairs.query_ids == 2003
    assert np.isnan(found[unknown]).all()
    assert found[~unknown] == pytest.approx(np.log((pairs.b_ids + 1) / (pairs.a_ids + 1))[~unknown])
    (row,) = compared({"test": pairs}, {"test": panel(pairs)}, rivals)
    assert (row["rival"], row["queries"], row["worse"]) == ("first_stage", 7, False) and row["high"] < 0.0
    write_ranks(tmp_path / "rows.parquet", pairs, rank_of=dict.fromkeys(keys))
    none = rivals_of({"test": pairs}, untrained=None, rows_file=tmp_path / "rows.parquet")
    assert compared({"test": pairs}, {"test": panel(pairs)}, none) == []


def test_an_untrained_student_is_level_with_itself_and_no_better_than_chance(tmp_path: Path) -> None:
    base = load_base(str(save_tiny_embedder(tmp_path / "embedder")))
    untrained = untrained_student(base, apart=True, max_length=64, reads_instruction=False)
    assert isinstance(untrained, ApartStudent) and not untrained.reader.reads_instruction
    # Where the panel is undecided, no answer can be better than chance, whatever the random weights say.
    dev, test = (
        replace(own, preferences=np.full(len(own), 0.5))
        for own in (make_pairs(6, first=1000), make_pairs(6, first=2000))
    )
    write_pairs(tmp_path / "pairs.parquet", train=make_pairs(2), dev=dev, test=test)
    write_ranks(tmp_path / "rows.parquet", test, rank_of={(1, 1): 1})
    found = hold_at_pairs_gate(
        untrained, untrained=untrained, pairs_file=tmp_path / "pairs.parquet", rows_file=tmp_path / "rows.parquet",
        train=make_pairs(2),
    )  # fmt: skip
    assert found["pairs"]["split"] == "test" and [row["rival"] for row in found["comparisons"]] == ["base", "base"]
    assert {"pairs_at_chance", "few_queries"} <= set(found["reasons"]) and found["held_back"]
    write_pairs(tmp_path / "pairs.parquet", train=make_pairs(2))
    nothing = hold_at_pairs_gate(
        untrained, untrained=None, pairs_file=tmp_path / "pairs.parquet", rows_file=tmp_path / "rows.parquet",
        train=make_pairs(2),
    )  # fmt: skip
    assert nothing == {"held_back": False, "comparisons": [], "reasons": [], "pairs": None}


def test_some_pairs_come_from_all_queries_and_are_the_same_each_time() -> None:
    pairs = make_pairs(40, pairs=10)
    some = some_pairs(pairs, 100)
    assert len(some) == 100 and len(set(some.query_ids.tolist())) > 35
    assert (np.diff(some.query_ids) >= 0).all() and some.a == some_pairs(pairs, 100).a
    at = next(
        row for row in range(len(pairs)) if pairs.query_ids[row] == some.query_ids[0] and pairs.a[row] == some.a[0]
    )
    assert some.preferences[0] in pairs.preferences[at : at + 10]
    assert some_pairs(pairs, 400) is pairs
