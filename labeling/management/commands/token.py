"""`manage.py token USERNAME`: a key for programs, shown once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from labeling.access.api_keys import SCOPES, BadExpiry, BadScope, make_token


class Command(BaseCommand):
    help = "Make a key with which a program uses the REST interface as this user."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="command line", help="what the key is for")
        parser.add_argument("--scopes", nargs="+", default=["read", "write"], help=f"some of {', '.join(SCOPES)}")
        parser.add_argument("--days", type=int, default=None, help="how long it is valid (default: until revoked)")

    def handle(self, *args: Any, **options: Any) -> None:
        user = get_user_model().objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"no user is named {options['username']!r}; the first start of the server makes `owner`")
        try:
            self.stdout.write(make_token(user, name=options["name"], scopes=options["scopes"], days=options["days"]))
        except (BadExpiry, BadScope) as error:
            raise CommandError(str(error)) from error
