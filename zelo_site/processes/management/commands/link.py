"""`manage.py link USERNAME`: a one-time sign-in link."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from labeling.access.links import ensure_owner, make_link
from zelo_site.processes.addresses import served_address
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Print a one-time sign-in link."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", nargs="?", default="", help="user name (default: the server owner)")
        parser.add_argument("--address", default="", help="address of the server (default: as it runs)")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            name = options["username"]
            user = get_user_model().objects.filter(username=name).first() if name else ensure_owner()
            if user is None:
                raise CommandError(f"no user is named {name!r}; check the user name")
            address = options["address"] or served_address(settings.ZELO_HOME)
            self.stdout.write(address.rstrip("/") + reverse("enter", args=[make_link(user)]))
