"""One paid call to an endpoint: reused connections, a total deadline, limits of rate and number.

All judges of a process share the loop of `workers.endpoints.event_loop` and one connection pool an endpoint, however
many threads call them. Imports no Django.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx
import pydantic

from labeling.records import FailureKind
from workers.endpoints.exchanges import note_reply, note_request
from workers.endpoints.gates import Gate, Held, Left, LocalGate, Outcome
from workers.endpoints.registry import Endpoint
from workers.judges.openai.answers import storable

MOST_REPLY_BYTES = 4 * 1024 * 1024
MOST_RETRY_AFTER_S = 3600.0
CONNECT_S = 10.0

_SECRET = re.compile(r"\b(?:sk|pk|gsk|xai|key|hf)[-_][A-Za-z0-9*._-]{6,}|Bearer\s+\S+", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|max(?:imum)?[_ ](?:context|model)|max_model_len|too many (?:input )?tokens|"
    r"(?:prompt|input|request) (?:is )?too (?:long|large)|exceeds? the (?:available|maximum|model)",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content[_ ](?:filter|policy|management)|responsible_?ai|moderation|safety (?:system|filter)|flagged",
    re.IGNORECASE,
)


class CallFailed(Exception):
    """A call without a completion; `paid`: whether it may have been charged; `reached`: whether a server had accepted the
    request; `denied`: whether the key was rejected.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        retryable: bool,
        retry_after_s: float | None = None,
        paid: bool = False,
        reached: bool = True,
        denied: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.paid = paid
        self.reached = reached
        self.denied = denied


class CallNotMade(CallFailed):
    """No call was made, because it could not start before the deadline of the batch."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply with status 200: its JSON, unread."""

    body: dict[str, Any]
    latency_s: float


