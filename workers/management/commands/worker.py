"""`manage.py worker QUEUE...`: one Celery worker, the same command on this host and on any other."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers.broker.routing import QUEUES, QueueKind


class Command(BaseCommand):
    help = "Run a worker: " + "; ".join(f"{kind.name} ({kind.about})" for kind in QUEUES.values())

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queues", nargs="+", choices=list(QUEUES), metavar="QUEUE", help=", ".join(QUEUES))
        parser.add_argument(
            "--concurrency", type=int, default=0, help="how many tasks at a time (0: the default of the queues)"
        )
        parser.add_argument("--name", default="", help="name of the worker, if two of a queue run on one host")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["concurrency"] < 0:
            raise CommandError(f"--concurrency is {options['concurrency']}; expected 1 or more, or 0 for the default")
        arguments = celery_arguments(options["queues"], concurrency=options["concurrency"], name=options["name"])
        command = [sys.executable, "-m", "celery", "-A", "zelo_site", *arguments]
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.execv(command[0], command)


def celery_arguments(queues: Sequence[str], *, concurrency: int = 0, name: str = "") -> list[str]:
    """The arguments of the `celery` command, beginning with `worker`."""
    names = list(dict.fromkeys(queues))
    arguments = ["worker", "-Q", ",".join(names), "-n", f"{name or names[0]}@%h", "--loglevel", "INFO"]
    arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return arguments + pool_arguments([QUEUES[each] for each in names], concurrency)


def pool_arguments(kinds: list[QueueKind], concurrency: int) -> list[str]:
    """Celery's arguments for queues served together: processes wherever one of them computes in several."""
    pools = [kind.pool for kind in kinds]
    pool = next(name for name in ("prefork", "threads", "solo") if name in pools)
    if pool == "solo":
        return ["--pool", "solo"]
    at_once = concurrency or max(kind.concurrency or os.cpu_count() or 1 for kind in kinds)
    return ["--pool", pool, "--concurrency", str(at_once)]
