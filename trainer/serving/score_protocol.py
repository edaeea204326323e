"""Parses requests and builds responses of vLLM's `/score`, as pure functions. Imports no Django.

One text is scored against many, or each against the one at its place.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.serving.protocols import (
    INSTRUCTION,
    RerankRefused,
    instruction_named,
    model_named,
    raw_scores,
    several,
    text_of,
    truncates,
    truncation,
    unused,
)

# The names under which vLLM's versions take the two sides; `items` came last.
_SIDES = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One validated request: `groups` holds each query with its documents, in the order of the response.

    `instruction` stands before each query.
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    model: str = ""
    raw_scores: bool = False
    truncate: bool = True
    warnings: tuple[str, ...] = ()
    instruction: str = ""


def read_score_request(body: Mapping[str, Any], warnings: tuple[str, ...] = ()) -> ScoreRequest:
    """The validated request of a body. Raises RerankRefused."""
    sides = next((pair for pair in _SIDES if all(body.get(name) is not None for name in pair)), _SIDES[0])
    first, second = (_texts(body.get(name), name) for name in sides)
    if len(first) not in (1, len(second)):
        raise RerankRefused(
            422,
            f"{sides[0]} holds {len(first):,} texts and {sides[1]} {len(second):,}; expected one text in {sides[0]}, or as many "
            "as in the other",
        )
    groups = (
        [(first[0], second)] if len(first) == 1 else [(one, (other,)) for one, other in zip(first, second, strict=True)]
    )
    return ScoreRequest(
        tuple(groups),
        model=model_named(body),
        raw_scores=raw_scores(body),
        truncate=truncates(body),
        warnings=(*warnings, *unused(body, (*sides, INSTRUCTION))),
        instruction=instruction_named(body),
    )


def _texts(value: Any, field: str) -> tuple[str, ...]:
    if isinstance(value, str | dict):
        return (text_of(value, field),)
    return tuple(text_of(each, f"{field}[{place}]") for place, each in enumerate(several(value, field)))


def score_answer(
    request: ScoreRequest, scores: Sequence[float], *, model: str, tokens: int, cut: int, query_cut: bool
) -> dict[str, Any]:
    """The body of a successful response: one score per pair, in the order of the request."""
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": place, "object": "score", "score": score} for place, score in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        "meta": truncation(request.warnings, cut=cut, query_cut=query_cut),
    }
