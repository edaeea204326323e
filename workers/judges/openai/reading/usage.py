"""Tokens of a call as its reply states them, in the shapes of all servers whose replies are read. Imports no Django.

Some servers leave the tokens of thinking out of the answer's, and count them in the total alone. What a reply does not state is
estimated: the answer by its texts, so that a long one is not booked as one token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workers.judges.prompting import approximate_tokens

_INPUT = (
    "prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "inputTextTokenCount", "prompt_eval_count",
    "tokens_evaluated", "input_token_count",
)  # fmt: skip
_OUTPUT = (
    "completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count", "tokens_predicted",
    "generated_tokens", "generated_token_count",
)  # fmt: skip
_TOTAL = ("total_tokens", "totalTokenCount", "totalTokens")
# Anthropic and Bedrock count these beside the input.
_CACHED = (
    "cache_creation_input_tokens", "cache_read_input_tokens", "cacheWriteInputTokens", "cacheReadInputTokens",
)  # fmt: skip
# Where the counts are, besides the body itself.
_PLACES = ("usage", "usageMetadata", "meta_info", "details")
_TEXTS = ("content", "text", "reasoning", "reasoning_content", "thinking", "response", "generated_text", "arguments")
MOST_LEVELS = 8


def tokens_used(body: Mapping[str, Any], *, estimate: int) -> tuple[int, int]:
    """The tokens of prompt and answer; `estimate`: of the prompt, where the reply does not state them."""
    places = [body, *(body[name] for name in _PLACES if isinstance(body.get(name), dict))]
    inputs, outputs, total = (_first(places, names) for names in (_INPUT, _OUTPUT, _TOTAL))
    cached = 0 if _first(places, _INPUT[:1]) is not None else sum(_first(places, (name,)) or 0 for name in _CACHED)
    read = estimate if inputs is None else inputs + cached
    if outputs is None:
        outputs = max(1, sum(map(approximate_tokens, _texts(body, MOST_LEVELS))))
    return read, outputs if inputs is None or total is None else max(outputs, total - read)


def _first(places: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int | None:
    """The first of the counts that a place states."""
    found = (place[name] for place in places for name in names if name in place)
    return next((each for each in found if type(each) is int and 0 <= each < 2**31), None)


def _texts(value: Any, levels: int) -> Iterator[str]:
    """The texts that a model wrote, thinking included."""
    if isinstance(value, list) and levels:
        for each in value:
            yield from _texts(each, levels - 1)
    if isinstance(value, dict) and levels:
        for name, each in value.items():
            if isinstance(each, str) and name in _TEXTS:
                yield each
            elif isinstance(each, list | dict) and "logprob" not in name:
                yield from _texts(each, levels - 1)
