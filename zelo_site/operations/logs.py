"""JSON log lines for ZELO_LOG=json, one object a line, from Python's own logging: no call site knows the format.

In both formats `WithoutTokens` keeps the secrets of one-time links out of Django's lines about refused requests.
"""

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


class WithoutTokens(logging.Filter):
    """Puts the route in place of an address that holds a token: whoever reads the log could sign in with the link."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        match = getattr(request, "resolver_match", None)
        token = str(match.kwargs.get("token", "")) if match is not None else ""
        if match is not None and token and isinstance(record.args, tuple):
            record.args = tuple(f"/{match.route}" if token in str(each) else each for each in record.args)
        return True


# The fields of a line next to its text. Django's own extra fields hold the whole request, with its cookies.
FIELDS = ("method", "route", "status", "ms", "status_code", "judge", "run", "task", "reason", "retryable", "outage")
