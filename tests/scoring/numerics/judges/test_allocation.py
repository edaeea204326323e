"""Which judge is asked about which pair, and in which order: balance and reproducibility."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.records import IntArray
from scoring.numerics.design.static import random_cycles
from scoring.numerics.judges.allocation import BadAllocation, allocate


def pairs_of(size: int, degree: int = 4, seed: int = 0) -> IntArray:
    return random_cycles(size, degree, np.random.default_rng(seed))


@given(size=st.integers(3, 30), judges=st.integers(1, 6), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_all_asks_every_judge_about_every_pair(size: int, judges: int, seed: int) -> None:
    pairs = pairs_of(size)
    pair, judge, swapped = allocate(pairs, judges=judges, mode="all", rng=np.random.default_rng(seed))
    asked = set(zip(pair.tolist(), judge.tolist(), strict=True))
    assert asked == {(p, j) for p in range(len(pairs)) for j in range(judges)}
    assert len(pair) == len(judge) == len(swapped) == len(pairs) * judges


@given(size=st.integers(3, 30), judges=st.integers(1, 6), seed=st.integers(0, 2**32), offset=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rotate_asks_one_judge_a_pair_and_each_as_often(size: int, judges: int, seed: int, offset: int) -> None:
    pairs = pairs_of(size)
    pair, judge, _ = allocate(pairs, judges=judges, mode="rotate", rng=np.random.default_rng(seed), offset=offset)
    assert pair.tolist() == list(range(len(pairs)))
    before = np.arange(judges) < offset % judges
    counts = np.bincount(judge, minlength=judges) + before
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("mode", ["all", "rotate"])
def test_half_of_each_judges_questions_are_swapped(mode: str) -> None:
    _, judge, swapped = allocate(pairs_of(25), judges=3, mode=mode, rng=np.random.default_rng(1))
    for each in range(3):
        mine = swapped[judge == each]
        assert abs(int(mine.sum()) - int((~mine).sum())) <= 1


def test_rotate_shares_each_documents_pairs_among_the_judges() -> None:
    pairs = pairs_of(100, degree=8)
    _, judge, _ = allocate(pairs, judges=3, mode="rotate", rng=np.random.default_rng(1))
    met = np.zeros((100, 3))
    for (a, b), each in zip(pairs, judge, strict=True):
        met[a, each] += 1
        met[b, each] += 1
    assert (met > 0).all(), "every document is seen by every judge"
    assert met.max() <= 5, "of 8 pairs; an even share is 2.7"


def test_equal_generators_give_equal_allocations() -> None:
    for mode in ("all", "rotate"):
        once, again = (allocate(pairs_of(20), judges=3, mode=mode, rng=np.random.default_rng(5)) for _ in range(2))
        assert all((x == y).all() for x, y in zip(once, again, strict=True))


def test_sides_differ_from_draw_to_draw() -> None:
    sides = [
        allocate(pairs_of(20), judges=1, mode="all", rng=np.random.default_rng(seed))[2].tolist() for seed in (1, 2)
    ]
    assert sides[0] != sides[1]


def test_no_pairs_are_no_questions() -> None:
    none = np.empty((0, 2), dtype=np.int64)
    for mode in ("all", "rotate"):
        assert all(len(part) == 0 for part in allocate(none, judges=2, mode=mode, rng=np.random.default_rng(1)))


@pytest.mark.parametrize(("judges", "mode"), [(0, "all"), (0, "rotate"), (2, "some")])
def test_what_cannot_be_allocated_is_refused(judges: int, mode: str) -> None:
    with pytest.raises(BadAllocation, match=r"expected"):
        allocate(pairs_of(5), judges=judges, mode=mode, rng=np.random.default_rng(1))


def test_judges_are_asked_only_what_they_can_answer() -> None:
    pairs = np.array([(a, b) for a in range(8) for b in range(a + 1, 8)], dtype=np.int64)
    able = np.random.default_rng(3).random((len(pairs), 3)) < 0.6
    able[0] = False
    for mode in ("all", "rotate"):
        pair, judge, swapped = allocate(pairs, judges=3, mode=mode, rng=np.random.default_rng(1), able=able)
        assert able[pair, judge].all() and len(pair) == len(judge) == len(swapped)
        assert set(pair.tolist()) == set(np.flatnonzero(able.any(axis=1)).tolist())
    assert len(pair) == able.any(axis=1).sum()
    counts = np.bincount(judge, minlength=3)
    assert counts.max() - counts.min() <= 2
