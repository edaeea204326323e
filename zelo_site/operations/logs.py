"""JSON log lines for ZELO_LOG=json, one object a line, from Python's own logging: no call site knows the format."""

from __future__ import annotations

import logging
from typing import Any

import structlog


def json_formatter() -> logging.Formatter:
    """A formatter whose lines are JSON objects: `event`, `level`, `logger`, `timestamp`, `request_id`, fields of `extra`."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=FIELDS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.UnicodeDecoder(),
            structlog.processors.JSONRenderer(sort_keys=True, default=str),
        ],
    )


# The fields of a line next to its text. Django's own extra fields hold the whole request, with its cookies.
FIELDS = ("method", "route", "status", "ms", "status_code", "judge", "run", "task", "reason", "retryable", "outage")
