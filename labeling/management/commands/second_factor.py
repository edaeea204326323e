"""`manage.py second_factor USERNAME`: whether an account has a second factor; `--reset` removes it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.access.accounts import find_account
from labeling.access.second_factor import codes_left, has_second_factor, turn_off


class Command(BaseCommand):
    help = "Show or reset the second factor of an account, for example after a lost phone; the server must be running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reset", action="store_true", help="remove it with its backup codes")

    def handle(self, *args: Any, **options: Any) -> None:
        user = find_account(options["username"])
        if user is None:
            raise CommandError(
                f"no account has the name {options['username']!r}; the page Users of the admin lists them"
            )
        name = user.get_username()
        if options["reset"]:
            had = turn_off(user)
            self.stdout.write(f"removed the second factor of {name}" if had else f"{name} has no second factor")
            return
        has = has_second_factor(user)
        said = f"has a second factor and {codes_left(user)} backup codes" if has else "has no second factor"
        self.stdout.write(f"{name} {said}")
