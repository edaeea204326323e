"""`manage.py refine PROJECT RERANKER`: order a refinement of a student, or show, cancel or resume one."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from labeling.models import Project
from labeling.plugins import UnknownPlugin, problem_of
from scoring.storage.files import StoredFileUnusable
from trainer.models import Reranker
from trainer.serving.registry import TRAINED
from workers.jobs.calibration import judges_so_far
from workers.jobs.refinement.job import (
    STAGE,
    Refinement,
    RefinementOptions,
    RefinementRefused,
    cancel_refinement,
    order_refinement,
    refinement_of,
    refinements,
    resume_refinement,
)
from workers.management.arguments import json_object, named_judge, numbered_or_named, project_of
from workers.models import Job


class Command(BaseCommand):
    help = "Refine a student: mined pairs are judged, then training continues from it. Needs workers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("reranker", nargs="?", default="", help="id or name of a student (default: the latest)")
        parser.add_argument(
            "--judges",
            nargs="+",
            default=[],
            help="the panel: id or name of a judge, a plugin, or plugin:{JSON options} (default: the judges of the last run)",
        )
        parser.add_argument("--options", default="{}", help='JSON, for example {"pairs": 10, "ask": "people"}')
        parser.add_argument("--status", action="store_true", help="show the project's refinements")
        parser.add_argument("--cancel", type=int, metavar="ID", help="cancel a refinement")
        parser.add_argument("--resume", type=int, metavar="ID", help="resume a failed or cancelled refinement")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_of(options["project"])
        try:
            for found in self._asked(project, options):
                self.stdout.write(described(found))
        except (RefinementRefused, StoredFileUnusable, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error

    def _asked(self, project: Project, options: dict[str, Any]) -> list[Refinement]:
        if options["status"]:
            return refinements(project)
        if options["cancel"] is not None:
            job = _job(project, options["cancel"])
            if not cancel_refinement(job):
                raise CommandError(f"refinement {job.pk} is {job.get_state_display()} already")
            return [refinement_of(job)]
        if options["resume"] is not None:
            return [refinement_of(resume_refinement(_job(project, options["resume"])))]
        chosen = RefinementOptions.model_validate(json_object(options["options"]))
        with transaction.atomic():
            panel = [named_judge(project, name) for name in options["judges"]] or judges_so_far(project)
            return [refinement_of(order_refinement(_student(project, options["reranker"]), panel, chosen))]


def described(found: Refinement) -> str:
    """A refinement in one line with what it has made, and a second one with its error."""
    job = found.job
    rows = (("run", found.run), ("plan", found.plan), ("snapshot", found.snapshot), ("training", found.training))
    made = "".join(f", {name} {row.pk}" for name, row in rows if row is not None)
    name = _named(found.student) if found.student is not None else "a deleted student"
    line = f"refinement {job.pk} of {name}: {job.get_state_display()} at {found.stage}; "
    line += f"{found.pairs:,} pairs, {found.disagreements:,} disagreements{made}"
    return line + (f"\n  {job.error}" if job.error else "")


def _named(student: Reranker) -> str:
    """The student's name, and that the gate held it back."""
    is_published = student.release == Reranker.Release.PUBLISHED
    return repr(student.name) if is_published else f"{student.name!r} ({student.get_release_display()})"


def _student(project: Project, wanted: str) -> Reranker:
    students = Reranker.objects.filter(project=project, kind=TRAINED)
    found = (numbered_or_named(students, wanted) if wanted else students).order_by("-pk").first()
    if found is None:
        raise CommandError(f"project {project.slug!r} has no student {wanted or 'yet'}; train one with manage.py train")
    return found


def _job(project: Project, number: int) -> Job:
    job = Job.objects.filter(project=project, stage=STAGE, pk=number).select_related("project").first()
    if job is None:
        raise CommandError(f"project {project.slug!r} has no refinement {number}; --status lists them")
    return job
