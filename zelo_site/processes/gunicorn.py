"""Hooks of the gunicorn processes; other settings are command-line arguments, see `zelo_site.processes.stack`."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

# By default, proxies on this host may set SCRIPT_NAME and PATH_INFO, and some pass on what a client has set.
forwarder_headers = ""

if os.environ.get("ZELO_LOG", "").strip().upper() == "JSON":  # gunicorn configures its own logging
    logconfig_dict = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"generic": {"()": "zelo_site.operations.logs.json_formatter"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
            "error_console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"},
        },
        "loggers": {"gunicorn.error": {"level": "WARNING", "handlers": ["error_console"], "propagate": False}},
    }


def on_starting(server: Any) -> None:
    """Make the folder in which each web process counts its requests; `/metrics` adds them up."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="zelo-metrics-")


def on_exit(server: Any) -> None:
    """Remove that folder."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def post_worker_init(worker: Any) -> None:
    """Warm a process before it accepts its first request."""
    from zelo_site.processes.warming import warm

    warm(worker.tpool, worker.cfg.threads)


def worker_exit(server: Any, worker: Any) -> None:
    """End a worker process after its last request; a process that failed to start exits as usual."""
    if worker.pid == os.getpid() and worker.booted:
        from workers.stopping import leave  # the gunicorn master does not need to load it

        leave(0)
