"""Requests of the web processes, as django-prometheus counts them: time, status and size, by view."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector


def web_metrics() -> bytes:
    """The requests that all web processes of this host have answered, in Prometheus' text format.

    Under gunicorn each process counts in a file (`zelo_site.processes.gunicorn`), and the sum is given; elsewhere this
    process alone counts.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
