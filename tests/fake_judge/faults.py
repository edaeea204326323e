"""What can go wrong with a hosted model: each fault by name, and when it strikes.

A fault strikes because it was ordered (`next`), or by a rate that the seed decides: the n-th time that a
question is asked it meets the same fate in every run. Used by `server`.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum
from time import time
from typing import Any

from tests.fake_judge.quality import uniform


class Delivery(Enum):
    """How the bytes of a reply go out."""

    WHOLE = "whole"
    HANG = "hang"
    TRICKLE = "trickle"
    CUT = "cut"
    DISCONNECT = "disconnect"


@dataclass(slots=True)
class Reply:
    """One HTTP response; `delay_s` passes before its first byte."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE
    delay_s: float = 0.0


Answer = dict[str, Any]
Strike = Callable[[Answer, float], Reply]


def _error(status: int, message: str, *, code: str | None = None, **headers: str) -> Reply:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Reply(status, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


def _changed(change: Callable[[dict[str, Any]], None]) -> Strike:
    """A fault that alters every choice of an otherwise good answer."""

    def strike(answer: Answer, _: float) -> Reply:
        for choice in answer["choices"]:
            change(choice)
        return Reply(body=json.dumps(answer).encode())

    return strike


def _set_logprobs(values: Mapping[str, float | None]) -> Callable[[dict[str, Any]], None]:
    def change(choice: dict[str, Any]) -> None:
        rows = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in values.items()]
        choice["logprobs"] = {"content": [{**rows[0], "top_logprobs": rows}], "refusal": None}
        choice["message"]["content"] = rows[0]["token"]

    return change


def _content(text: str, *, finish: str = "stop") -> Callable[[dict[str, Any]], None]:
    def change(choice: dict[str, Any]) -> None:
        choice["message"]["content"] = text
        choice["finish_reason"] = finish
        choice["logprobs"] = None

    return change


def _refuse(choice: dict[str, Any]) -> None:
    choice["message"] |= {"content": None, "refusal": "I cannot help with comparing these documents."}
    choice["logprobs"] = None


def _filter(choice: dict[str, Any]) -> None:
    choice["message"]["content"] = None
    choice["finish_reason"] = "content_filter"
    choice["logprobs"] = None


def _null_logprobs(choice: dict[str, Any]) -> None:
    choice["logprobs"] = None


def _delivered(delivery: Delivery) -> Strike:
    return lambda answer, _: Reply(body=json.dumps(answer).encode(), delivery=delivery)


