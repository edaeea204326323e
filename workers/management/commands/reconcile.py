"""`manage.py reconcile`: finds work that no hint leads to, until it is stopped."""

from __future__ import annotations

import signal
import socket
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from workers.monitoring.heartbeats import LAST_BEAT_S, keep_beating, stop_beating
from workers.reconciler import PAUSE_S, run_reconciler
from workers.stopping import leave


class Command(BaseCommand):
    help = "Reap expired leases and send hints for work that has none; several may run, one acts."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--every",
            type=float,
            default=PAUSE_S,
            metavar="SECONDS",
            help="seconds between two passes (default %(default)g)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0.1 <= options["every"] <= 60:
            raise CommandError(f"--every is {options['every']:g}; give seconds between 0.1 and 60.")
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        beating = keep_beating(f"reconciler@{socket.gethostname()}", "")
        run_reconciler(stop, options["every"])
        stop_beating()
        beating.join(LAST_BEAT_S)
        leave(0)
