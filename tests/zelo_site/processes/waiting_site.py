"""A site of a few lines behind the product's gunicorn worker, with short deadlines: for tests of slow clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zelo_site.processes.gunicorn import forwarder_headers as forwarder_headers  # a setting of this site too

LARGE = 24 * 1024 * 1024


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Count the body at /count, send LARGE bytes at /large, refuse unread at /refuse, else greet."""
    path = environ["PATH_INFO"]
    if path == "/count":
        body = str(len(environ["wsgi.input"].read())).encode()
    else:
        body = b"x" * (LARGE if path == "/large" else 200 * 1024 if path == "/page" else 5)
    status = "413 Content Too Large" if path == "/refuse" else "200 OK"
    start_response(status, [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body]


def post_fork(server: Any, worker: Any) -> None:
    """Shorten the deadlines; gunicorn calls it in each worker process."""
    from zelo_site.processes import patient_worker

    patient_worker.HEAD_S = patient_worker.SMALL_BODY_S = 1.5
    patient_worker.STALL_S = 1.0
    patient_worker.PACE_GRACE_S = 1.5
