"""The weight of a student's votes falls with the error that its votes share, and rises to one where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from labeling.records import ComparisonColumns, QueryState
from scoring.numerics.design.static import all_pairs, random_cycles
from scoring.numerics.judges.student_weight import LIMITS, START, choose_student_weight
from scoring.sampling.guided import Guided

SIZE = 12


def votes(error: float, *, queries: int = 30, panel: int = 20, seed: int = 0) -> tuple[ComparisonColumns, np.ndarray]:
    """Panel votes on random pairs with noise of their own, and a student on cycles whose documents are off by `error` logits."""
    rng = np.random.default_rng(seed)
    rows, counts = [], []
    for _ in range(queries):
        strength = rng.normal(0.0, 1.5, SIZE)
        thought = strength + rng.normal(0.0, error, SIZE)
        every = all_pairs(SIZE)
        asked, designed = every[rng.choice(len(every), panel, replace=False)], random_cycles(SIZE, 8, rng)
        own = expit(strength[asked[:, 0]] - strength[asked[:, 1]] + rng.normal(0.0, 1.0, panel))
        guessed = expit(thought[designed[:, 0]] - thought[designed[:, 1]])
        rows += [(*pair, preference, 0) for pair, preference in zip(asked.tolist(), own, strict=True)]
        rows += [(*pair, preference, 1) for pair, preference in zip(designed.tolist(), guessed, strict=True)]
        counts.append(panel + len(designed))
    a, b, preference, judge = (np.array(column) for column in zip(*rows, strict=True))
    columns = ComparisonColumns(
        a=a, b=b, preference=preference.astype(np.float64), weight=np.ones(len(a)), judge=judge,
        swapped=np.zeros(len(a), dtype=np.bool_), offsets=np.concatenate([[0], np.cumsum(counts)]),
        sizes=np.full(queries, SIZE),
    )  # fmt: skip
    return columns, judge == 1


def weight_of(error: float) -> float:
    columns, is_student = votes(error)
    rng = np.random.default_rng(1)
    found = choose_student_weight(columns, is_student, model="thurstone", prior_precision=0.3, rng=rng, threads=1)
    assert found.losses[np.flatnonzero(found.grid == found.weight)[0]] == found.losses.min()
    return found.weight


def test_a_students_votes_count_less_the_more_error_they_share() -> None:
    exact, poor, hopeless = weight_of(0.0), weight_of(1.5), weight_of(20.0)
    assert LIMITS[0] <= hopeless < poor < exact <= LIMITS[1]


def test_without_enough_pairs_of_the_panel_the_weight_is_the_start() -> None:
    columns, is_student = votes(0.5, queries=2)
    rng = np.random.default_rng(0)
    found = choose_student_weight(columns, is_student, model="thurstone", prior_precision=0.3, rng=rng)
    assert (found.weight, found.pairs, len(found.grid)) == (START, 40, 0)


def test_guided_asks_about_pairs_that_only_the_student_has_answered_and_never_twice() -> None:
    pairs = all_pairs(SIZE)
    free = np.ones(len(pairs), dtype=np.bool_)
    free[:3] = False
    theta = np.linspace(1.0, -1.0, SIZE)
    state = QueryState(
        size=SIZE, pairs=pairs, first_stage_rank=np.zeros(SIZE, dtype=np.int64), theta=theta,
        preference=expit(2.4 * (theta[pairs[:, 0]] - theta[pairs[:, 1]])), weight=np.where(free, 0.1, 1.0),
        logit_scale=2.41, free=free,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = Guided(Guided.Options(round_pairs=10)).sample(state, 50, rng)
    assert len(drawn) == 20, "twice as many as on average, of which a run with a budget gives out half"
    assert not {tuple(each) for each in drawn.tolist()} & {(0, 1), (0, 2), (0, 3)}
    few = Guided(Guided.Options(pairs_per_candidate=0.5)).sample(state, 50, rng)
    assert len(few) == 3, "six pairs of the panel in all, three of which are asked"


@pytest.mark.parametrize("budget", [0, 7])
def test_an_unrated_query_gets_a_cycle_within_its_budget(budget: int) -> None:
    state = QueryState(
        size=SIZE, pairs=np.zeros((0, 2), dtype=np.int64), first_stage_rank=np.zeros(SIZE, dtype=np.int64)
    )
    assert len(Guided().sample(state, budget, np.random.default_rng(0))) == min(budget, SIZE)
