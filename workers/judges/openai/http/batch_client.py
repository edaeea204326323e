"""The files and batches of an OpenAI-compatible provider: upload, create, find, poll, cancel, download.

Creating is the only call that costs. Calls are made one at a time, outside any transaction, by
`workers.judging.provider_batches`. Imports no Django.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, BinaryIO, TypeVar

import httpx

from labeling.records import FailureKind
from workers.endpoints.batching import MARKER, BatchCallFailed, BatchError, BatchLine, RemoteBatch, batch_status
from workers.endpoints.event_loop import on_loop, run
from workers.endpoints.registry import Access, Endpoint, KeyMissing
from workers.judges.openai.http.client import CONNECT_S, without_secrets
from workers.judges.openai.http.remedies import server_of
from workers.judges.openai.http.statuses import failure_of_status
from workers.judges.openai.reading.failures import storable

Result = TypeVar("Result")

WINDOW = "24h"
PAGE = 100
# Pages of the provider's list that are searched, newest first, for a file or batch of ours.
MOST_PAGES = 50
MOST_LINE_BYTES = 4 * 1024 * 1024
MOST_ERRORS = 1000


class _Timed(io.RawIOBase):
    """A file that is uploaded: its reader fails when the whole upload takes too long."""

    def __init__(self, content: BinaryIO, timeout_s: float) -> None:
        self._content, self._until, self._timeout_s = content, time.monotonic() + timeout_s, timeout_s

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() > self._until:
            raise httpx.WriteTimeout(f"the upload took more than {self._timeout_s:.0f} s")
        return self._content.read(-1 if size is None else size)

    def fileno(self) -> int:
        return self._content.fileno()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        return self._content.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class BatchClient:
    """The files and batches of one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def upload(self, name: str, content: BinaryIO, *, timeout_s: float) -> str:
        files = {"file": (name, _Timed(content, timeout_s), "application/jsonl")}
        return _id(self._call("POST", "/files", timeout_s=timeout_s, data={"purpose": "batch"}, files=files))

    def find_file(self, name: str) -> str:
        rows = self._pages("/files", {"purpose": "batch", "order": "desc"})
        return next((_text(row, "id") for row in rows if row.get("filename") == name), "")

    def create(self, file_id: str, marker: str, *, timeout_s: float) -> RemoteBatch:
        body = {
            "input_file_id": file_id,
            "endpoint": self.endpoint.batch_url,
            "completion_window": WINDOW,
            "metadata": {MARKER: marker},
        }
        return read_batch(self._call("POST", "/batches", timeout_s=timeout_s, json=body))

    def find_batch(self, marker: str, file_id: str) -> RemoteBatch | None:
        batches = (read_batch(row) for row in self._pages("/batches", {}))
        return next((each for each in batches if each.marker == marker or each.input_file_id == file_id), None)

    def retrieve(self, batch_id: str) -> RemoteBatch:
        return read_batch(self._call("GET", f"/batches/{batch_id}"))

    def cancel(self, batch_id: str) -> None:
        self._call("POST", f"/batches/{batch_id}/cancel", json={})

    def delete_file(self, file_id: str) -> None:
        self._call("DELETE", f"/files/{file_id}")

    def lines(self, file_id: str) -> Iterator[BatchLine | None]:
        for line in _lines(self._pieces("GET", f"/files/{file_id}/content")):
            if line.strip():
                yield read_line(line.decode(errors="replace"))

    def _pages(self, path: str, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """The rows of a list, newest first."""
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self._call("GET", path, params={**query, "limit": str(PAGE), **after})
            rows = [row for row in page.get("data") or [] if isinstance(row, dict)]
            yield from rows
            if not rows or not page.get("has_more"):
                return
            after = {"after": _text(rows[-1], "id")}

    def _call(self, method: str, path: str, *, timeout_s: float | None = None, **content: Any) -> dict[str, Any]:
        """The JSON of a reply, within `timeout_s` in all once there is a connection."""

        async def whole() -> bytes:
            async with self._request(method, path, **content) as response:
                return await response.aread()

        text = self._within(timeout_s or self.endpoint.timeout_s, method, path, whole())
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            shown = without_secrets(text.decode(errors="replace"), self.endpoint.access())[:120]
            message = f"endpoint {self.endpoint.name!r}: the reply to {method} {path} is not a JSON object: {shown!r}"
            raise BatchCallFailed(FailureKind.UNPARSEABLE, message, retryable=True, is_unknown=True)
        return body

    def _pieces(self, method: str, path: str) -> Iterator[bytes]:
        """The pieces of a reply, however long it is; the headers and each piece have the time of a call."""
        timeout_s = self.endpoint.timeout_s
        opened = AsyncExitStack()

        async def begin() -> AsyncIterator[bytes]:
            return (await opened.enter_async_context(self._request(method, path))).aiter_bytes()

        try:
            pieces = self._within(timeout_s, method, path, begin())
            while (piece := self._within(timeout_s, method, path, _next(pieces))) is not None:
                yield piece
        finally:
            on_loop(lambda: [opened.aclose()])  # without waiting: a collected iterator may end on the loop's own thread

    def _within(self, timeout_s: float, method: str, path: str, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a part of a call, which may take CONNECT_S more for its connection. Raises BatchCallFailed."""

        async def limited() -> Result:
            async with asyncio.timeout(timeout_s + CONNECT_S):
                return await work

        try:
            return run(limited())
        except TimeoutError:
            said = f"no complete answer within {timeout_s:g} s; raise timeout_s of the endpoint if it is slow"
            raise self._broken_off(FailureKind.TIMEOUT, method, path, said, sent=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL)
            kind = FailureKind.TIMEOUT if isinstance(error, httpx.TimeoutException) else FailureKind.UNAVAILABLE
            raise self._broken_off(kind, method, path, f"{type(error).__name__}: {error}", sent=sent) from None

    def _broken_off(self, kind: FailureKind, method: str, path: str, said: str, *, sent: bool) -> BatchCallFailed:
        message = without_secrets(f"endpoint {self.endpoint.name!r}: {method} {path}: {said}", self.endpoint.access())
        return BatchCallFailed(kind, message, retryable=True, is_unknown=sent)

    @asynccontextmanager
    async def _request(self, method: str, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """A reply with status 200, of which the headers have arrived. Raises BatchCallFailed for any other, httpx.HTTPError."""
        try:
            access = self.endpoint.access()
        except KeyMissing as error:
            raise BatchCallFailed(FailureKind.BAD_REQUEST, str(error), status=401, retryable=True) from None
        sent: dict[str, Any] = {
            "headers": list(access.headers),
            "params": [*access.query, *content.pop("params", {}).items()] or None,
        }
        timeout = httpx.Timeout(None, connect=min(CONNECT_S, self.endpoint.timeout_s))
        async with (
            httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client,
            client.stream(method, f"{self.endpoint.base_url}{path}", **sent, **content) as response,
        ):
            if response.status_code != 200:
                raise self._failed(method, path, response, await response.aread(), access)
            yield response

    def _failed(self, method: str, path: str, response: httpx.Response, said: bytes, access: Access) -> BatchCallFailed:
        status = response.status_code
        content = without_secrets(said.decode(errors="replace"), access)
        server = server_of(self.endpoint.base_url, response.headers, said=content[:2000])
        failure = failure_of_status(status, response.headers, content, server=server)
        denied = status in {401, 402, 403} or failure.kind is FailureKind.OVER_BUDGET
        return BatchCallFailed(
            failure.kind,
            without_secrets(f"endpoint {self.endpoint.name!r}: {method} {path}: {failure}", access),
            status=status,
            code=_code(content),
            retryable=failure.retryable or denied,
            is_unknown=status >= 500 or status in {408, 409},
            retry_after_s=failure.retry_after_s,
        )


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    """The next piece, None at the end."""
    return await anext(pieces, None)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of JSONL, which end at LF alone: an answer may hold other separators, such as U+2028."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest


def read_batch(row: Mapping[str, Any]) -> RemoteBatch:
    """A batch from its JSON; what is missing or of another type is empty."""
    counts = row.get("request_counts")
    numbers = counts if isinstance(counts, dict) else {}
    metadata = row.get("metadata")
    status = batch_status(_text(row, "status"))
    return RemoteBatch(
        id=_id(row),
        status=storable(status)[:40],
        marker=_text(metadata, MARKER) if isinstance(metadata, dict) else "",
        input_file_id=_text(row, "input_file_id"),
        output_file_id=_text(row, "output_file_id"),
        error_file_id=_text(row, "error_file_id"),
        errors=_errors(row.get("errors")),
        total=_number(numbers, "total"),
        completed=_number(numbers, "completed"),
        failed=_number(numbers, "failed"),
    )


def read_line(text: str) -> BatchLine | None:
    """A line of an output or error file; None for one that cannot be read."""
    try:
        row = json.loads(text[:MOST_LINE_BYTES])
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
        return None
    response, error = row.get("response"), row.get("error")
    code, message = (_text(error, "code"), _text(error, "message")) if isinstance(error, dict) else ("", "")
    if not isinstance(response, dict):
        return BatchLine(row["custom_id"], code=code or "no_response", message=storable(message))
    body = response.get("body")
    status = response.get("status_code")
    return BatchLine(
        row["custom_id"],
        status=status if isinstance(status, int) else 200,
        body=body if isinstance(body, dict) else {},
        code=code,
        message=storable(message),
    )


def _errors(value: Any) -> tuple[BatchError, ...]:
    rows = value.get("data") if isinstance(value, dict) else value
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return tuple(
        BatchError(_text(row, "code"), storable(_text(row, "message")), row.get("line"))
        if isinstance(row.get("line"), int)
        else BatchError(_text(row, "code"), storable(_text(row, "message")))
        for row in found[:MOST_ERRORS]
    )


def _id(row: Mapping[str, Any]) -> str:
    found = _text(row, "id")
    if not found:
        message = "the reply names no id; the endpoint may have no batch interface"
        raise BatchCallFailed(FailureKind.UNPARSEABLE, message, retryable=True, is_unknown=True)
    return found


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _number(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def _code(content: str) -> str:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    error = body.get("error", body) if isinstance(body, dict) else {}
    return str(error.get("code") or "") if isinstance(error, dict) else ""
