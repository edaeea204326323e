"""Receives the body of a request, and notices a client that hangs up before its answer. Imports no Django."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from trainer.serving.protocols import MOST_BODY_BYTES, RerankRefused, too_large

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Gone(Exception):
    """The client has disconnected."""


async def received(receive: Receive, announced: int) -> bytes:
    """The whole body. Raises RerankRefused if it is too large, before it is read where its length was announced; Gone."""
    if announced > MOST_BODY_BYTES:
        raise too_large(announced)
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY_BYTES:
            raise too_large(size)
        if not message.get("more_body"):
            return b"".join(parts)


async def unless_gone(work: Any, receive: Receive, *, left_s: float) -> list[Any]:
    """The result of a concurrent future; if the client disconnects or `left_s` are over first, its pairs are not computed."""
    result = asyncio.ensure_future(asyncio.wrap_future(work))
    hung_up = asyncio.ensure_future(receive())
    done, _ = await asyncio.wait({result, hung_up}, return_when=asyncio.FIRST_COMPLETED, timeout=left_s)
    if not result.done():
        result.cancel()
        if hung_up in done:
            raise Gone
        hung_up.cancel()
        raise RerankRefused(
            504, "the request's time was over before its turn came; retry later or send fewer documents"
        )
    hung_up.cancel()
    outputs: list[Any] = result.result()
    return outputs
