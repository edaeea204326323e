"""Figures of judges against data whose answer is known, and the drift alarm against simulated judges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from scoring.numerics.judges import cusum
from scoring.numerics.judges.judge_checks import (
    intransitive_triples,
    length_bias,
    mean,
    order_flips,
    ratio,
    same_side,
    share,
)


def test_a_share_has_the_interval_of_wilson() -> None:
    found = share(81.0, 263)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe (1998), table I
    assert share(0, 0) is None
    assert share(10, 10).high == 1.0  # type: ignore[union-attr]


def test_a_tie_counts_half_and_what_is_unknown_counts_nothing() -> None:
    preference = np.array([0.9, 0.2, 0.5, 0.9, 0.9])
    truth = np.array([1.0, 1.0, 0.0, np.nan, 0.5])
    found = same_side(preference, truth)
    assert found is not None and (found.value, found.count) == (0.5, 4)  # right, wrong, and twice a tie against a side


def test_flips_look_only_at_pairs_asked_in_both_orders() -> None:
    pair = np.array([1, 1, 2, 2, 3, 4, 4])
    swapped = np.array([False, True, False, True, False, False, True])
    preference = np.array([0.9, 0.2, 0.9, 0.8, 0.9, 0.6, 0.5])
    found = order_flips(pair, swapped, preference)
    assert found is not None and (found.value, found.count) == (0.5, 3)  # a flip, none, and a side that became a tie


def test_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = [
        abs(found.value - 0.3) <= found.high - found.value
        for found in (mean(rng.normal(0.3, 1, 60)) for _ in range(400))
        if found
    ]
    assert 0.92 <= np.mean(covered) <= 0.98


def simulated_answers(rows: int, *, position: float, length: float, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    deserved, longer = rng.normal(0, 1.5, rows), rng.normal(0, 1, rows)
    longer += 0.5 * deserved  # good documents are longer, which is no bias
    first = rng.choice([-1.0, 1.0], rows)
    logits = deserved + length * longer + position * first + rng.normal(0, 0.7, rows)
    return 1 / (1 + np.exp(-logits)), deserved, longer, first


def test_length_bias_is_found_though_good_documents_are_longer() -> None:
    found = [length_bias(*simulated_answers(600, position=0.4, length=0.3, seed=seed)) for seed in range(100)]
    values = np.array([each.value for each in found if each])
    assert values.mean() == pytest.approx(0.3, abs=0.02)
    assert np.mean([each.low <= 0.3 <= each.high for each in found if each]) >= 0.9
    none = [length_bias(*simulated_answers(600, position=0.4, length=0.0, seed=seed)) for seed in range(100)]
    assert np.mean([each.excludes_zero for each in none if each]) <= 0.1


def test_length_bias_is_not_guessed_from_too_little() -> None:
    assert length_bias(*simulated_answers(29, position=0.0, length=1.0, seed=0)) is None
    preference, deserved, longer, first = simulated_answers(60, position=0.0, length=1.0, seed=0)
    assert length_bias(preference, np.full(60, np.nan), longer, first) is None
    assert length_bias(preference, deserved, np.zeros(60), first) is None


def brute_force_triples(a: np.ndarray, b: np.ndarray, preference: np.ndarray, size: int) -> tuple[int, int]:
    wins = {(x, y) if p > 0.5 else (y, x) for x, y, p in zip(a, b, preference, strict=True) if p != 0.5}
    cycles = triples = 0
    for three in itertools.combinations(range(size), 3):
        edges = [(x, y) for x, y in itertools.permutations(three, 2) if (x, y) in wins]
        triples += len(edges) == 3
        cycles += len(edges) == 3 and {x for x, _ in edges} == set(three)
    return cycles, triples


def test_triples_are_those_that_enumeration_finds() -> None:
    rng = np.random.default_rng(2)
    pairs = np.array(list(itertools.combinations(range(9), 2)))
    for _ in range(5):
        mine = pairs[rng.random(len(pairs)) < 0.7]
        preference = rng.choice([0.1, 0.5, 0.9], len(mine), p=[0.45, 0.1, 0.45])
        a, b = mine[:, 0], mine[:, 1]
        assert intransitive_triples(a, b, preference, 9) == brute_force_triples(a, b, preference, 9)


def test_an_order_has_no_cycles() -> None:
    pairs = np.array(list(itertools.combinations(range(12), 2)))
    assert intransitive_triples(pairs[:, 0], pairs[:, 1], np.full(len(pairs), 0.9), 12) == (0, 220)


def test_a_ratio_is_resampled_over_queries() -> None:
    rng = np.random.default_rng(3)
    found = ratio(np.array([0, 10, 0, 10]), np.array([10, 10, 0, 10]), rng)
    assert found is not None and found.value == pytest.approx(2 / 3) and found.count == 30
    assert found.low <= 1 / 3 and found.high == 1.0
    assert ratio(np.array([0]), np.array([0]), rng) is None


@pytest.mark.parametrize("part", [0, 1])
def test_a_share_that_is_the_same_in_all_queries_keeps_an_interval(part: int) -> None:
    """Resampling them gives no width, as if no triple of 15 were proof that there is none."""
    wholes = np.array([5, 4, 6])
    found = ratio(wholes * part, wholes, np.random.default_rng(0))
    assert found == share(15.0 * part, 15)
    assert found is not None and found.high - found.low > 0.1


# --- drift -------------------------------------------------------------------------------


def errors(rng: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray:
    return np.concatenate([(rng.random(count) < rate).astype(float) for count, rate in parts])


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.35])
def test_a_steady_judge_is_left_alone(rate: float) -> None:
    rng = np.random.default_rng(4)
    alarms = [cusum.watch(errors(rng, (1000, rate))) for _ in range(200)]
    assert sum(each.alarm is not None for each in alarms if each) <= 4


@pytest.mark.parametrize(("before", "after"), [(0.05, 0.4), (0.2, 0.55)])
def test_a_judge_that_becomes_worse_is_found(before: float, after: float) -> None:
    rng = np.random.default_rng(5)
    found = [cusum.watch(errors(rng, (200, before), (300, after))) for _ in range(200)]
    late = [each.alarm for each in found if each and each.alarm is not None and each.alarm >= 200]
    assert len(late) >= 180
    assert np.median(late) <= 300


def test_an_alarm_says_how_good_the_judge_was_and_is() -> None:
    found = cusum.watch(np.concatenate([np.zeros(60), np.ones(40)]))
    assert found is not None and found.alarm is not None
    assert (found.baseline, found.recent) == (0.0, 1.0)
    assert found.since == found.alarm - 59


def test_without_a_baseline_nothing_is_said() -> None:
    assert cusum.watch(np.ones(cusum.BASELINE)) is None


def queries(rng: np.random.Generator, count: int, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers of `count` queries, some much harder than others, asked one query after the other."""
    sizes = rng.integers(5, 120, count)
    rates = rng.beta(4.0 * (1.0 - accuracy), 4.0 * accuracy, count)
    errors = np.concatenate([(rng.random(size) < rate).astype(float) for size, rate in zip(sizes, rates, strict=True)])
    return errors, np.repeat(np.arange(count), sizes)


def test_hard_queries_are_no_drift() -> None:
    rng = np.random.default_rng(6)
    alarms = [cusum.watch_errors(*queries(rng, 500, 0.7)) for _ in range(200)]
    assert sum(each.alarm is not None for each in alarms if each) <= 4


def test_a_drift_over_queries_is_found() -> None:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(100):
        (before, first), (after, second) = queries(rng, 40, 0.8), queries(rng, 100, 0.45)
        found.append(cusum.watch_errors(np.concatenate([before, after]), np.concatenate([first, second + 40])))
    late = [each.alarm for each in found if each and each.alarm is not None and each.alarm >= 40]
    assert len(late) >= 90


def test_few_queries_say_nothing_and_a_single_one_is_watched_by_answers() -> None:
    wrong_later = np.concatenate([np.zeros(60), np.ones(40)])
    assert cusum.watch_errors(wrong_later, np.repeat([1, 2], 50)) is None
    alone = cusum.watch_errors(wrong_later, np.zeros(100, dtype=np.int64))
    assert alone is not None and alone.alarm is not None and alone.unit == "answers"
