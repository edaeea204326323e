"""Documents of a list that are computed again, and that a list's own distance below the first places keeps its order as expected."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.serving.forms import refinement
from trainer.serving.forms.order_gate import LEAST_TAU, TOP, kendall_tau
from trainer.serving.forms.refinement import LEAST_LISTS, SURE_TAU, close_rows, distance_within, spread_of

ROUNDING = 0.01
CLOSE = 2.8 * ROUNDING


def lists(number: int, *, documents: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits with rounding errors, and exact ones."""
    rng = np.random.default_rng(seed)
    exact = [rng.normal(size=documents) for _ in range(number)]
    return [each + ROUNDING * rng.normal(size=documents) for each in exact], exact


def test_after_the_first_places_only_what_errors_may_turn_is_close() -> None:
    logits = [float(-place) for place in range(TOP + 5)]
    logits[3] += 0.95  # close to the third
    logits[TOP + 2] += 0.95  # close to the one before it
    assert close_rows(logits, 0.1) == [2, 3, TOP + 1, TOP + 2]
    assert close_rows(logits, 0.1, spread=0.001) == [2, 3], "fifty spreads apart"
    assert close_rows(logits, 0.1, spread=0.05) == close_rows(logits, 0.1)


def test_the_last_of_the_first_places_is_held_apart_from_the_next() -> None:
    logits = [float(-place) for place in range(TOP)] + [-TOP + 1 - 0.05, -TOP - 5.0]
    assert close_rows(logits, 0.1, spread=0.001) == [TOP - 1, TOP]


def test_places_after_those_that_are_asked_for_are_left_as_they_are() -> None:
    logits = [3.0, 2.99, 2.0, 1.99, 1.98, 0.5, 0.49]
    assert close_rows(logits, 0.1, top_n=2) == [0, 1]
    assert close_rows(logits, 0.1, top_n=3) == [0, 1, 2, 3, 4], "up to the next gap"
    assert close_rows(logits, 0.1, top_n=9) == close_rows(logits, 0.1) == list(range(7))
    assert close_rows([1.0, float("nan")], 0.1) == close_rows([1.0], 0.1) == []


@pytest.mark.parametrize(("documents", "share"), [(70, 0.97), (300, 0.85)])
def test_long_lists_keep_their_order_with_fewer_documents_computed_again(documents: int, share: float) -> None:
    spread = spread_of(*lists(60, documents=13, seed=1))
    taus, again, before = [], [], []
    for found, exact in zip(*lists(40, documents=documents, seed=2), strict=True):
        rows = close_rows(found.tolist(), CLOSE, spread=spread)
        again.append(len(rows))
        before.append(len(close_rows(found.tolist(), CLOSE)))
        found[rows] = exact[rows]
        taus.append(kendall_tau(exact, found))
    assert np.mean(again) < share * np.mean(before)
    error = np.std(taus) / np.sqrt(len(taus))
    assert np.mean(taus) > max(LEAST_TAU, SURE_TAU - 3 * error), "tau is at least what was expected"


def test_the_distance_is_the_smallest_at_which_tau_is_expected_to_be_sure() -> None:
    (found,), _ = lists(1, documents=150, seed=4)
    falling = np.sort(found)[::-1]
    distance = distance_within(falling, CLOSE, ROUNDING)
    gaps = -np.diff(falling)
    pairs = refinement._Pairs(falling, ROUNDING)

    def loss(within: float) -> float:
        exact = np.zeros(len(falling), bool)
        for place, gap in enumerate(gaps):
            if gap < (CLOSE if place < TOP else within):
                exact[place] = exact[place + 1] = True
        return pairs.expected_loss(exact)

    assert 0 < distance < CLOSE and loss(distance) <= 1 - SURE_TAU < loss(distance / 1.2)


def test_pairs_of_some_documents_stand_for_all_of_a_very_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,), _ = lists(1, documents=900, seed=5)
    falling = np.sort(found)[::-1]
    complete = distance_within(falling, CLOSE, ROUNDING)
    monkeypatch.setattr(refinement, "MOST_SAMPLED", 300)
    assert distance_within(falling, CLOSE, ROUNDING) == pytest.approx(complete, rel=0.2)


def test_few_lists_say_nothing_of_the_spread_and_exact_logits_have_none() -> None:
    found, exact = lists(40, documents=13, seed=3)
    few = LEAST_LISTS - 1
    assert spread_of(found[:few], exact[:few]) == spread_of(exact, exact) == spread_of([], []) == 0.0
    assert spread_of(found, exact) == pytest.approx(ROUNDING, rel=0.2)
