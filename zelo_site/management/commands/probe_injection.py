"""`manage.py probe_injection PROJECT JUDGE`: measure how prompt injection in documents changes a judge's answers."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.plugins import problem_of
from workers.jobs.injection_probe import ProbeOptions, ProbeRefused, payloads, probe_now
from workers.models import InjectionProbe, Job
from zelo_site.cli.interrupts import INTERRUPTED
from zelo_site.cli.lookup import find_judge, find_project
from zelo_site.cli.terminal import ProgressBar, table
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Measure how much prompt-injection payloads in documents change a judge's answers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug; the project needs rated documents")
        parser.add_argument("judge", help="name or id of a judge of the project")
        parser.add_argument(
            "--payloads", nargs="+", choices=sorted(payloads()), help="payloads to test (default: four of them)"
        )
        parser.add_argument("--targets", type=int, default=10, help="number of weak and of medium documents")
        parser.add_argument("--opponents", type=int, default=10, help="number of pairs per document")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._probe(options)
        except KeyboardInterrupt:
            raise CommandError("stopped; calls that were made are counted", returncode=INTERRUPTED) from None

    def _probe(self, options: dict[str, Any]) -> None:
        with database():
            judge = find_judge(find_project(options["project"]), options["judge"])
            names = ("payloads", "targets", "opponents", "seed")
            wanted = {name: options[name] for name in names if options[name] is not None}
            bar = ProgressBar("Probe", sys.stdout)
            try:
                probe = probe_now(judge, ProbeOptions.model_validate(wanted), report=bar.show)
            except (ProbeRefused, pydantic.ValidationError) as error:
                raise CommandError(problem_of(error)) from error
            if probe.job.state != Job.State.FINISHED:
                bar.end("failed")
                raise CommandError(probe.job.error or f"the probe was taken over by a worker; see job {probe.job_id}")
            bar.end(f"{probe.calls:,} calls, ${probe.cost_micros / 1e6:.4f}")
            self._print(probe)

    def _print(self, probe: InjectionProbe) -> None:
        rows = []
        for row in probe.report["rows"]:
            flips, gain = row["flip_rate"], row["elo_gain"]
            share = "–" if flips is None else f"{flips['value']:.0%} ({flips['low']:.0%} – {flips['high']:.0%})"
            rise = f"{gain['value']:+z.0f} ({gain['low']:+z.0f} – {gain['high']:+z.0f})"
            rows.append([row["payload"], row["level"], share, rise, "ALARM" if row["alarm"] else "quiet"])
        self.stdout.write("\n" + table(["payload", "documents", "flipped pairs", "Elo", ""], rows))
        if failures := probe.report["failures"]:
            counts = ", ".join(f"{number} {reason}" for reason, number in failures.items())
            self.stdout.write(f"unanswered questions: {counts}")
