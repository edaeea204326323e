"""`manage.py reconcile`: finds work that no hint leads to, until it is stopped."""

from __future__ import annotations

import signal
import socket
import threading
from typing import Any

from django.core.management.base import BaseCommand

from workers.monitoring.heartbeats import LAST_BEAT_S, keep_beating, stop_beating
from workers.reconciler import run_reconciler
from workers.stopping import leave


class Command(BaseCommand):
    help = "Reap expired leases and leave hints for work that has none; several may run, one acts."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        beating = keep_beating(f"reconciler@{socket.gethostname()}", "")
        run_reconciler(stop)
        stop_beating()
        beating.join(LAST_BEAT_S)
        leave(0)
