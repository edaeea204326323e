"""Reading chat completions and headers: what counts as an answer, and what is a failure instead."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from labeling.records import FailureKind
from workers.judges.openai.answers import NoAnswer, clamp, read_logprobs, read_score, read_votes
from workers.judges.openai.http.statuses import failure_of_status, retry_after_s


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


@pytest.mark.parametrize(
    ("status", "body", "kind", "waits"),
    [
        (400, {"message": "Too many requests, please wait before trying again.", "__type": "ThrottlingException"}, "rate_limited", None),
        (400, {"__type": "com.amazon.coral.availability#ThrottlingException", "message": "Rate exceeded"}, "rate_limited", None),
        (429, {"error": {"message": "Token rate limit exceeded. Please retry after 7 seconds."}}, "rate_limited", 7.0),
        (429, {"error": {"message": "Rate limit reached. Please try again in 7m12.5s."}}, "rate_limited", 432.5),
        (429, {"error": {"message": "Please try again in 820ms."}}, "rate_limited", 0.82),
        (429, [{"error": {"status": "RESOURCE_EXHAUSTED", "message": "x", "details": [{"retryDelay": "36s"}]}}], "rate_limited", 36.0),
        (429, {"error": {"message": "Try again in 3 days"}}, "rate_limited", None),
        (503, {"error": {"message": "Loading; retry in 20 seconds"}}, "unavailable", 20.0),
        (400, {"error": {"message": "ExceededBudget: Current spend: 10", "type": "budget_exceeded"}}, "over_budget", None),
        (403, {"error": "Content violates usage guidelines. Failed check: SAFETY"}, "content_filter", None),
        (403, {"error": {"message": "Request violates our acceptable use policy"}}, "content_filter", None),
        (400, {"error": {"message": "messages.0: the document says 'violation of content'"}}, "bad_request", None),
    ],
)  # fmt: skip
def test_limits_budgets_and_filters_are_known_whatever_their_status(
    status: int, body: Any, kind: str, waits: float | None
) -> None:
    failure = failure_of_status(status, {}, json.dumps(body))
    assert (failure.kind.value, failure.retry_after_s) == (kind, waits)
    assert failure.denied is False, "a filtered document is no rejected key"
