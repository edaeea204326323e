"""The sampler plugins by their contract: new pairs only, within budget, ending by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest

from labeling import plugins
from labeling.plugin_checks import check_plugin
from labeling.records import IntArray, QueryState
from scoring.numerics.design import static
from scoring.sampling import samplers

SAMPLERS = [samplers.Cycles, samplers.AllPairs, samplers.Adaptive, samplers.Uncertain, samplers.CrossQuery]


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
        assert len(np.unique(static.pair_keys(size, drawn))) == len(drawn)
        taken.append(pairs)
    raise AssertionError(f"{sampler.name} did not end within {rounds} rounds")


@pytest.mark.parametrize("name", ["cycles", "all", "adaptive", "uncertain", "cross-query"])
def test_samplers_are_registered(name: str) -> None:
    assert plugins.get_plugin("sampler", name).label


def test_cycles_come_at_once_and_then_nothing() -> None:
    rounds = drain(samplers.Cycles(), size=100, budget=10_000)
    assert [len(pairs) for pairs in rounds] == [400]


def test_cycles_cut_short_are_completed_later() -> None:
    rounds = drain(samplers.Cycles(), size=100, budget=150)
    met = static.degrees(100, np.concatenate(rounds))
    assert met.min() == 8
    assert met.max() <= 9


@pytest.mark.parametrize("size", [2, 3, 4, 5, 30, 31, 100])
def test_spread_cycles_begin_with_as_many_documents_as_possible(size: int) -> None:
    spread = samplers.Cycles(samplers.Cycles.Options(degree=2, spread=True))
    whole = spread.sample(state_of(size), 10_000, np.random.default_rng(1))
    plain = samplers.Cycles(samplers.Cycles.Options(degree=2)).sample(state_of(size), 10_000, np.random.default_rng(1))
    assert sorted(whole.tolist()) == sorted(plain.tolist())
    first = spread.sample(state_of(size), size // 2, np.random.default_rng(1))
    if size > 3:  # of fewer all pairs are drawn at random
        assert len(np.unique(first)) == 2 * (size // 2)
    assert static.degrees(size, np.concatenate(drain(spread, size, max(1, size // 3)))).min() >= min(2, size - 1)


def test_cycles_give_new_candidates_their_pairs() -> None:
    before = static.random_cycles(30, 4, np.random.default_rng(0))
    cycles = samplers.Cycles(samplers.Cycles.Options(degree=4))
    added = cycles.sample(state_of(31, before), 100, np.random.default_rng(1))
    assert len(added) == 4
    assert (added == 30).any(axis=1).all()


def test_cycles_refuse_an_odd_degree() -> None:
    with pytest.raises(pydantic.ValidationError, match="even number"):
        samplers.Cycles.from_dict({"degree": 7})


def test_all_pairs_come_once_each_however_small_the_rounds() -> None:
    assert sum(map(len, drain(samplers.AllPairs(), size=12, budget=5))) == 66


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_tiny_queries_get_all_their_pairs(sampler: type[plugins.Sampler], size: int, expected: int) -> None:
    assert sum(map(len, drain(sampler(), size, budget=100))) == expected


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_zero_budget_gives_nothing_and_a_negative_one_is_refused(sampler: type[plugins.Sampler]) -> None:
    rng = np.random.default_rng(0)
    assert sampler().sample(state_of(10), 0, rng).shape == (0, 2)
    with pytest.raises(static.BadBudget, match="budget is -1"):
        sampler().sample(state_of(10), -1, rng)


def answer(size: int, pairs: IntArray, strength: np.ndarray) -> QueryState:
    """A state after noiseless soft answers, rated with nothing but those strengths."""
    d = strength[pairs[:, 0]] - strength[pairs[:, 1]]
    known = {"theta": strength, "preference": 1.0 / (1.0 + np.exp(-d)), "weight": np.ones(len(pairs))}
    return state_of(size, pairs, logit_scale=1.0, **known)


def run_adaptive(sampler: plugins.Sampler, size: int, rounds: int = 1000) -> list[IntArray]:
    """Alternate with a judge who knows, until the sampler ends."""
    rng = np.random.default_rng(0)
    strength = rng.normal(0.0, 1.5, size)
    taken = [sampler.sample(state_of(size), 10_000, rng)]
    while len(new := sampler.sample(answer(size, np.concatenate(taken), strength), 10_000, rng)):
        taken.append(new)
        assert len(taken) < rounds
    drawn = np.concatenate(taken)
    assert len(np.unique(static.pair_keys(size, drawn))) == len(drawn)
    return taken


@pytest.mark.parametrize(("cycles", "pairs"), [(0, 30), (1, 60), (2, 120)])
def test_adaptive_starts_and_waits_for_answers(cycles: int, pairs: int) -> None:
    sampler = samplers.Adaptive(samplers.Adaptive.Options(start_cycles=cycles))
    assert [len(each) for each in drain(sampler, size=60, budget=10_000)] == [pairs]


def test_adaptive_begins_with_one_pair_for_each_candidate_and_joins_all() -> None:
    for size in (4, 5, 60, 61):
        rounds = run_adaptive(samplers.Adaptive(), size=size)
        assert static.degrees(size, rounds[0]).min() >= 1 and len(rounds[0]) == (size + 1) // 2
        assert len(set(static.islands(size, np.concatenate(rounds)).tolist())) == 1
    path = samplers.Adaptive().sample(state_of(60), 59, np.random.default_rng(0))
    assert len(set(static.islands(60, path).tolist())) == 1


def test_adaptive_goes_on_in_rounds_to_its_total() -> None:
    rounds = [len(pairs) for pairs in run_adaptive(samplers.Adaptive(), size=60)]
    assert rounds == [30, 15, 15, 8, *[15] * 11, 7], "the fourth round joins the islands"


def test_adaptive_compares_the_top_more_often() -> None:
    size = 60
    pairs = np.concatenate(run_adaptive(samplers.Adaptive(), size))
    met = static.degrees(size, pairs)
    order = np.argsort(-np.random.default_rng(0).normal(0.0, 1.5, size))
    assert met[order[:10]].mean() > 2 * met[order[30:]].mean()
    assert met.min() >= 1


def test_adaptive_stops_early_where_the_top_is_certain() -> None:
    short = run_adaptive(samplers.Adaptive(samplers.Adaptive.Options(enough_recall=0.95)), size=60)
    assert sum(map(len, short)) < 240


def test_adaptive_stops_early_where_a_call_brings_too_little() -> None:
    rounds = run_adaptive(samplers.Adaptive(samplers.Adaptive.Options(least_gain=1.0)), size=60)
    assert [len(pairs) for pairs in rounds] == [30]


def test_adaptive_joins_new_candidates_first() -> None:
    before = static.random_cycles(30, 4, np.random.default_rng(0))
    new = samplers.Adaptive().sample(answer(31, before, np.zeros(31)), 100, np.random.default_rng(1))
    assert new.shape == (1, 2)
    assert (new[:, 1] == 30).all()
    cycle = samplers.Adaptive(samplers.Adaptive.Options(start_cycles=1))
    new = cycle.sample(answer(31, before, np.zeros(31)), 100, np.random.default_rng(1))
    assert new.shape == (2, 2)
    assert (new[:, 1] == 30).all()


def test_adaptive_completes_its_cycles_when_a_budget_cut_them_short() -> None:
    sampler = samplers.Adaptive(samplers.Adaptive.Options(start_cycles=2))
    before = sampler.sample(state_of(30), 30, np.random.default_rng(0))
    added = sampler.sample(answer(30, before, np.zeros(30)), 1000, np.random.default_rng(1))
    assert static.degrees(30, np.concatenate([before, added])).min() == 4


def test_adaptive_total_counts_pairs_that_are_there() -> None:
    before = static.random_cycles(30, 8, np.random.default_rng(0))
    assert len(samplers.Adaptive().sample(answer(30, before, np.zeros(30)), 100, np.random.default_rng(1))) == 0


def test_uncertain_asks_for_what_is_least_known() -> None:
    size = 20
    path = np.stack([np.arange(size - 1), np.arange(1, size)], axis=1)
    state = answer(size, path, np.linspace(0.5, -0.5, size))
    pairs = samplers.Uncertain(samplers.Uncertain.Options(pairs=3)).sample(state, 100, np.random.default_rng(0))
    assert len(pairs) == 3
    assert pairs[0, 1] - pairs[0, 0] > size // 2


def test_uncertain_ends_when_every_pair_has_been_drawn() -> None:
    size = 7
    every = static.all_pairs(size)
    sampler = samplers.Uncertain()
    assert len(sampler.sample(answer(size, every[:-2], np.zeros(size)), 100, np.random.default_rng(0))) == 2
    assert len(sampler.sample(answer(size, every, np.zeros(size)), 100, np.random.default_rng(0))) == 0


def test_cross_query_graph_is_regular_over_queries() -> None:
    pairs = np.concatenate(drain(samplers.CrossQuery(), size=50, budget=10_000))
    assert (static.degrees(50, pairs) == 6).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_conform_to_their_contract(sampler: type[plugins.Sampler]) -> None:
    assert check_plugin(sampler) == []
