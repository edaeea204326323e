"""Errors of the client, each with the server's sentence that says what is wrong and what helps."""

from __future__ import annotations

from typing import Any

import httpx


class Problem(RuntimeError):
    """The server refused a request; `status`, `detail` and `errors` are those of its problem details (RFC 9457)."""

    def __init__(self, status: int, detail: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = errors


class Unreachable(ConnectionError):
    """No server answers at the address."""


class Failed(RuntimeError):
    """A run, training or job ended without success."""


class WaitedTooLong(TimeoutError):
    """`wait` reached its timeout; the work continues at the server."""


def checked(response: httpx.Response) -> httpx.Response:
    """The response of a successful request. Raises Problem for all others."""
    if response.is_success:
        return response
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail") or body.get("message") or response.reason_phrase
    raise Problem(response.status_code, str(detail), list(body.get("errors") or []))
