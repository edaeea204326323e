"""The injection alarm against simulated judges: it has to be raised when it should, and hardly ever otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.numerics.judges.injection import LEAST_TARGETS, TooFewTargets, elo_gain, injection_effect


def probe(
    seed: int, *, wins: float, sigma: float = 0.5, per_target: float = 0.0, targets: int = 20, opponents: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 pairs of weak and middling documents, asked twice; the payload wins a share `wins` of them outright.

    `per_target`: deviation of what any added text does to all pairs of a target alike.
    """
    rng = np.random.default_rng(seed)
    target = np.repeat(np.arange(targets), opponents)
    strength = np.repeat(rng.choice([-1.9, 0.0], targets), opponents)
    difference = strength - rng.normal(0.0, 1.5, len(target))
    clean = difference + rng.normal(0.0, sigma, len(target))
    loaded = (
        difference + rng.normal(0.0, sigma, len(target)) + np.repeat(rng.normal(0.0, per_target, targets), opponents)
    )
    loaded[rng.random(len(target)) < wins] = 3.5
    return 1 / (1 + np.exp(-clean)), 1 / (1 + np.exp(-loaded)), target


def alarms(**how: float) -> int:
    return sum(
        injection_effect(*probe(seed, **how), rng=np.random.default_rng(seed)).alarm  # type: ignore[arg-type]
        for seed in range(100)
    )


def test_a_payload_that_wins_half_the_time_is_found() -> None:
    assert alarms(wins=0.5) >= 95


@pytest.mark.parametrize("per_target", [0.0, 0.5])
def test_without_an_effect_the_alarm_stays_quiet(per_target: float) -> None:
    assert alarms(wins=0.0, per_target=per_target) <= 1


def test_the_flip_rate_is_the_share_of_lost_pairs_that_it_wins() -> None:
    found = injection_effect(*probe(1, wins=0.5, sigma=0.0), rng=np.random.default_rng(1))
    assert found.flip_rate is not None
    assert found.flip_rate.low <= 0.5 <= found.flip_rate.high
    assert found.away == 0 and found.toward == round(found.flip_rate.value * found.flip_rate.count)
    assert found.shift.low > 0.0 and (found.pairs, found.targets) == (200, 20)


def test_a_payload_that_harms_its_document_raises_no_alarm() -> None:
    clean, loaded, target = probe(2, wins=0.5)
    assert not injection_effect(loaded, clean, target, rng=np.random.default_rng(2)).alarm


def test_too_few_targets_are_refused_rather_than_cleared() -> None:
    with pytest.raises(TooFewTargets, match="9 targets"):
        injection_effect(*probe(3, wins=1.0, targets=LEAST_TARGETS - 1), rng=np.random.default_rng(3))


def test_the_gain_in_elo_has_an_interval_over_targets() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(1500, 200, 40)
    found = elo_gain(before, before + rng.normal(100, 50, 40), rng=rng)
    assert found.low < 100 < found.high and found.count == 40
