"""Tests an endpoint by real calls: its list of models, and one short chat completion. Imports no Django.

The page and the command of endpoints show the result, the judge form suggests the models. The calls pass by the limits that
workers share, since there are at most two of them.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from labeling.records import FailureKind
from workers.endpoints.event_loop import run
from workers.endpoints.registry import Access, Endpoint, KeyMissing
from workers.judges.openai.http.calls import Calls
from workers.judges.openai.http.client import Connection, without_secrets
from workers.judges.openai.http.statuses import failure_of_status, unsent_remedy
from workers.judges.openai.reading.failures import storable

MODELS = "/models"
MOST_LIST_BYTES = 8 * 1024 * 1024
MOST_MODELS = 2000
LONGEST_REPLY = 500
LONGEST_TEST_S = 30.0
QUESTION = "Reply with the single word OK."
TOKENS = 16


@dataclass(frozen=True, slots=True)
class Step:
    """One call: what it returned, how long it took, and why it failed. `message` holds no secret."""

    seconds: float = 0.0
    reply: str = ""
    kind: FailureKind | None = None
    message: str = ""

    @property
    def passed(self) -> bool:
        return self.kind is None


@dataclass(frozen=True, slots=True)
class ConnectionTest:
    """The results of a test: the list of models (None: not asked), and the chat completion (None: no model was named)."""

    models: list[str] = field(default_factory=list)
    listing: Step | None = None
    chat: Step | None = None
    model: str = ""

    @property
    def passed(self) -> bool:
        """Whether the decisive call succeeded: the chat if there was one; a server may have no list of models."""
        decisive = self.chat or self.listing
        return decisive is not None and decisive.passed

    @property
    def summary(self) -> str:
        """The failure of the decisive call in one line; empty if it succeeded."""
        decisive = self.chat or self.listing
        return "" if decisive is None or decisive.kind is None else f"{decisive.kind.value}: {decisive.message}"


def try_endpoint(endpoint: Endpoint, *, model: str = "") -> ConnectionTest:
    """Ask for the list of models, and let `model` answer a short question; failures are part of the result."""
    models, listing = list_models(endpoint, timeout_s=LONGEST_TEST_S)
    return ConnectionTest(models, listing, _chat(endpoint, model) if model else None, model)


def list_models(endpoint: Endpoint, *, timeout_s: float) -> tuple[list[str], Step]:
    """The names of the endpoint's models (GET /models), in its order, at most MOST_MODELS."""
    began = time.monotonic()

    def failed(kind: FailureKind, message: str) -> tuple[list[str], Step]:
        return [], Step(time.monotonic() - began, kind=kind, message=message)

    try:
        access = endpoint.access()
    except KeyMissing as error:
        return failed(FailureKind.BAD_REQUEST, str(error))
    try:
        status, headers, content = run(_get(f"{endpoint.base_url}{MODELS}", access, timeout_s))
    except TimeoutError:
        return failed(FailureKind.TIMEOUT, f"no complete answer within {timeout_s:.3g} s; check base_url and firewall")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"{type(error).__name__}: {error}; {unsent_remedy(error, urlsplit(endpoint.base_url).netloc)}"
        return failed(FailureKind.UNAVAILABLE, without_secrets(message, access))
    if status != 200:
        failure = failure_of_status(status, headers, without_secrets(content.decode(errors="replace"), access))
        return failed(failure.kind, without_secrets(str(failure), access))
    names = _names(_parsed(content))
    if names is None:
        return failed(
            FailureKind.UNPARSEABLE, "the reply is not a list of models; check that base_url leads to the API"
        )
    shown = [without_secrets(name, access) for name in names[:MOST_MODELS]]
    return shown, Step(time.monotonic() - began, reply=", ".join(shown)[:LONGEST_REPLY])


async def _get(url: str, access: Access, timeout_s: float) -> tuple[int, httpx.Headers, bytes]:
    """(status, headers, content) of a GET, within `timeout_s` in all; follows no redirect. Raises httpx.HTTPError, TimeoutError."""
    async with (
        asyncio.timeout(timeout_s),
        httpx.AsyncClient(timeout=None, follow_redirects=False) as client,
        client.stream("GET", url, headers=list(access.headers), params=list(access.query) or None) as response,
    ):
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MOST_LIST_BYTES:
                raise httpx.TransportError(f"the reply is longer than {MOST_LIST_BYTES} bytes")
        return response.status_code, response.headers, bytes(content)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _names(body: Any) -> list[str] | None:
    """The names in a reply of the OpenAI API, or in the bare list that some servers return; None for anything else."""
    rows = body.get("data") if isinstance(body, dict) else body
    if not isinstance(rows, list):
        return None
    names = [row.get("id") or row.get("name") for row in rows if isinstance(row, dict)]
    return [storable(name)[:200] for name in names if isinstance(name, str) and name]


def _chat(endpoint: Endpoint, model: str) -> Step:
    """One short chat completion; a rejected parameter is changed and the request sent again, as for judges."""
    began = time.monotonic()
    limited = endpoint.model_copy(update={"timeout_s": min(endpoint.timeout_s, LONGEST_TEST_S)})
    request = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": TOKENS}

    async def ask() -> Calls:
        calls = Calls(Connection(limited), model, TOKENS, time.monotonic() + 2 * limited.timeout_s)
        await calls.ask(request)
        return calls

    try:
        calls = run(ask())
    except KeyMissing as error:
        return Step(time.monotonic() - began, kind=FailureKind.BAD_REQUEST, message=str(error))
    if not calls.completions:
        failure = calls.failed[-1]
        return Step(time.monotonic() - began, kind=failure.kind, message=str(failure))
    completion = calls.completions[0]
    text = _text(completion.body)
    if text is None:
        message = "the reply holds no choices with a message; check that base_url leads to the API"
        return Step(completion.latency_s, kind=FailureKind.UNPARSEABLE, message=message)
    return Step(completion.latency_s, reply=storable(text)[:LONGEST_REPLY])


def _text(body: dict[str, Any]) -> str | None:
    """The text of the first choice, "" where the model returned none; None without a choice."""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        return None
    content = message.get("content")
    return content if isinstance(content, str) else ""
