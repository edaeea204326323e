"""`manage.py doctor`: check the installation; each problem comes with a remedy."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from zelo_site.doctor import Finding, Health, examine

MARKS = {Health.GOOD: "OK  ", Health.NOTE: "note", Health.BAD: "BAD "}


class Command(BaseCommand):
    help = "Check the installation; exits with status 1 if a check fails."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON list instead of lines")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = examine()
        if options["json"]:
            self.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2))
        else:
            for finding in findings:
                self._say(finding)
        if any(finding.health is Health.BAD for finding in findings):
            raise SystemExit(1)

    def _say(self, finding: Finding) -> None:
        self.stdout.write(f"{MARKS[finding.health]}  {finding.name}: {finding.detail}")
        if finding.remedy:
            self.stdout.write(f"      -> {finding.remedy}")
