"""Designs that look at no answers: cycles, complete and completed designs, and their edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.records import IntArray
from scoring.numerics.design import static


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_distinct(size: int, pairs: IntArray) -> None:
    assert pairs.dtype == np.int64
    assert pairs.shape[1:] == (2,)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(static.pair_keys(size, pairs))) == len(pairs)


def no_pairs() -> IntArray:
    return np.empty((0, 2), dtype=np.int64)


@pytest.mark.parametrize(("size", "degree"), [(100, 8), (9, 6), (10, 8), (20, 18), (21, 18), (5000, 8)])
def test_cycles_are_regular_connected_and_without_repeats(size: int, degree: int) -> None:
    pairs = static.random_cycles(size, degree, rng())
    assert_distinct(size, pairs)
    assert (static.degrees(size, pairs) == degree).all()
    assert static.islands(size, pairs).max() == 0


def test_first_rows_are_one_whole_cycle() -> None:
    first = static.random_cycles(50, 8, rng())[:50]
    assert (static.degrees(50, first) == 2).all()
    assert static.islands(50, first).max() == 0


def test_rows_below_one_cycle_are_a_path() -> None:
    path = static.random_cycles(50, 8, rng())[:20]
    assert sorted(np.bincount(static.degrees(50, path))[1:].tolist()) == [2, 19]


def test_seed_decides_the_cycles() -> None:
    assert np.array_equal(static.random_cycles(60, 4, rng(7)), static.random_cycles(60, 4, rng(7)))
    assert not np.array_equal(static.random_cycles(60, 4, rng(7)), static.random_cycles(60, 4, rng(8)))


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 0), (2, 1), (3, 3), (9, 36)])
def test_small_sizes_give_all_pairs(size: int, expected: int) -> None:
    pairs = static.random_cycles(size, 8, rng())
    assert_distinct(size, pairs)
    assert len(pairs) == expected


def test_odd_degree_is_refused_unless_it_means_all_pairs() -> None:
    with pytest.raises(static.BadDegree, match=r"degree is 7, which is odd.*use 6 or 8"):
        static.random_cycles(100, 7, rng())
    assert len(static.random_cycles(8, 7, rng())) == 28


@pytest.mark.parametrize("degree", [0, 1, -2])
def test_degree_below_two_is_refused(degree: int) -> None:
    with pytest.raises(static.BadDegree, match="2 or more"):
        static.random_cycles(100, degree, rng())


def test_negative_size_is_refused() -> None:
    with pytest.raises(static.BadSize, match="size is -1"):
        static.random_cycles(-1, 8, rng())


def test_excluded_pairs_are_not_drawn() -> None:
    taken = static.random_cycles(30, 8, rng(1))
    pairs = static.random_cycles(30, 8, rng(2), exclude=taken)
    assert_distinct(30, np.concatenate([taken, pairs]))
    assert (static.degrees(30, pairs) == 8).all()


def test_excluding_too_much_is_refused() -> None:
    with pytest.raises(static.NoSuchDesign, match="excluded"):
        static.random_cycles(10, 4, rng(), exclude=static.all_pairs(10)[:-5])


def test_pairs_that_do_not_fit_the_candidates_are_refused() -> None:
    with pytest.raises(static.BadPairs, match=r"outside 0 \.\. 9"):
        static.random_cycles(10, 4, rng(), exclude=np.array([[3, 10]]))
    with pytest.raises(static.BadPairs, match="itself"):
        static.random_cycles(10, 4, rng(), exclude=np.array([[3, 3]]))


@pytest.mark.parametrize(("size", "count"), [(5, 2), (6, 2), (9, 4), (10, 4), (31, 15), (32, 15)])
def test_exact_construction_decomposes_the_complete_graph(size: int, count: int) -> None:
    pairs = static._walecki_cycles(size, count, rng())
    assert_distinct(size, pairs)
    assert (static.degrees(size, pairs) == 2 * count).all()
    for cycle in pairs.reshape(count, size, 2):
        assert static.islands(size, cycle).max() == 0


@pytest.mark.parametrize("drawn", [0, 1, 37, 230])
def test_completion_fills_degrees_joins_islands_and_then_ends(drawn: int) -> None:
    before = static.random_cycles(60, 8, rng())[:drawn]
    added = static.complete_degrees(60, 8, before, rng(1))
    both = np.concatenate([before, added])
    assert_distinct(60, both)
    met = static.degrees(60, both)
    assert met.min() >= 8
    assert met.max() <= 9
    assert static.islands(60, both).max() == 0
    assert len(static.complete_degrees(60, 8, both, rng(2))) == 0


def test_completion_joins_islands_of_sufficient_degree() -> None:
    left = static.all_pairs(10)
    both = np.concatenate([left, left + 10])
    added = static.complete_degrees(20, 4, both, rng())
    assert len(added) == 1
    assert static.islands(20, np.concatenate([both, added])).max() == 0


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_completion_of_small_sizes_gives_all_pairs(size: int, expected: int) -> None:
    assert len(static.complete_degrees(size, 8, no_pairs(), rng())) == expected


def test_islands_are_numbered_by_first_member() -> None:
    assert static.islands(6, np.array([[4, 5], [0, 3]])).tolist() == [0, 1, 2, 0, 3, 3]


def test_graph_over_many_queries_is_regular() -> None:
    edges = static.random_regular_pairs(30_000, 6, rng())
    assert (static.degrees(30_000, edges) == 6).all()
