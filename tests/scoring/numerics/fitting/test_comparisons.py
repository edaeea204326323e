"""Votes become pair means: what counts as one vote, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logit

from scoring.numerics.fitting import comparisons
from scoring.numerics.fitting.comparisons import aggregate_pairs, votes_of_query
from tests.factories.votes import join


def test_both_orders_of_one_judge_count_as_one_vote_with_averaged_logits() -> None:
    votes = votes_of_query([0, 0], [1, 1], [0.9, 0.6], size=2, swapped=[False, True])
    pairs = aggregate_pairs(votes)
    assert pairs.weight.tolist() == [1.0]
    assert pairs.preference[0] == pytest.approx(expit((logit(0.9) + logit(0.6)) / 2))


def test_order_is_relative_to_the_pair_and_not_to_how_it_was_written() -> None:
    written_alike = votes_of_query([0, 0], [1, 1], [0.9, 0.6], size=2, swapped=[False, True])
    turned_round = votes_of_query([0, 1], [1, 0], [0.9, 0.4], size=2, swapped=[False, False])
    assert aggregate_pairs(turned_round).preference == pytest.approx(aggregate_pairs(written_alike).preference)


def test_conflicting_hard_answers_of_one_judge_make_a_tie() -> None:
    pairs = aggregate_pairs(votes_of_query([0, 0], [1, 1], [1.0, 0.0], size=2, swapped=[False, True]))
    assert (pairs.preference[0], pairs.weight[0]) == (0.5, 1.0)


def test_a_hard_answer_and_a_tie_average_to_three_quarters() -> None:
    pairs = aggregate_pairs(votes_of_query([0, 0], [1, 1], [1.0, 0.5], size=2, swapped=[False, True]))
    assert pairs.preference[0] == pytest.approx(0.75)


def test_judges_add_weight_and_average() -> None:
    pairs = aggregate_pairs(votes_of_query([0, 0], [1, 1], [1.0, 0.0], size=2, judge=[0, 1], weight=[3.0, 1.0]))
    assert (pairs.preference[0], pairs.weight[0]) == (0.75, 4.0)


def test_judges_with_large_numbers_are_told_apart() -> None:
    votes = votes_of_query([0, 0], [1, 1], [1.0, 0.0], size=2, judge=[10**12, 7], swapped=[False, True])
    assert aggregate_pairs(votes).weight.tolist() == [2.0]


def test_repeated_votes_in_one_order_add_up() -> None:
    pairs = aggregate_pairs(votes_of_query([0, 0, 1], [1, 1, 0], [1.0, 1.0, 1.0], size=2, swapped=[0, 0, 1]))
    assert (pairs.weight[0], pairs.preference[0]) == (3.0, pytest.approx(2 / 3))


def test_pairs_without_weight_are_not_judged() -> None:
    assert not len(aggregate_pairs(votes_of_query([0], [1], [0.9], size=2, weight=[0.0])).a)


def test_pairs_come_sorted_and_by_query() -> None:
    first = votes_of_query([3, 1, 0], [1, 2, 3], [0.2, 0.6, 0.7], size=4)
    second = votes_of_query([1], [0], [0.8], size=2)
    pairs = aggregate_pairs(join([first, second]))
    assert list(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)) == [(0, 3), (1, 2), (1, 3), (0, 1)]
    assert pairs.preference == pytest.approx([0.7, 0.6, 0.8, 0.2])
    assert pairs.of_query(1).preference == pytest.approx([0.2])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"preference": [0.5, 1.5]}, comparisons.PreferenceOutOfRange, "row 1 of query 0: preference is 1.5"),
        ({"preference": [0.5, np.nan]}, comparisons.PreferenceOutOfRange, "nan"),
        ({"weight": [1.0, -1.0]}, comparisons.InvalidWeight, "-1.0"),
        ({"weight": [1.0, np.inf]}, comparisons.InvalidWeight, "inf"),
        ({"b": [1, 0]}, comparisons.SelfPair, "compared with itself"),
        ({"b": [1, 3]}, comparisons.UnknownCandidate, "below 3"),
        ({"a": [0, -1]}, comparisons.UnknownCandidate, "-1"),
        ({"judge": [0, -1]}, comparisons.InvalidJudge, "-1"),
        ({"sizes": [0]}, comparisons.EmptyQuery, "0 candidates"),
        ({"offsets": [0, 1]}, comparisons.MalformedColumns, "offsets"),
        ({"offsets": [0, 1, 2]}, comparisons.MalformedColumns, "1 queries"),
        ({"weight": [1.0]}, comparisons.MalformedColumns, "weight has 1 rows"),
    ],
)
def test_a_defect_is_refused_by_name(change: dict[str, list[float]], error: type[ValueError], words: str) -> None:
    votes = votes_of_query([0, 0], [1, 2], [0.5, 0.5], size=3)
    broken = dataclasses.replace(votes, **{name: np.array(values) for name, values in change.items()})
    with pytest.raises(error, match=words):
        aggregate_pairs(broken)
