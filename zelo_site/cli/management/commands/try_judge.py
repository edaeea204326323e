"""`manage.py try_judge PROJECT --judges ...`: ask judges a few real questions before anything is bought."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from workers.jobs.trial import TrialRefused, reason_of, try_now
from workers.jobs.trial_verdict import FAILS
from workers.models import Job, JudgeTrial
from zelo_site.cli.interrupts import INTERRUPTED
from zelo_site.cli.judge_arguments import NamedJudge, add_judge_arguments, make_judges, read_judges
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import table
from zelo_site.processes.stack import database

LONGEST_CELL = 60


class Command(BaseCommand):
    help = "Test judges on up to 5 real pairs of a project and up to 5 with a known answer, and print a verdict."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="slug of the project")
        add_judge_arguments(parser, otherwise="none")
        parser.add_argument("--raw", action="store_true", help="print each request and raw answer, without keys")

    def handle(self, *args: Any, **options: Any) -> None:
        judges = read_judges(options)
        if not judges:
            raise CommandError("no judge to test; pass --judges or --judges-file")
        try:
            with database():
                failed = self._try(find_project(options["project"]), judges, raw=options["raw"])
        except TrialRefused as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("stopped; calls that were made are counted", returncode=INTERRUPTED) from None
        if failed:
            raise CommandError(f"the test failed: {', '.join(failed)}")

    def _try(self, project: Project, judges: list[NamedJudge], *, raw: bool) -> list[str]:
        """Test each judge, print its answers, and return the names of those that failed."""
        failed = []
        for judge in make_judges(project, judges):
            trial = try_now(judge)
            self._show(trial, raw=raw)
            if trial.job.state != Job.State.FINISHED or trial.report.get("verdict") == FAILS:
                failed.append(judge.name)
        return failed

    def _show(self, trial: JudgeTrial, *, raw: bool) -> None:
        self.stdout.write(f"\n{trial.annotator.name}")
        if trial.job.state != Job.State.FINISHED:
            self.stdout.write(f"fails: {trial.job.error}")
            return
        rows = trial.report["rows"]
        header = ["question", "preference", "known", "tokens", "cost", "seconds", "answer"]
        self.stdout.write(table(header, [_cells(row) for row in rows]))
        if raw:
            for row in rows:
                for call in row["exchanges"]:
                    self.stdout.write(f"\n> {call['request']}\n< {call['status'] or 'no reply'} {call['reply']}")
        self.stdout.write(f"{trial.report['verdict']}: {reason_of(trial)}")
        dollars = trial.cost_micros / 1e6
        self.stdout.write(f"{trial.calls} calls, {trial.input_tokens + trial.output_tokens:,} tokens, ${dollars:.6f}")


def _cells(row: dict[str, Any]) -> list[str]:
    preference, known = row["preference"], row["known"]
    said = row["exchanges"][-1]["reply"] if row["exchanges"] else row["rationale"]
    return [
        _cut(row["query"], 30),
        "–" if preference is None else f"{preference:.2f}",
        "–" if known is None else f"{known:.2f}",
        f"{row['input_tokens'] + row['output_tokens']:,}",
        f"${row['cost_micros'] / 1e6:.6f}",
        f"{row['latency_s']:.2f}",
        _cut(row["message"] or said, LONGEST_CELL),
    ]


def _cut(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
