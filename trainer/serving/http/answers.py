"""Responses of the serving process: JSON, refusals in the client's format, and warnings in a header. Imports no Django."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.serving.protocols import Dialect, RerankRefused, error_body, error_headers

WARNINGS_HEADER = "x-zelo-warnings"  # for responses whose format has no place for them
LONGEST_WARNINGS = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """One response; `headers` beside type, length and timing."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: str = "application/json"


def json_answer(status: int, body: Any, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    return Answer(status, json.dumps(body, ensure_ascii=False).encode(), headers)


def refused(dialect: Dialect, error: RerankRefused) -> Answer:
    headers = tuple((name.encode(), value.encode()) for name, value in error_headers(error).items())
    return json_answer(error.status, error_body(dialect, error), headers=headers)


def warned(warnings: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
    """The header that lists warnings, the first ones of many; nothing without any."""
    if not warnings:
        return ()
    listed, size = [], 0
    for number, each in enumerate(warnings):
        written = each.encode("ascii", "backslashreplace")
        size += len(written)
        if size > LONGEST_WARNINGS:
            listed.append(b"and %d more" % (len(warnings) - number))
            break
        listed.append(written)
    return ((WARNINGS_HEADER.encode(), b"; ".join(listed).strip()),)
