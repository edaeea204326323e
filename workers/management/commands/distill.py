"""`manage.py distill PROJECT`: order a distilled run, or show, cancel or resume one; the workers do its stages."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from labeling.models import Project
from labeling.plugins import UnknownPlugin, problem_of
from workers.jobs.distillation import (
    STAGE,
    Distillation,
    DistillationOptions,
    DistillationRefused,
    cancel_distillation,
    distillation_of,
    distillations,
    order_distillation,
    resume_distillation,
)
from workers.management.arguments import json_object, named_judge, project_of
from workers.models import Job


class Command(BaseCommand):
    help = "Start a distilled run: panel, student, design, panel again. Its workers must be running (manage.py up)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument(
            "--judges",
            nargs="+",
            default=[],
            help="the panel: id or name of a judge, a plugin, or plugin:{JSON options}",
        )
        parser.add_argument("--options", default="{}", help='JSON, for example {"panel_pairs": 30, "review_pairs": 60}')
        parser.add_argument("--status", action="store_true", help="show the project's distilled runs")
        parser.add_argument("--cancel", type=int, metavar="ID", help="cancel a distilled run")
        parser.add_argument("--resume", type=int, metavar="ID", help="resume a failed or cancelled distilled run")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_of(options["project"])
        try:
            for found in self._asked(project, options):
                self.stdout.write(described(found))
        except (DistillationRefused, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error

    def _asked(self, project: Project, options: dict[str, Any]) -> list[Distillation]:
        if options["status"]:
            return distillations(project)
        if options["cancel"] is not None:
            job = _job(project, options["cancel"])
            if not cancel_distillation(job):
                raise CommandError(f"distilled run {job.pk} is {job.get_state_display()} already")
            return [distillation_of(job)]
        if options["resume"] is not None:
            return [distillation_of(resume_distillation(_job(project, options["resume"])))]
        chosen = DistillationOptions.model_validate(json_object(options["options"]))
        with transaction.atomic():
            panel = [named_judge(project, name) for name in options["judges"]]
            return [distillation_of(order_distillation(project, panel, chosen))]


def described(found: Distillation) -> str:
    """A distilled run in one line, with its stages and its spend."""
    job, spent = found.job, found.spent
    stages = ", ".join(f"{stage}: run {run.pk} {run.get_state_display()}" for stage, run in found.runs.items())
    training = f", training {found.training.pk} {found.training.get_state_display()}" if found.training else ""
    saved = f" ({spent.share:.0%} saved)" if job.state == Job.State.FINISHED and spent.share is not None else ""
    line = f"distilled run {job.pk}: {job.get_state_display()} at {found.stage}; {stages}{training}; "
    line += f"{spent.calls:,} panel calls instead of {spent.paper_calls:,}{saved}; {spent.student_answers:,} answers of the student"
    return line + (f"\n  {job.error}" if job.error else "")


def _job(project: Project, number: int) -> Job:
    job = Job.objects.filter(project=project, stage=STAGE, pk=number).first()
    if job is None:
        raise CommandError(f"project {project.slug!r} has no distilled run {number}; --status lists them")
    return job
