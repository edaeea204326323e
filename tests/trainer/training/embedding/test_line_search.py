"""The line search over scales: the smallest scale that is as good is kept, and chance keeps the base."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.training.embedding.line_search import SURE, choose, largest_by_chance


def test_the_smallest_scale_within_one_error_is_kept_and_noise_keeps_the_base() -> None:
    rng = np.random.default_rng(0)
    gain = np.array([0.0, 0.05, 0.099, 0.1, 0.08])
    values = 0.5 + gain[None, None, :] + 0.01 * rng.standard_normal((30, 2, 5)) * (gain > 0)
    found = choose(values)
    assert found.scale == 0.5 and found.gain == pytest.approx(0.099, abs=0.01)
    noise = 0.5 + 0.1 * rng.standard_normal((30, 1, 5))
    assert choose(noise - noise.mean(axis=0)).base_won
    unsure = 0.5 + np.array([0.0, 0.01]) + 0.1 * rng.standard_normal((30, 1, 2)) * [0.0, 1.0]
    found = choose(unsure - [0.0, (unsure[..., 1] - unsure[..., 0]).mean() - 0.01], (0.0, 1.0))
    assert found.base_won and found.best_gain == pytest.approx(0.01) and found.best_stderr > 0.01, "the figures stay"
    assert choose(values[:4]).base_won, "four queries prove nothing"
    assert choose(np.zeros((0, 2, 5))).base_won


@pytest.mark.parametrize("checkpoints", [1, 4])
@pytest.mark.parametrize("queries", [12, 40])
def test_of_students_that_gain_nothing_one_in_twenty_leaves_the_base_at_most(queries: int, checkpoints: int) -> None:
    rng = np.random.default_rng(queries + checkpoints)
    left = 0
    for _ in range(200):
        direction = rng.standard_normal((queries, checkpoints, 1)) * 0.03
        steps = np.cumsum(rng.standard_normal((queries, checkpoints, 4)) * 0.02, axis=2)
        gains = direction * np.array([0.25, 0.5, 0.75, 1.0]) + steps
        left += not choose(0.5 + np.concatenate([np.zeros((queries, checkpoints, 1)), gains], axis=2)).base_won
    assert left <= 14, "ten are expected at the most; 14 are exceeded by chance once in fourteen"


def test_the_best_of_many_candidates_needs_more_than_one_alone() -> None:
    rng = np.random.default_rng(3)
    alone = largest_by_chance(rng.standard_normal((60, 1)))
    alike = largest_by_chance(rng.standard_normal((60, 1)) + 0.01 * rng.standard_normal((60, 12)))
    different = largest_by_chance(rng.standard_normal((60, 12)))
    assert SURE <= alone < alike + 0.1 < different
    assert alone == pytest.approx(SURE, abs=0.15) and different == pytest.approx(2.7, abs=0.3)
    assert largest_by_chance(np.zeros((10, 4))) == SURE
