"""Answers about sets, read from bodies alone: label masses, preferences of all pairs, rankings."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from labeling.records import FailureKind, PlacedPreference
from workers.judges.openai.answers import NoAnswer
from workers.judges.openai.many_labels import preferences_of_masses, read_label_masses, read_ranking

LABELS = ("A", "B", "C")


def with_masses(**masses: float) -> dict[str, Any]:
    rows = [{"token": token, "logprob": math.log(mass)} for token, mass in masses.items()]
    best = max(rows, key=lambda row: row["logprob"])
    return {
        "choices": [{"message": {"content": best["token"]}, "logprobs": {"content": [{**best, "top_logprobs": rows}]}}]
    }


def saying(value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else json.dumps(value)
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def as_tuples(found: list[PlacedPreference]) -> list[tuple[int, int, float]]:
    return [(each.one, each.other, round(each.preference, 6)) for each in found]


def test_every_pair_of_letters_gives_a_preference() -> None:
    masses = read_label_masses(with_masses(A=0.6, B=0.2, C=0.15), LABELS, least_mass=0.8, missing="fail")
    assert masses.masses == pytest.approx((0.6, 0.2, 0.15))
    assert as_tuples(preferences_of_masses(masses)) == [(0, 1, 0.75), (0, 2, 0.8), (1, 2, round(0.2 / 0.35, 6))]


def test_unlisted_letters_lose_and_say_nothing_about_each_other() -> None:
    masses = read_label_masses(with_masses(B=0.9, The=0.05), LABELS, least_mass=0.8, missing="floor")
    assert masses.masses == (None, pytest.approx(0.9), None)
    bound = round(0.05 / 0.95, 6)
    assert as_tuples(preferences_of_masses(masses)) == [(0, 1, bound), (1, 2, round(1 - bound, 6))]


@pytest.mark.parametrize(
    "masses, missing, expected",
    [
        ({"A": 0.3, "B": 0.2, "C": 0.1, "The": 0.4}, "floor", "is 0.600, expected at least 0.8"),
        ({"A": 0.9, "B": 0.05}, "fail", "no log-probability for C"),
        ({"The": 0.9}, "floor", "no alternatives to .*A, B, C cannot be known"),
    ],
)
def test_too_little_mass_is_a_failure(masses: dict[str, float], missing: Any, expected: str) -> None:
    with pytest.raises(NoAnswer, match=expected) as caught:
        read_label_masses(with_masses(**masses), LABELS, least_mass=0.8, missing=missing)
    assert caught.value.kind is FailureKind.LABEL_MASS


@pytest.mark.parametrize(
    "said, expected",
    [
        ({"ranking": ["C", "A", "B"]}, [(2, 0, 1.0), (2, 1, 1.0), (0, 1, 1.0)]),
        ({"best": "b"}, [(1, 0, 1.0), (1, 2, 1.0)]),
        ('Here: {"best": "B", "ranking": ["B"]} as asked', [(1, 0, 1.0), (1, 2, 1.0)]),
        ({"best": "C", "ranking": ["C", "B", "A"]}, [(2, 1, 1.0), (2, 0, 1.0), (1, 0, 1.0)]),
    ],
)
def test_rankings_and_winners_are_preferences(said: Any, expected: list[tuple[int, int, float]]) -> None:
    assert as_tuples(read_ranking(saying(said), LABELS)) == expected


@pytest.mark.parametrize(
    "said", [{"best": "D"}, {"best": "A", "ranking": ["B", "A", "C"]}, {"ranking": ["A", "A", "B"]}, "A is best", {}]
)
def test_other_answers_are_unreadable(said: Any) -> None:
    with pytest.raises(NoAnswer) as caught:
        read_ranking(saying(said), LABELS)
    assert caught.value.kind is FailureKind.UNPARSEABLE
