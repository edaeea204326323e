"""`manage.py worker QUEUE`: one Celery worker, the same command on this host and on any other."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

QUEUES = {
    "judging": "asks judges; one process a core",
    "rating": "fits scores and advances runs; one process",
}


class Command(BaseCommand):
    help = "Run a worker for one queue: " + "; ".join(f"{name} ({what})" for name, what in QUEUES.items())

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", choices=sorted(QUEUES))
        parser.add_argument("--concurrency", type=int, default=0, help="processes of a judging worker (0: one a core)")
        parser.add_argument("--name", default="", help="name of the worker, if two of a queue run on one host")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["queue"]
        command = [sys.executable, "-m", "celery", "-A", "zelo_site", "worker", "-Q", name]
        command += ["-n", f"{options['name'] or name}@%h", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
        if name == "rating":
            command += ["--pool", "solo"]
        else:
            command += ["--concurrency", str(options["concurrency"] or os.cpu_count() or 1)]
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.execv(command[0], command)
