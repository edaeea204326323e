"""`manage.py link USERNAME`: a one-time sign-in link."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from labeling.access.links import ensure_owner, make_link
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Print a link that signs a person in once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", nargs="?", default="", help="default: the owner of the server")
        parser.add_argument("--address", default="http://127.0.0.1:8000", help="where the server answers")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            name = options["username"]
            user = get_user_model().objects.filter(username=name).first() if name else ensure_owner()
            if user is None:
                raise CommandError(f"no user is named {name!r}")
            self.stdout.write(options["address"].rstrip("/") + reverse("enter", args=[make_link(user)]))
