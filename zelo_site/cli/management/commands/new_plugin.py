"""`manage.py new_plugin KIND NAME`: write a working package with one plugin and its conformance test."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.plugins import KINDS, registered
from zelo_site.cli.plugin_examples import files_of

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Command(BaseCommand):
    help = "Write a package with a working plugin and its conformance test; docs/plugins.md explains each kind."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kind", choices=list(KINDS))
        parser.add_argument("name", help="lower-case words joined by hyphens")
        parser.add_argument("--to", type=Path, help="folder to create; default: zelo-NAME here")

    def handle(self, *args: Any, **options: Any) -> None:
        kind, name = options["kind"], options["name"]
        if not NAME.fullmatch(name) or len(name) > 60:
            raise CommandError(
                f"the name {name!r} cannot be used; write lower-case words joined by hyphens, as my-{kind}"
            )
        if name in registered(kind):
            raise CommandError(f"a {kind} named {name!r} is installed already; choose another name")
        folder: Path = options["to"] or Path(f"zelo-{name}")
        if folder.exists():
            raise CommandError(f"{folder} exists already; choose another folder with --to")
        folder.mkdir(parents=True)
        for path, text in files_of(kind, name).items():
            (folder / path).write_text(text, encoding="utf-8")
        self.stdout.write(f"wrote {folder}; next: pip install -e {folder} && pytest {folder}")
