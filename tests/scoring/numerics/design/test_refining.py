"""Mining for a refinement: new pairs at the top, more where the student contradicts an uncertain Elo."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.records import FloatArray, QueryState
from scoring.numerics.design.adaptive import UnratedQuery
from scoring.numerics.design.refining import best_of, mine, ranks_of
from scoring.numerics.design.static import random_cycles
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.sampling.named import Named

SIZE, SCALE = 30, LOGIT_SCALES["thurstone"]


def judged(seed: int = 0, *, degree: int = 4) -> tuple[QueryState, FloatArray]:
    """A query whose judged pairs fit its strengths, and the strengths."""
    rng = np.random.default_rng(seed)
    theta = np.sort(rng.normal(0.0, 0.6, SIZE))[::-1].copy()
    pairs = np.sort(random_cycles(SIZE, degree, rng), axis=1)
    logits = SCALE * (theta[pairs[:, 0]] - theta[pairs[:, 1]]) + rng.normal(0.0, 0.5, len(pairs))
    state = QueryState(
        size=SIZE, pairs=pairs, first_stage_rank=np.zeros(SIZE, dtype=np.int64), theta=theta - theta.mean(),
        preference=1.0 / (1.0 + np.exp(-logits)), weight=np.ones(len(pairs)), prior_precision=0.5, logit_scale=SCALE,
    )  # fmt: skip
    return state, theta


def test_it_mines_new_pairs_of_the_top_and_says_where_the_student_contradicts_the_judgments() -> None:
    state, theta = judged()
    mined = mine(state, theta, 20, np.random.default_rng(1), top=5)
    asked = {tuple(pair) for pair in state.pairs.tolist()}
    assert len(mined.pairs) == 20 and not asked & {tuple(pair) for pair in mined.pairs.tolist()}
    assert (np.diff(mined.gain) <= 1e-12).all() and (mined.gain > 0.0).all()
    assert np.median(mined.pairs.min(axis=1)) < SIZE / 2, "the better document of a pair stands near the top"
    turned = mine(state, -theta, 20, np.random.default_rng(1), top=5)
    assert mined.against.mean() > 0.6 > 0.4 > turned.against.mean(), "the first student has the order of the strengths"
    partly = theta.copy()
    partly[0] = np.nan
    some = mine(state, partly, 40, np.random.default_rng(1), top=5)
    assert np.isnan(some.against[(some.pairs == 0).any(axis=1)]).all()
    assert mine(state, theta, 0, np.random.default_rng(1)).pairs.shape == (0, 2)


def test_a_query_with_few_answers_gets_more_of_the_budget_and_an_unrated_one_is_an_error() -> None:
    (few, theta), (many, other) = judged(1, degree=2), judged(2, degree=20)
    mined = [mine(few, theta, 30, np.random.default_rng(0)), mine(many, other, 30, np.random.default_rng(0))]
    chosen = best_of(mined, 30)
    assert sum(query == 0 for query, _ in chosen) > 20
    gains = [mined[query].gain[row] for query, row in chosen]
    assert gains == sorted(gains, reverse=True)
    assert best_of([], 5) == []
    unrated = QueryState(size=3, pairs=np.empty((0, 2), dtype=np.int64), first_stage_rank=np.zeros(3, dtype=np.int64))
    with pytest.raises(UnratedQuery):
        mine(unrated, np.zeros(3), 1, np.random.default_rng(0))


def test_ranks_leave_out_what_the_student_does_not_score_and_named_pairs_keep_their_order() -> None:
    assert ranks_of(np.array([0.2, np.nan, 0.9, 0.2])).tolist() == [2, 0, 1, 3]
    state, _ = judged()
    assert len(Named().sample(state, 5, np.random.default_rng(0))) == 0
    pairs = np.array([[3, 4], [0, 1], [2, 9]])
    offered = QueryState(size=SIZE, pairs=pairs[:1], first_stage_rank=np.zeros(SIZE, dtype=np.int64), recorded=pairs)
    assert Named().sample(offered, 2, np.random.default_rng(0)).tolist() == [[3, 4], [0, 1]]
