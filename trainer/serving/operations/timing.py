"""Times the parts of a request, for the header Server-Timing. Imports no Django."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

TIMING_HEADER = "server-timing"
_parts: ContextVar[dict[str, float] | None] = ContextVar("parts", default=None)


def start() -> None:
    """Forget the parts of an earlier request."""
    _parts.set({})


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Add the time of the block to a part of the request."""
    began = time.monotonic()
    try:
        yield
    finally:
        parts = _parts.get()
        if parts is not None:
            parts[name] = parts.get(name, 0.0) + time.monotonic() - began


def header(seconds: float) -> str:
    """The header's value: milliseconds of each part, and of the whole request as `ranking`."""
    return joined({**(_parts.get() or {}), "ranking": seconds})


def joined(parts: dict[str, float], *, behind: Sequence[str] = ()) -> str:
    """The entries of `behind`, then each part with its seconds as milliseconds."""
    return ", ".join([*behind, *(f"{name};dur={1000 * seconds:.1f}" for name, seconds in parts.items())])
