"""What the web server's processes do beside serving; the other settings are arguments, see `zelo_site.processes.stack`."""

from __future__ import annotations

import os
from typing import Any


def worker_exit(server: Any, worker: Any) -> None:
    """The last thing that a process does once it has answered all requests. One that could not begin ends as it would."""
    if worker.pid == os.getpid() and worker.booted:
        from workers.stopping import leave  # the process that only watches the others loads none of this

        leave(0)
