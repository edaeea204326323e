"""`manage.py prune`: delete what is older than the installation keeps it; --dry-run counts it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from workers.deletion.retention import KINDS, count_old, kept_days, prune


class Command(BaseCommand):
    help = (
        "Delete old calls, messages, probes, jobs, deliveries and sessions, and merge old days of spend, as ZELO_KEEP_DAYS "
        "says; scores do not depend on them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count the rows and delete none")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = count_old() if options["dry_run"] else prune().rows
        verb = "to delete" if options["dry_run"] else "deleted"
        for kind in KINDS:
            days = kept_days(kind.name)
            kept = "kept for ever" if days is None else f"kept for {days} days"
            self.stdout.write(f"{kind.name:12} {rows.get(kind.name, 0):>10,} {verb}, {kept}")
