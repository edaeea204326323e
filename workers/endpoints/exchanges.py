"""Records requests and raw replies while somebody listens, for trials of judges. Imports no Django.

The client of `workers.judges.openai` notes each call; outside `listening` that does nothing. A conversation marks the
question that it asks, so that the calls of concurrent questions can be told apart.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Exchange:
    """One call: the body of the request and the raw reply; `status` is None where no reply came. Not redacted."""

    key: int | None
    request: Mapping[str, Any]
    status: int | None = None
    reply: str = ""


_heard: contextvars.ContextVar[list[Exchange] | None] = contextvars.ContextVar("heard", default=None)
question: contextvars.ContextVar[int | None] = contextvars.ContextVar("question", default=None)


@contextlib.contextmanager
def listening() -> Iterator[list[Exchange]]:
    """Collect the calls that this thread starts within the block."""
    heard: list[Exchange] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def note_request(request: Mapping[str, Any]) -> Exchange | None:
    """Note a call before it is made; None where nobody listens."""
    heard = _heard.get()
    if heard is None:
        return None
    exchange = Exchange(question.get(), request)
    heard.append(exchange)
    return exchange


def note_reply(exchange: Exchange | None, status: int, reply: str) -> None:
    """Note the reply of a call."""
    if exchange is not None:
        exchange.status, exchange.reply = status, reply
