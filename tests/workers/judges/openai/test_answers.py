"""Reading chat completions and headers: what counts as an answer, and what is a failure instead."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from labeling.records import FailureKind
from workers.judges.openai.answers import NoAnswer, clamp, read_logprobs, read_score, read_votes
from workers.judges.openai.http.statuses import retry_after_s


def body_of(logprobs: dict[str, Any], chosen: str) -> dict[str, Any]:
    rows = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    content = [{"token": chosen, "logprob": logprobs[chosen], "top_logprobs": rows}]
    return {"choices": [{"message": {"content": chosen}, "logprobs": {"content": content}, "finish_reason": "stop"}]}


def test_variants_of_a_label_are_added_up() -> None:
    masses = {"A": 0.3, " A": 0.2, "ĠB": 0.3, "▁B": 0.1, "a": 0.05}
    body = body_of({token: math.log(mass) for token, mass in masses.items()}, "A")
    assert read_logprobs(body, least_mass=0.8, missing="fail").preference_of_first == pytest.approx(5 / 9)
    with pytest.raises(NoAnswer, match=r"0\.900"):
        read_logprobs(body, least_mass=0.91, missing="fail")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "0", True, 3.0])
def test_value_that_is_no_log_probability_is_a_failure(value: Any) -> None:
    with pytest.raises(NoAnswer) as problem:
        read_logprobs(body_of({"A": -0.1, "B": value}, "A"), least_mass=0.0, missing="floor")
    assert problem.value.kind is FailureKind.LABEL_MASS


@pytest.mark.parametrize(
    "content, expected",
    [
        ('{"reasoning": "x", "score": 0.5}', 0.75),
        ('```json\n{"reasoning": "x", "score": -1}\n```', 0.0),
        ('<think>{"score": 1}</think> Here: {"reasoning": "x", "score": 0}', 0.5),
        ('{"score": true}', None),
        ('{"score": "0.5"}', 0.75),
        ('{"score": "0,5"}', None),
        ('{"score": "50%"}', None),
        ('{"score": 1.01}', None),
        ("[0.5]", None),
        ("{" * 100_000, None),
    ],
)
def test_score_is_found_or_refused(content: str, expected: float | None) -> None:
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    if expected is None:
        with pytest.raises(NoAnswer):
            read_score(body)
    else:
        assert read_score(body).preference_of_first == expected


def test_rationale_can_be_stored() -> None:
    content = json.dumps({"reasoning": "a\x00b\ud800c", "score": 0})
    rationale = read_score({"choices": [{"message": {"content": content}}]}).rationale
    assert rationale.encode() == b"a b c"


def votes_of(*contents: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"} for text in contents]}


def test_few_unreadable_votes_are_left_out_and_many_fail() -> None:
    assert read_votes([votes_of("A", "**B**", "Document A", "A.", "Both")], votes=5).preference_of_first == 0.75
    with pytest.raises(NoAnswer, match="3 of 5"):
        read_votes([votes_of("A", "B", "A", "Both", "Neither")], votes=5)
    with pytest.raises(NoAnswer, match="ignores `n`"):
        read_votes([votes_of("A")], votes=5)


def test_clamping_of_scores() -> None:
    assert [clamp(value) for value in (0.0, 0.25, 0.26, 0.5, 0.74, 0.75, 1.0)] == [0, 0, 0.5, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_in_its_spellings(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected
