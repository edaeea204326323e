"""Documents of a list that are computed again, and that the distance below the first places keeps the order as expected."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.serving.forms.order_gate import LEAST_TAU, TOP, kendall_tau
from trainer.serving.forms.refinement import LEAST_LISTS, close_rows, distance_below

ROUNDING = 0.01


def lists(number: int, *, documents: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits with rounding errors, and exact ones."""
    rng = np.random.default_rng(seed)
    exact = [rng.normal(size=documents) for _ in range(number)]
    return [each + ROUNDING * rng.normal(size=documents) for each in exact], exact


def test_after_the_first_places_the_smaller_distance_counts() -> None:
    logits = [float(-place) for place in range(TOP + 5)]
    logits[3] += 0.95  # close to the third
    logits[TOP + 2] += 0.95  # close to the one before it
    assert close_rows(logits, 0.1) == [2, 3, TOP + 1, TOP + 2]
    assert close_rows(logits, 0.1, below=0.01) == [2, 3]
    assert close_rows(logits, 0.1, below=0.07) == close_rows(logits, 0.1, below=9.0) == close_rows(logits, 0.1)


def test_the_last_of_the_first_places_is_held_apart_from_the_next() -> None:
    logits = [float(-place) for place in range(TOP)] + [-TOP + 1 - 0.05, -TOP - 5.0]
    assert close_rows(logits, 0.1, below=0.0) == [TOP - 1, TOP]


def test_long_lists_keep_their_order_with_fewer_documents_computed_again() -> None:
    close = 2.8 * ROUNDING
    below = distance_below(*lists(60, documents=13, seed=1), close)
    assert 0 < below < close
    taus, again, before = [], [], []
    for found, exact in zip(*lists(100, documents=70, seed=2), strict=True):
        rows = close_rows(found.tolist(), close, below=below)
        again.append(len(rows))
        before.append(len(close_rows(found.tolist(), close)))
        found[rows] = exact[rows]
        taus.append(kendall_tau(exact, found))
    assert np.mean(taus) > LEAST_TAU and np.mean(again) < 0.92 * np.mean(before)


def test_few_lists_give_no_smaller_distance_and_exact_logits_none() -> None:
    close = 2.8 * ROUNDING
    found, exact = lists(40, documents=13, seed=3)
    few = LEAST_LISTS - 1
    assert distance_below(found[:few], exact[:few], close) == close > distance_below(found, exact, close)
    assert distance_below(exact, exact, close) == pytest.approx(0.0), "without errors no document is computed again"
