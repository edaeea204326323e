"""Computes shadow requests only while no other request waits, in small passes. Imports no Django."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.serving.batcher import RequestBatcher, TooBusy
from trainer.serving.published import LoadedModel

PASS_TOKENS = 512  # how long a request that arrives meanwhile waits at most
LOOK_EVERY_S = 0.02
PATIENCE_S = 20.0


async def in_background(batcher: RequestBatcher, model: LoadedModel, pairs: Sequence[Any]) -> list[Any]:
    """The model's output for each pair, computed between other requests. Raises TooBusy after PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    outputs: list[Any] = []
    for part in _parts(pairs):
        while batcher.waiting_tokens:
            if time.monotonic() > until:
                raise TooBusy("the server has no time for requests in the background")
            await asyncio.sleep(LOOK_EVERY_S)
        found: list[Any] = await asyncio.wrap_future(batcher.submit(model, part))
        outputs += found
    return outputs


def _parts(pairs: Sequence[Any]) -> Iterator[list[Any]]:
    """The pairs in order, in parts of at most PASS_TOKENS or of one pair."""
    part: list[Any] = []
    tokens = 0
    for pair in pairs:
        if part and tokens + len(pair) > PASS_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(pair)
        tokens += len(pair)
    if part:
        yield part
