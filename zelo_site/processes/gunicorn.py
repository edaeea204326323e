"""Hooks of the gunicorn processes; other settings are command-line arguments, see `zelo_site.processes.stack`."""

from __future__ import annotations

import os
from typing import Any


def post_worker_init(worker: Any) -> None:
    """Warm a process before it accepts its first request."""
    from zelo_site.processes.warming import warm

    warm(worker.tpool, worker.cfg.threads)


def worker_exit(server: Any, worker: Any) -> None:
    """End a worker process after its last request; a process that failed to start exits as usual."""
    if worker.pid == os.getpid() and worker.booted:
        from workers.stopping import leave  # the gunicorn master does not need to load it

        leave(0)
