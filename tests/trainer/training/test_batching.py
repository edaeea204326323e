"""Batches by length: every row once, like lengths together, and an order that seed and epoch alone decide."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.training.batching import LengthBuckets, plan_epoch


def lengths_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(8, 257, rows)


@given(st.integers(1, 200), st.integers(1, 24), st.integers(1, 8), st.integers(0, 3))
def test_every_row_comes_once_in_parts_that_fit(rows: int, step_rows: int, parts: int, epoch: int) -> None:
    parts = min(parts, step_rows)
    buckets = LengthBuckets(lengths_of(rows), step_rows=step_rows, parts=parts, seed=3)
    buckets.set_epoch(epoch)
    batches = list(buckets)
    assert len(batches) == len(buckets)
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    assert all(1 <= len(batch) <= buckets.batch_size for batch in batches)
    assert buckets.plan(epoch).step_tokens.sum() == lengths_of(rows).sum()


@given(st.integers(16, 200), st.integers(0, 5))
def test_smaller_parts_change_no_step(rows: int, epoch: int) -> None:
    whole = plan_epoch(lengths_of(rows), step_rows=16, parts=1, seed=1, epoch=epoch)
    halves = plan_epoch(lengths_of(rows), step_rows=16, parts=2, seed=1, epoch=epoch)
    full = rows // 16
    joined = [halves.parts[2 * step] + halves.parts[2 * step + 1] for step in range(full)]
    assert joined == whole.parts[:full]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    lengths = lengths_of(100)
    first = plan_epoch(lengths, step_rows=8, parts=1, seed=1, epoch=0).parts
    assert first == plan_epoch(lengths, step_rows=8, parts=1, seed=1, epoch=0).parts
    assert first != plan_epoch(lengths, step_rows=8, parts=1, seed=1, epoch=1).parts
    assert first != plan_epoch(lengths, step_rows=8, parts=1, seed=2, epoch=0).parts


def test_rows_of_like_length_pad_little() -> None:
    lengths = lengths_of(2000)
    plan = plan_epoch(lengths, step_rows=16, parts=1, seed=0, epoch=0)
    at_random = np.random.default_rng(0).permutation(2000).reshape(-1, 16)
    assert plan.padded_tokens < 1.03 * lengths.sum()
    assert sum(lengths[batch].max() * 16 for batch in at_random) > 1.7 * lengths.sum()


def test_short_and_long_steps_alternate() -> None:
    lengths = lengths_of(1600)
    means = [lengths[part].mean() for part in plan_epoch(lengths, step_rows=16, parts=1, seed=0, epoch=0).parts]
    assert abs(float(np.corrcoef(means, np.arange(len(means)))[0, 1])) < 0.3


def test_on_several_devices_the_rest_is_left_out() -> None:
    buckets = LengthBuckets(lengths_of(37), step_rows=8, parts=4, seed=0, devices=2)
    assert [len(batch) for batch in buckets] == [2] * 16
    assert len(buckets) == 16
