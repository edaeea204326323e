"""The sampler plugins by their contract: new pairs only, within budget, ending by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

from labeling import plugins
from labeling.records import IntArray, QueryState
from scoring import sampling
from scoring.numerics import design


def state_of(size: int, pairs: IntArray | None = None, **known: Any) -> QueryState:
    drawn = np.empty((0, 2), dtype=np.int64) if pairs is None else pairs
    return QueryState(size=size, pairs=drawn, first_stage_rank=np.zeros(size, dtype=np.int64), **known)


def drain(sampler: plugins.Sampler, size: int, budget: int, rounds: int = 1000) -> list[IntArray]:
    """Ask again and again without answers, until nothing more comes."""
    rng = np.random.default_rng(0)
    drawn = np.empty((0, 2), dtype=np.int64)
    taken: list[IntArray] = []
    for _ in range(rounds):
        pairs = sampler.sample(state_of(size, drawn), budget, rng)
        if not len(pairs):
            return taken
        assert len(pairs) <= budget
        drawn = np.concatenate([drawn, pairs])
        assert (drawn[:, 0] < drawn[:, 1]).all()
        assert len(np.unique(design.pair_keys(size, drawn))) == len(drawn)
        taken.append(pairs)
    raise AssertionError(f"{sampler.name} did not end within {rounds} rounds")


@pytest.mark.parametrize("name", ["cycles", "all"])
def test_samplers_are_registered(name: str) -> None:
    assert plugins.get_plugin("sampler", name).label


def test_cycles_come_at_once_and_then_nothing() -> None:
    rounds = drain(sampling.Cycles(), size=100, budget=10_000)
    assert [len(pairs) for pairs in rounds] == [400]


def test_cycles_cut_short_are_completed_later() -> None:
    rounds = drain(sampling.Cycles(), size=100, budget=150)
    met = design.degrees(100, np.concatenate(rounds))
    assert met.min() == 8
    assert met.max() <= 9


def test_cycles_give_new_candidates_their_pairs() -> None:
    before = design.random_cycles(30, 4, np.random.default_rng(0))
    cycles = sampling.Cycles.from_dict({"degree": 4})
    added = cycles.sample(state_of(31, before), 100, np.random.default_rng(1))
    assert len(added) == 4
    assert (added == 30).any(axis=1).all()


def test_cycles_refuse_an_odd_degree() -> None:
    with pytest.raises(pydantic.ValidationError, match="even number"):
        sampling.Cycles.from_dict({"degree": 7})


def test_all_pairs_come_once_each_however_small_the_rounds() -> None:
    assert sum(map(len, drain(sampling.AllPairs(), size=12, budget=5))) == 66


@pytest.mark.parametrize("sampler", [sampling.Cycles, sampling.AllPairs])
@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_tiny_queries_get_all_their_pairs(sampler: type[plugins.Sampler], size: int, expected: int) -> None:
    assert sum(map(len, drain(sampler(), size, budget=100))) == expected


@pytest.mark.parametrize("sampler", [sampling.Cycles, sampling.AllPairs])
def test_zero_budget_gives_nothing_and_a_negative_one_is_refused(sampler: type[plugins.Sampler]) -> None:
    rng = np.random.default_rng(0)
    assert sampler().sample(state_of(10), 0, rng).shape == (0, 2)
    with pytest.raises(design.BadBudget, match="budget is -1"):
        sampler().sample(state_of(10), -1, rng)