class Connection:
    """The pool of connections to one endpoint, with its limits; lives on the loop of `run`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.gate: Gate = LocalGate(endpoint.limits)
        self._certificates = httpx.create_ssl_context()
        # One client per slot, most recently used first. One client with hundreds of connections searches
        # all of them at each call: with 600 in flight we measured 49 calls a second.
        self._idle: list[httpx.AsyncClient] = []

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=min(CONNECT_S, self.endpoint.timeout_s)),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            verify=self._certificates,
        )

    async def complete(
        self, request: Mapping[str, Any], *, tokens: int, deadline: float, gate: Gate | None = None
    ) -> Completion:
        """POST to /chat/completions. `tokens`: estimate for the rate limit; `deadline`: by time.monotonic(); `gate`:
        admits the call, by default by the endpoint's limits in this process alone.

        Raises CallFailed, and CallNotMade if the call could not start early enough for its full timeout.
        """
        gate = gate or self.gate
        latest_start = deadline - min(self.endpoint.timeout_s, (deadline - time.monotonic()) / 2)
        try:
            entered = await gate.enter(tokens, latest_start)
        except Held as error:
            message = f"not asked: {error} of endpoint {self.endpoint.name!r} until the end of the batch"
            raise CallNotMade(FailureKind.RATE_LIMITED, message, retryable=True, retry_after_s=error.wait_s) from None
        outcome = Left(Outcome.ANSWERED)
        try:
            completion = await self._call(request, min(self.endpoint.timeout_s, deadline - time.monotonic()))
            outcome = Left(Outcome.ANSWERED, correction=_tokens_stated(completion.body, tokens) - tokens)
            return completion
        except CallFailed as error:
            outcome = Left(outcome_of(error), -tokens * (not error.paid), error.retry_after_s, str(error))
            raise
        finally:
            gate.leave(entered, outcome)

    async def _call(self, request: Mapping[str, Any], timeout_s: float) -> Completion:
        started = time.monotonic()
        key = self.endpoint.api_key()
        try:
            async with asyncio.timeout(timeout_s):
                exchange = note_request(request)
                status, headers, content = await self._post(request, key)
                note_reply(exchange, status, redact(content.decode(errors="replace"), key))
        except (TimeoutError, httpx.TimeoutException) as error:
            unsent = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
            message = (
                f"no complete answer within {timeout_s:.3g} s; raise timeout_s of {self.endpoint.name!r} if it is slow"
            )
            raise CallFailed(
                FailureKind.TIMEOUT, message, retryable=True, paid=not unsent, reached=not unsent
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            paid = not isinstance(error, httpx.ConnectError)
            message = f"endpoint {self.endpoint.name!r}: {type(error).__name__}: {error}"
            raise CallFailed(
                FailureKind.UNAVAILABLE, redact(message, key), retryable=True, paid=paid, reached=paid
            ) from None
        if status != 200:
            self._raise_status(status, headers, content, key)
        return Completion(self._body(content, headers, key), time.monotonic() - started)

    async def _post(
        self, request: Mapping[str, Any], key: pydantic.SecretStr | None
    ) -> tuple[int, httpx.Headers, bytes]:
        """(status, headers, content); aborts a reply that exceeds MOST_REPLY_BYTES."""
        headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        url = f"{self.endpoint.base_url}/chat/completions"
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            async with client.stream("POST", url, json=request, headers=headers) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MOST_REPLY_BYTES:
                        message = f"the reply is longer than {MOST_REPLY_BYTES} bytes"
                        raise CallFailed(FailureKind.UNPARSEABLE, message, retryable=False, paid=True)
                return response.status_code, response.headers, bytes(content)
        finally:
            self._idle.append(client)

    def _body(self, content: bytes, headers: httpx.Headers, key: pydantic.SecretStr | None) -> dict[str, Any]:
        try:
            body = without_key(json.loads(content), key)
        except (ValueError, RecursionError):
            shown = redact(
                content.decode(errors="replace"), key
            )  # redact before truncating, so that no part of a key remains
            message = f"the reply is not JSON: {shown[:120]!r}"
            raise CallFailed(FailureKind.UNPARSEABLE, message, retryable=True, paid=True) from None
        if not isinstance(body, dict):
            raise CallFailed(FailureKind.UNPARSEABLE, "the reply is not a JSON object", retryable=True, paid=True)
        if body.get("error") and not body.get("choices"):  # some gateways report errors under status 200
            code = body["error"].get("code") if isinstance(body["error"], dict) else None
            self._raise_status(code if isinstance(code, int) else 502, headers, content, key)
        return body

    def _raise_status(
        self, status: int, headers: httpx.Headers, content: bytes, key: pydantic.SecretStr | None
    ) -> NoReturn:
        failure = failure_of_status(status, headers, without_key(content.decode(errors="replace"), key))
        # Once more: in JSON the key may have been written with escapes.
        message = redact(f"endpoint {self.endpoint.name!r}: {failure}", key)
        raise CallFailed(
            failure.kind,
            message,
            retryable=failure.retryable,
            retry_after_s=failure.retry_after_s,
            reached=status not in UNREACHED | DENIED and failure.kind is not FailureKind.OVER_BUDGET,
            denied=status in DENIED and failure.kind is FailureKind.BAD_REQUEST,
        ) from None


# Gateway statuses for an unreachable server; the question may have caused any other server error.
UNREACHED = {502, 503, 504, 521, 522, 523, 529}
# Statuses for a wrong or blocked key, which fails every question.
DENIED = {401, 403}


def outcome_of(failure: CallFailed) -> Outcome:
    """The state of the endpoint after a failed call."""
    if failure.kind is FailureKind.RATE_LIMITED:
        return Outcome.RATE_LIMITED
    if failure.kind in {FailureKind.TIMEOUT, FailureKind.UNAVAILABLE, FailureKind.OVER_BUDGET} or failure.denied:
        return Outcome.OUTAGE
    return Outcome.ANSWERED


def _tokens_stated(body: Mapping[str, Any], otherwise: int) -> int:
    usage = body.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and 0 <= total < 2**31 else otherwise


def failure_of_status(status: int, headers: Mapping[str, str], content: str) -> CallFailed:
    """The failure for a status other than 200; the body distinguishes overflow, filter and quota."""
    code, text = _error_text(content)
    shown = f"HTTP {status}: {text[:400]}"
    said = f"{code} {text}"

    def failed(kind: FailureKind, *, retryable: bool) -> CallFailed:
        after = retry_after_s(headers) if retryable else None
        return CallFailed(kind, shown, retryable=retryable, retry_after_s=after)

    if status == 402 or code in {"insufficient_quota", "billing_hard_limit_reached"}:
        return failed(FailureKind.OVER_BUDGET, retryable=False)
    if status == 429:
        return failed(FailureKind.RATE_LIMITED, retryable=True)
    if status == 408:
        return failed(FailureKind.TIMEOUT, retryable=True)
    if 300 <= status < 400:
        shown = f"HTTP {status}: the endpoint redirects, and redirects are not followed; correct base_url"
        return failed(FailureKind.BAD_REQUEST, retryable=False)
    if status == 413 or (status < 500 and _TOO_LONG.search(said)):
        return failed(FailureKind.CONTEXT_OVERFLOW, retryable=False)
    if status in {400, 403, 422} and _FILTERED.search(said):
        return failed(FailureKind.CONTENT_FILTER, retryable=False)
    if status >= 500 or status in {409, 425}:
        return failed(FailureKind.UNAVAILABLE, retryable=True)
    return failed(FailureKind.BAD_REQUEST, retryable=False)


def _error_text(content: str) -> tuple[str, str]:
    """(code, message) of an error body in any of the usual shapes."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return "", storable(content)
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", storable(str(error))
    return str(error.get("code") or ""), storable(str(error.get("message") or error.get("detail") or error))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from Retry-After (seconds or date) or retry-after-ms; at most an hour."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers.get("retry-after", "").replace(".", "", 1).isdigit():
            seconds = float(headers["retry-after"])
        elif "retry-after" in headers:
            when = parsedate_to_datetime(headers["retry-after"])
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        else:
            return None
    except ValueError:
        return None
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S) if seconds == seconds else None


def redact(text: str, key: pydantic.SecretStr | None = None) -> str:
    """The text without the key and without anything that looks like a key."""
    if key is not None and key.get_secret_value():
        text = text.replace(key.get_secret_value(), "[key]")
    return _SECRET.sub("[key]", text)


def without_key(value: Any, key: pydantic.SecretStr | None) -> Any:
    """The JSON of a reply with the key removed from all strings, before any of them is truncated."""
    if key is None or not key.get_secret_value():
        return value
    if isinstance(value, str):
        return value.replace(key.get_secret_value(), "[key]")
    if isinstance(value, list):
        return [without_key(item, key) for item in value]
    if isinstance(value, dict):
        return {without_key(name, key): without_key(item, key) for name, item in value.items()}
    return value


# --- connections of this process -----------------------------------------------------------

_connections: dict[Endpoint, Connection] = {}
# A child of a fork has a loop of its own, on which its parent's connections cannot be used.
os.register_at_fork(after_in_child=_connections.clear)


def connection_to(endpoint: Endpoint) -> Connection:
    """The shared connection; call it from a coroutine on the loop (`workers.endpoints.event_loop`)."""
    if endpoint not in _connections:
        _connections[endpoint] = Connection(endpoint)
    return _connections[endpoint]
