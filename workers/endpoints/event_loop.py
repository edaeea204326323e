"""The event loop of this process, in a thread of its own: all calls to endpoints are made on it. Imports no Django."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them only weakly
        threading.Thread(target=self.loop.run_forever, name="llm-calls", daemon=True).start()


_starting = threading.Lock()


@functools.lru_cache(maxsize=1)
def _loop_of(pid: int) -> _Loop:
    return _Loop()


def _loop() -> _Loop:
    """The loop of this process: a child of a fork cannot use its parent's, whose thread it lacks."""
    with _starting:
        return _loop_of(os.getpid())


def on_loop(begin: Callable[[], Sequence[Coroutine[Any, Any, None]]]) -> None:
    """Start coroutines on the loop in their order, without waiting for them."""
    shared = _loop()

    def start() -> None:
        for work in begin():
            task = shared.loop.create_task(work)
            shared.tasks.add(task)
            task.add_done_callback(shared.tasks.discard)

    shared.loop.call_soon_threadsafe(start)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine on the loop and wait for it; an interrupted wait cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop().loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
