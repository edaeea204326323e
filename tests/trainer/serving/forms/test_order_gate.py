"""The gate lets through a form that keeps the order, and says what another one changes."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.serving.forms.order_gate import agreement, kendall_tau


def lists(number: int, documents: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=documents) for _ in range(number)]


def test_tau_counts_pairs_in_the_other_order_and_not_the_equal_ones() -> None:
    exact = np.array([3.0, 2.0, 1.0, 1.0])
    assert kendall_tau(exact, exact) == 1.0
    assert kendall_tau(exact, np.array([3.0, 2.0, 0.5, 1.5])) == 1.0
    assert kendall_tau(exact, np.array([2.0, 3.0, 1.0, 1.0])) == pytest.approx(3 / 5)
    assert kendall_tau(exact, -exact) == -1.0
    assert kendall_tau(np.ones(3), exact[:3]) == 1.0


def test_small_rounding_passes() -> None:
    exact = lists(50)
    found = [each + 1e-7 * np.arange(len(each)) for each in exact]
    assert agreement(exact, found).problem() == ""
    assert agreement([], []).problem() == ""


def test_what_changes_is_said() -> None:
    exact = lists(50)
    swapped = [each.copy() for each in exact]
    for each in swapped:
        first, last = np.argsort(-each)[[0, -1]]
        each[[first, last]] = each[[last, first]]
    problem = agreement(exact, swapped).problem()
    assert "Kendall's tau" in problem and "first ten" in problem and "a logit differs" in problem
    shifted = agreement(exact, [each + 1.0 for each in exact])
    assert shifted.kendall_tau == 1.0 and shifted.problem().startswith("a logit differs by 1,")
    assert agreement(exact, [each * np.nan for each in exact]).problem()
