"""Shares of keys and the agreement of two orders."""

from __future__ import annotations

import math

import pytest

from trainer.deployments.shares import agreement, in_share


def test_a_share_of_the_keys_is_stable_and_grows_without_moving_a_key() -> None:
    keys = [str(number) for number in range(2_000)]
    small = {key for key in keys if in_share(key, 10, of="1")}
    large = {key for key in keys if in_share(key, 30, of="1")}
    assert small < large and small == {key for key in keys if in_share(key, 10, of="1")}
    for share, found in ((10, small), (30, large)):
        assert abs(len(found) / len(keys) - share / 100) < 4 * math.sqrt(share / 100 * (1 - share / 100) / len(keys))
    assert not any(in_share(key, 0, of="1") for key in keys) and all(in_share(key, 100, of="1") for key in keys)


def test_deployments_draw_their_keys_independently() -> None:
    keys = [str(number) for number in range(2_000)]
    both = sum(in_share(key, 50, of="1") and in_share(key, 50, of="2") for key in keys)
    assert abs(both / len(keys) - 0.25) < 0.05


@pytest.mark.parametrize(
    ("first", "second", "tau", "same"),
    [
        ({0: 3.0, 1: 2.0, 2: 1.0}, {0: 0.9, 1: 0.5, 2: 0.1}, 1.0, 1.0),
        ({0: 3.0, 1: 2.0, 2: 1.0}, {0: 1.0, 1: 2.0, 2: 3.0}, -1.0, 1.0),
        ({0: 1.0, 1: 1.0}, {0: 1.0, 1: 2.0}, 0.0, 1.0),
        ({0: 1.0, 5: 2.0}, {5: 1.0, 7: 2.0}, None, 1.0),
        ({}, {}, None, 1.0),
    ],
)
def test_orders_agree_over_the_documents_that_both_have(
    first: dict[int, float], second: dict[int, float], tau: float | None, same: float
) -> None:
    assert agreement(first, second) == (tau, same)


def test_the_top_ten_are_compared_as_sets() -> None:
    first = {row: -float(row) for row in range(20)}
    second = first | {9: -50.0}
    tau, same = agreement(first, second)
    assert same == 0.9 and tau is not None and 0.85 < tau < 1.0
