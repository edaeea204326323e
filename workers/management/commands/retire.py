"""`manage.py retire PROJECT JUDGE`: retire a judge, or bring it back with --restore."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Annotator
from workers.judging.pausing import restore_judge, retire_judge
from workers.management.arguments import numbered_or_named


class Command(BaseCommand):
    help = "Retire a judge: new runs cannot use it, and its answers remain. --restore brings it back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("judge", help="id or name of the judge")
        parser.add_argument("--restore", action="store_true", help="bring a retired judge back")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = options["judge"]
        judges = Annotator.objects.judges().filter(project__slug=options["project"])
        found = numbered_or_named(judges, wanted)
        if found.count() != 1:
            known = ", ".join(f"{judge.pk} ({judge.name})" for judge in judges) or "none"
            raise CommandError(f"{found.count()} judges match {wanted!r}; choose one of: {known}")
        judge, move = found.get(), restore_judge if options["restore"] else retire_judge
        if not move(judge):
            raise CommandError(f"judge {judge.name!r} is {'retired already' if judge.retired_at else 'not retired'}")
        self.stdout.write(f"{judge.name} {'is in use again' if options['restore'] else 'retired'}")
