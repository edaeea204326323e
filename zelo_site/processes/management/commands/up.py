"""`manage.py up`: the whole server in one process tree; Ctrl-C stops it cleanly."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from labeling.access.links import ensure_owner, make_link
from workers.stopping import leave
from zelo_site.processes.embedded import FolderUnusable, ServiceFailed
from zelo_site.processes.listening import Exposed, add_listening_arguments, check_listening
from zelo_site.processes.services import AlreadyRunning, BinaryNotFound
from zelo_site.processes.stack import PortTaken, serve


class Command(BaseCommand):
    help = "Start the database, broker, web server, workers and reconciler, and restart them if they stop."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (loopback by default)")
        add_listening_arguments(parser)
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--judging", type=int, default=0, help="number of judging processes (0: one per core)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            check_listening(options["host"], options)
            with serve(options["host"], options["port"], judging=options["judging"]) as stack:
                token = make_link(ensure_owner())
                self.stdout.write(
                    f"zelo runs at {stack.address}\n"
                    f"one-time sign-in link: {stack.address}{reverse('enter', args=[token])}\n"
                    "Press Ctrl-C to stop; logs are in " + str(stack.logs)
                )
                self.stdout.flush()
                code = stack.wait()
                self.stdout.write("\nstopping ...")
                self.stdout.flush()
        except (AlreadyRunning, BinaryNotFound, Exposed, FolderUnusable, PortTaken, ServiceFailed) as error:
            raise CommandError(str(error)) from error
        leave(code)
