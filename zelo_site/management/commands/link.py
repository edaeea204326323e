"""`manage.py link USERNAME`: a one-time sign-in link."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from labeling.access import ensure_owner, make_link
from zelo_site.stack import database


class Command(BaseCommand):
    help = "Print a one-time sign-in link."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", nargs="?", default="", help="user name (default: the server owner)")
        parser.add_argument("--address", default="http://127.0.0.1:8000", help="address of the server")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            name = options["username"]
            user = get_user_model().objects.filter(username=name).first() if name else ensure_owner()
            if user is None:
                raise CommandError(f"no user is named {name!r}; check the user name")
            self.stdout.write(options["address"].rstrip("/") + reverse("enter", args=[make_link(user)]))
