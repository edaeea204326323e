"""One paid call to an endpoint: reused connections, a total deadline, limits of rate and number.

All judges of a process share the loop of `workers.endpoints.event_loop` and one connection pool an endpoint, however
many threads call them. Imports no Django.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from labeling.access.redaction import redact
from labeling.records import FailureKind
from workers.endpoints.exchanges import note_reply, note_request
from workers.endpoints.gates import Gate, Held, Left, LocalGate, Outcome
from workers.endpoints.registry import COMPLETIONS, Access, Endpoint, KeyMissing
from workers.judges.openai.http.remedies import UNKNOWN, Server, server_of
from workers.judges.openai.http.statuses import (
    CallFailed,
    CallNotMade,
    error_of,
    failure_of_page,
    failure_of_status,
    outcome_of,
    read_error,
    status_of_error,
    unsent_remedy,
)
from workers.judges.openai.http.streams import BadStream, StreamError, is_stream, read_stream

MOST_REPLY_BYTES = 4 * 1024 * 1024
CONNECT_S = 10.0
COMPLETED = (200, 201)  # some gateways answer every POST with 201


def _hide_query(record: logging.LogRecord) -> bool:
    """httpx logs the address of each call: show it without its query, which may hold a key."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            each.copy_with(query=None) if isinstance(each, httpx.URL) and each.query else each for each in record.args
        )
    return True


logging.getLogger("httpx").addFilter(_hide_query)


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply with status 200: its JSON, unread; `server`: the kind of server, as far as the reply shows it."""

    body: dict[str, Any]
    latency_s: float
    server: Server = UNKNOWN


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
        try:
            access = self.endpoint.access()
        except KeyMissing as error:
            raise CallFailed(FailureKind.BAD_REQUEST, str(error), retryable=False, reached=False) from None
        try:
            async with asyncio.timeout(timeout_s):
                exchange = note_request(request)
                status, headers, content = await self._post(request, access)
                note_reply(exchange, status, without_secrets(content.decode(errors="replace"), access))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise self._timed_out(error, timeout_s) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._broken_off(error, access) from None
        if status not in COMPLETED:
            self._raise_status(status, headers, content, access, request)
        body = self._body(content, headers, access, request)
        return Completion(body, time.monotonic() - started, server_of(self.endpoint.base_url, headers, body))

    def _timed_out(self, error: Exception, timeout_s: float) -> CallFailed:
        unsent = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
        if unsent:
            message = f"no connection to {self._address} within {timeout_s:.3g} s; check base_url, firewall and VPN"
        else:
            message = (
                f"no complete answer within {timeout_s:.3g} s; raise timeout_s of {self.endpoint.name!r} if it is slow"
            )
        return CallFailed(FailureKind.TIMEOUT, message, retryable=True, paid=not unsent, reached=not unsent)

    def _broken_off(self, error: Exception, access: Access) -> CallFailed:
        """The failure of a connection that was not made (such a call cost nothing) or that broke off."""
        sent = not isinstance(error, httpx.ConnectError | httpx.UnsupportedProtocol | httpx.InvalidURL)
        remedy = "retry; if the error persists, see the server's log" if sent else unsent_remedy(error, self._address)
        said = str(error) or "the server closed the connection"
        message = f"endpoint {self.endpoint.name!r}: {type(error).__name__}: {said}; {remedy}"
        return CallFailed(
            FailureKind.UNAVAILABLE, without_secrets(message, access), retryable=True, paid=sent, reached=sent
        )

    @property
    def _address(self) -> str:
        return urlsplit(self.endpoint.base_url).netloc

    async def _post(self, request: Mapping[str, Any], access: Access) -> tuple[int, httpx.Headers, bytes]:
        """(status, headers, content); aborts a reply that exceeds MOST_REPLY_BYTES."""
        url = f"{self.endpoint.base_url}{COMPLETIONS}"
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            async with client.stream(
                "POST", url, json=request, headers=list(access.headers), params=list(access.query) or None
            ) as response:
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MOST_REPLY_BYTES:
                        message = f"the reply is longer than {MOST_REPLY_BYTES} bytes; lower max_output_tokens"
                        raise CallFailed(FailureKind.UNPARSEABLE, message, retryable=False, paid=True)
                return response.status_code, response.headers, bytes(content)
        finally:
            self._idle.append(client)

    def _body(
        self, content: bytes, headers: httpx.Headers, access: Access, request: Mapping[str, Any]
    ) -> dict[str, Any]:
        if is_stream(headers.get("content-type", ""), content):
            return self._streamed(content, headers, access, request)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            if page := failure_of_page(content):
                raise self._redacted(page, access) from None
            # Redact before truncating, so that no part of a key remains.
            shown = without_secrets(content.decode(errors="replace"), access)
            message = f"the reply is not JSON: {shown[:120]!r}; check that base_url leads to the API"
            raise CallFailed(FailureKind.UNPARSEABLE, message, retryable=True, paid=True) from None
        if not isinstance(body, dict):
            raise CallFailed(FailureKind.UNPARSEABLE, "the reply is not a JSON object", retryable=True, paid=True)
        if error := error_of(body):  # some gateways report errors under status 200
            self._raise_status(status_of_error(error), headers, content, access, request)
        return body

    def _streamed(
        self, content: bytes, headers: httpx.Headers, access: Access, request: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The completion of a server that streams although it was asked not to."""
        try:
            return read_stream(content)
        except StreamError as error:
            status, shown = status_of_error(error.body["error"]), json.dumps(error.body).encode()
            self._raise_status(status, headers, shown, access, request)
        except BadStream as error:
            message = f"endpoint {self.endpoint.name!r}: {error}; configure the server or gateway not to stream"
            raise CallFailed(FailureKind.UNPARSEABLE, message, retryable=False, paid=True) from None

    def _raise_status(
        self, status: int, headers: httpx.Headers, content: bytes, access: Access, request: Mapping[str, Any]
    ) -> NoReturn:
        # Redact before truncating, and again: in JSON a value may have been written with escapes.
        text = without_secrets(content.decode(errors="replace"), access)
        server = server_of(self.endpoint.base_url, headers, said=read_error(text).text)
        failure = failure_of_status(status, headers, text, server=server, model=str(request.get("model", "")))
        raise self._redacted(failure, access) from None

    def _redacted(self, failure: CallFailed, access: Access) -> CallFailed:
        failure.args = (without_secrets(f"endpoint {self.endpoint.name!r}: {failure}", access),)
        return failure


def without_secrets(text: str, access: Access) -> str:
    """The text without the key and the values of headers and query, and without anything that looks like a key."""
    return redact(text, *access.secrets)


def _tokens_stated(body: Mapping[str, Any], otherwise: int) -> int:
    usage = body.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and 0 <= total < 2**31 else otherwise


# --- connections of this process -----------------------------------------------------------

_connections: dict[Endpoint, Connection] = {}
# A child of a fork has a loop of its own, on which its parent's connections cannot be used.
os.register_at_fork(after_in_child=_connections.clear)


def connection_to(endpoint: Endpoint) -> Connection:
    """The shared connection; call it from a coroutine on the loop (`workers.endpoints.event_loop`)."""
    if endpoint not in _connections:
        _connections[endpoint] = Connection(endpoint)
    return _connections[endpoint]
