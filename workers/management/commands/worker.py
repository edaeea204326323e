"""`manage.py worker QUEUE...`: one Celery worker, the same command on this host and on any other."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers.routing import QUEUES, QueueKind


class Command(BaseCommand):
    help = "Run a worker: " + "; ".join(f"{kind.name} ({kind.about})" for kind in QUEUES.values())

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queues", nargs="+", choices=list(QUEUES), metavar="QUEUE", help=", ".join(QUEUES))
        parser.add_argument("--concurrency", type=int, default=0, help="how many tasks at a time (0: what suits them)")
        parser.add_argument("--name", default="", help="name of the worker, if two of a queue run on one host")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["concurrency"] < 0:
            raise CommandError(f"--concurrency is {options['concurrency']}; expected 1 or more, or 0 for what suits")
        names = list(dict.fromkeys(options["queues"]))
        command = [sys.executable, "-m", "celery", "-A", "zelo_site", "worker", "-Q", ",".join(names)]
        command += ["-n", f"{options['name'] or names[0]}@%h", "--loglevel", "INFO"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        command += pool_arguments([QUEUES[name] for name in names], options["concurrency"])
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.execv(command[0], command)


def pool_arguments(kinds: list[QueueKind], concurrency: int) -> list[str]:
    """Celery's arguments for queues served together: processes wherever one of them computes in several."""
    pools = [kind.pool for kind in kinds]
    pool = next(name for name in ("prefork", "threads", "solo") if name in pools)
    if pool == "solo":
        return ["--pool", "solo"]
    at_once = concurrency or max(kind.concurrency or os.cpu_count() or 1 for kind in kinds)
    return ["--pool", pool, "--concurrency", str(at_once)]
