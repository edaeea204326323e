"""Tokens that replies state, by the names of every server whose replies are read; none is booked as fewer than it says."""

from __future__ import annotations

from typing import Any

import pytest

from workers.judges.openai.reading.usage import tokens_used

LONG = "The first document names the pump and says how it is cleaned. " * 10


def reply(**usage: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}], "usage": usage}


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (reply(prompt_tokens=30, completion_tokens=9, total_tokens=39), (30, 9)),
        # xAI and Gemini: thinking in the total alone
        (reply(prompt_tokens=32, completion_tokens=9, total_tokens=135, completion_tokens_details={"reasoning_tokens": 94}), (32, 103)),
        (reply(prompt_tokens=32, completion_tokens=103, total_tokens=135, completion_tokens_details={"reasoning_tokens": 94}), (32, 103)),
        (reply(prompt_tokens=32, total_tokens=40), (32, 8)),
        (reply(prompt_tokens=32, completion_tokens=9, total_tokens=7), (32, 9)),
        (reply(prompt_tokens=32, completion_tokens=True, total_tokens="135"), (32, 1)),
        (reply(input_tokens=10, output_tokens=4, cache_read_input_tokens=200, cache_creation_input_tokens=0), (210, 4)),
        (reply(prompt_tokens=210, completion_tokens=4, cache_read_input_tokens=200), (210, 4)),
        ({"candidates": [], "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 2, "thoughtsTokenCount": 60, "totalTokenCount": 70}}, (8, 62)),
        ({"message": {"content": "A"}, "prompt_eval_count": 26, "eval_count": 290}, (26, 290)),
        ({"content": "A", "tokens_evaluated": 12, "tokens_predicted": 7}, (12, 7)),
        ({"generated_text": "A", "details": {"generated_tokens": 20}}, (50, 20)),
        ({"text": "A", "meta_info": {"prompt_tokens": 14, "completion_tokens": 6}}, (14, 6)),
        ({"output": {"message": {"content": [{"text": "A"}]}}, "usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}}, (5, 3)),
        ({"choices": [{"message": {"content": "A"}}], "usage": None}, (50, 1)),
    ],
)  # fmt: skip
def test_stated_tokens_are_read_in_every_shape(body: dict[str, Any], used: tuple[int, int]) -> None:
    assert tokens_used(body, estimate=50) == used


def test_an_answer_whose_tokens_are_not_stated_is_estimated_by_its_texts() -> None:
    for message in ({"content": LONG}, {"content": "A", "reasoning_content": LONG}, {"content": [{"text": LONG}]}):
        body = {"choices": [{"message": message, "logprobs": {"content": [{"token": "A", "text": LONG}]}}]}
        assert 150 < tokens_used(body, estimate=50)[1] < 250