def _truncated(answer: Answer, _: float) -> Reply:
    body = json.dumps(answer).encode()
    return Reply(body=body[: len(body) * 2 // 3])


TOO_MANY = "Rate limit reached for requests"

FAULTS: dict[str, Strike] = {
    "rate_limited": lambda _, after: _error(429, TOO_MANY, code="rate_limit_exceeded", retry_after=f"{after:g}"),
    "rate_limited_ms": lambda _, after: _error(429, TOO_MANY, retry_after_ms=f"{after * 1000:g}"),
    "rate_limited_date": lambda _, after: _error(429, TOO_MANY, retry_after=formatdate(time() + after, usegmt=True)),
    "rate_limited_silent": lambda *_: _error(429, TOO_MANY, code="rate_limit_exceeded"),
    "quota": lambda *_: _error(429, "You exceeded your current quota", code="insufficient_quota"),
    "payment_required": lambda *_: _error(402, "Insufficient balance"),
    "http_500": lambda *_: _error(500, "The server had an error"),
    "gpu_memory": lambda *_: _error(500, "CUDA out of memory. Tried to allocate 2.00 GiB"),
    "http_503": lambda _, after: _error(503, "The engine is overloaded", retry_after=f"{after:g}"),
    "http_529": lambda *_: _error(529, "Overloaded"),
    "unauthorized": lambda *_: _error(401, "Incorrect API key provided", code="invalid_api_key"),
    "bad_request": lambda *_: _error(400, "Unsupported parameter: 'logprobs'", code="unsupported_parameter"),
    "redirect": lambda *_: Reply(307, b"", {"location": "/_fake/elsewhere"}),
    "context_error": lambda *_: _error(
        400,
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 5301 tokens.",
        code="context_length_exceeded",
    ),
    "content_filter_400": lambda *_: _error(400, "The prompt triggered a content policy", code="content_filter"),
    "error_in_200": lambda *_: Reply(body=b'{"error": {"message": "Upstream error", "code": 502}}'),
    "hang": _delivered(Delivery.HANG),
    "trickle": _delivered(Delivery.TRICKLE),
    "cut_connection": _delivered(Delivery.CUT),
    "disconnect": _delivered(Delivery.DISCONNECT),
    "truncated_json": _truncated,
    "html": lambda *_: Reply(body=b"<html>502 Bad Gateway</html>", headers={"content-type": "text/html"}),
    "empty_choices": lambda answer, _: Reply(body=json.dumps({**answer, "choices": []}).encode()),
    "refusal": _changed(_refuse),
    "refusal_text": _changed(_content("I'm sorry, but I can't help with that.")),
    "content_filter": _changed(_filter),
    "null_logprobs": _changed(_null_logprobs),
    "null_logprob": _changed(_set_logprobs({"A": None, "B": -0.7})),
    "nan_logprobs": _changed(_set_logprobs({"A": math.nan, "B": math.nan})),
    "low_label_mass": _changed(_set_logprobs({"The": -0.4, "A": -1.9, "B": -2.3})),
    "one_label": _changed(_set_logprobs({"A": -0.0001, "The": -9.5, "**": -12.0})),
    "prose": _changed(_content("Both documents have their merits.")),
    "mention": _changed(_content('I could also have answered {"reasoning": "A is far better.", "score": 1}')),
    "out_of_range": _changed(_content('{"reasoning": "A is far better.", "score": 7}')),
    "nan_score": _changed(_content('{"reasoning": "Hard to say.", "score": NaN}')),
    "cut_answer": _changed(_content('{"reasoning": "Document A speaks of the que', finish="length")),
}

UNPAID = {
    *("rate_limited", "rate_limited_ms", "rate_limited_date", "rate_limited_silent", "quota", "payment_required"),
    *("http_500", "gpu_memory", "http_503", "http_529", "unauthorized", "bad_request", "redirect", "context_error"),
    *("content_filter_400", "error_in_200"),
}


class FaultPlan:
    """Which fault a call meets, if any."""

    def __init__(self, *, seed: int, rates: Mapping[str, float] | None = None, retry_after_s: float = 1.0) -> None:
        self.seed = seed
        self.rates = checked_rates(rates or {})
        self.retry_after_s = retry_after_s
        self.ordered: deque[str] = deque()
        self._asked: Counter[str] = Counter()

    def meet(self, question: str, rates: Mapping[str, float]) -> tuple[str, int]:
        """(name of the fault or "", how many times this question has been asked, this time included)."""
        self._asked[question] += 1
        asked = self._asked[question]
        if self.ordered:
            return self.ordered.popleft(), asked
        drawn = uniform(f"fault {self.seed} {asked} {question}")
        for name, rate in {**self.rates, **rates}.items():
            if drawn < rate:
                return name, asked
            drawn -= rate
        return "", asked

    def strike(self, name: str, answer: Answer) -> Reply:
        return FAULTS[name](answer, self.retry_after_s)


def checked_rates(rates: Mapping[str, float]) -> dict[str, float]:
    """The rates as floats; ValueError for an unknown fault or rates that sum above 1."""
    unknown = sorted(set(rates) - set(FAULTS))
    if unknown:
        raise ValueError(f"unknown faults {unknown}; known: {sorted(FAULTS)}")
    if not 0.0 <= sum(rates.values()) <= 1.0 + 1e-9:
        raise ValueError(f"fault rates sum to {sum(rates.values())}; expected at most 1")
    return {name: float(rate) for name, rate in rates.items()}
