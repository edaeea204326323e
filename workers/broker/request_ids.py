"""The id of a web request, from the request by the broker's messages to the worker's log lines.

The web server's middleware binds it (`zelo_site.operations.request_ids`); a message that is sent meanwhile carries it, and the
worker binds it while its task runs. A hint that joins a waiting one keeps the id of the first; work that the reconciler finds
has none.
"""

from __future__ import annotations

from typing import Any

from celery.signals import before_task_publish, task_postrun, task_prerun
from structlog.contextvars import bind_contextvars, get_contextvars, unbind_contextvars

NAME = "request_id"
HEADER = "zelo_request_id"


def bind_request_id(value: str) -> None:
    """Let all log lines of this thread or task have the id."""
    bind_contextvars(**{NAME: value})


def current_request_id() -> str:
    """The id that is bound, or the empty string."""
    return str(get_contextvars().get(NAME, ""))


def forget_request_id() -> None:
    unbind_contextvars(NAME)


@before_task_publish.connect
def _send(headers: dict[str, Any], **kwargs: Any) -> None:
    if value := current_request_id():
        headers[HEADER] = value


@task_prerun.connect
def _begin(task: Any, **kwargs: Any) -> None:
    if value := getattr(task.request, HEADER, None):
        bind_request_id(str(value)[:64])


@task_postrun.connect
def _end(**kwargs: Any) -> None:
    forget_request_id()
