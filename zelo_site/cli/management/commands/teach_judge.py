"""`manage.py teach_judge PROJECT JUDGE`: show a judge people's answers, and measure whether that makes it better."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from workers.jobs.teaching.job import reason_of, teach_now
from workers.jobs.teaching.plan import TeachingOptions, TeachingRefused
from workers.jobs.teaching.verdict import BETTER
from workers.management.arguments import problem
from workers.models import Job, JudgeTeaching
from zelo_site.cli.interrupts import INTERRUPTED
from zelo_site.cli.lookup import find_judge, find_project
from zelo_site.cli.terminal import ProgressBar, table
from zelo_site.processes.stack import database

DEFAULTS = TeachingOptions()


class Command(BaseCommand):
    help = "Make a judge that is shown people's answers to other queries, and compare both on held-out pairs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug; people must have answered pairs of some queries")
        parser.add_argument("judge", help="name or id of a judge of the project that has the option 'examples'")
        parser.add_argument("--examples", type=int, default=DEFAULTS.examples, help="most examples in the prompt")
        parser.add_argument("--pairs", type=int, default=DEFAULTS.pairs, help="most held-out pairs to ask both judges")
        parser.add_argument("--save", type=Path, help="write the taught judge to this file, for `run --judges-file`")
        parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="seed of the split and of the choice")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._teach(options)
        except KeyboardInterrupt:
            raise CommandError("stopped; calls that were made are counted", returncode=INTERRUPTED) from None

    def _teach(self, options: dict[str, Any]) -> None:
        with database():
            judge = find_judge(find_project(options["project"]), options["judge"])
            bar = ProgressBar("Teaching", sys.stdout)
            try:
                wanted = TeachingOptions(**{name: options[name] for name in ("examples", "pairs", "seed")})
                teaching = teach_now(judge, wanted, report=bar.show)
            except (TeachingRefused, pydantic.ValidationError) as error:
                raise CommandError(problem(error)) from error
            if teaching.job.state != Job.State.FINISHED:
                bar.end("failed")
                raise CommandError(
                    teaching.job.error or f"the teaching was taken over by a worker; see job {teaching.job_id}"
                )
            bar.end(f"{teaching.calls:,} calls, ${teaching.cost_micros / 1e6:.4f}")
            self._print(teaching)
            if options["save"] is not None:
                self._save(teaching, options["save"])

    def _save(self, teaching: JudgeTeaching, path: Path) -> None:
        taught = teaching.taught
        assert taught is not None  # the teaching has finished
        judges = [{"plugin": taught.plugin, "options": taught.options, "name": taught.name}]
        try:
            path.write_text(json.dumps(judges, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path} cannot be written ({error.strerror}); choose another path") from error
        self.stdout.write(f"Saved to {path}; pass --judges-file {path} to `manage.py run`.")

    def _print(self, teaching: JudgeTeaching) -> None:
        report = teaching.report
        judges = (("old", teaching.annotator), ("taught", teaching.taught))
        rows = [_cells(report, who, f"{judge.pk} {judge.name}") for who, judge in judges if judge is not None]
        header = ["judge", "agrees with people", "answered", "input tokens", "output tokens", "cost"]
        self.stdout.write("\n" + table(header, rows))
        self.stdout.write(f"\n{report['examples']} examples in the prompt. {_sentence(str(reason_of(teaching)))}")
        if report["verdict"] == BETTER and teaching.taught is not None:
            self.stdout.write(f"Use judge {teaching.taught_id} ({teaching.taught.name}) in the next run.")
        else:
            self.stdout.write(f"Keep judge {teaching.annotator_id} ({teaching.annotator.name}).")


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}."


def _cells(report: dict[str, Any], who: str, name: str) -> list[str]:
    usage = report["usage"][who]
    return [
        name,
        f"{report[who]:.1%}" if who in report else "–",
        f"{usage['answers']} of {usage['questions']}",
        f"{usage['input_tokens']:,}",
        f"{usage['output_tokens']:,}",
        f"${usage['cost_micros'] / 1e6:.6f}",
    ]
