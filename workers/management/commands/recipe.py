"""`manage.py recipe PROJECT`: plan or order a recipe, or show, cancel or resume one; the workers do its stages."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from labeling.models import Project
from labeling.plugins import UnknownPlugin, problem_of
from labeling.wording import translated
from workers.jobs.calibration import judges_so_far
from workers.jobs.recipe.job import (
    RecipeRefused,
    RecipeView,
    cancel_recipe,
    order_recipe,
    planned,
    recipes,
    resume_recipe,
    view_of,
)
from workers.jobs.recipe.options import RecipeOptions
from workers.jobs.recipe.plan import Plan
from workers.management.arguments import json_object, named_judge, project_of
from workers.models import Recipe


class Command(BaseCommand):
    help = "Run the whole method: panel, distillation, design, calibration, student, refinement, proof. Needs workers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument(
            "--judges",
            nargs="+",
            default=[],
            help="the panel: id or name of a judge, a plugin, or plugin:{JSON options} (default: the judges of the last run)",
        )
        parser.add_argument("--options", default="{}", help='JSON, for example {"distill": "never", "base": "minilm"}')
        parser.add_argument("--plan", action="store_true", help="show the plan and its estimate; start nothing")
        parser.add_argument("--status", action="store_true", help="show the project's recipes")
        parser.add_argument("--cancel", type=int, metavar="ID", help="cancel a recipe")
        parser.add_argument("--resume", type=int, metavar="ID", help="resume a failed or cancelled recipe")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_of(options["project"])
        try:
            if options["status"]:
                for found in recipes(project):
                    self.stdout.write(described(found))
            elif options["cancel"] is not None:
                recipe = _recipe(project, options["cancel"])
                if not cancel_recipe(recipe):
                    raise CommandError(f"recipe {recipe.pk} is {recipe.job.get_state_display()} already")
                self.stdout.write(described(view_of(recipe)))
            elif options["resume"] is not None:
                self.stdout.write(described(view_of(resume_recipe(_recipe(project, options["resume"])))))
            else:
                self._order(project, options)
        except (RecipeRefused, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error

    def _order(self, project: Project, options: dict[str, Any]) -> None:
        chosen = RecipeOptions.model_validate(json_object(options["options"]))
        with transaction.atomic():
            panel = [named_judge(project, name) for name in options["judges"]] or judges_so_far(project)
            self.stdout.write(plan_table(planned(project, panel, chosen)))
            if options["plan"]:
                transaction.set_rollback(True)  # new judges too
                return
            recipe = order_recipe(project, panel, chosen)
        self.stdout.write(described(view_of(recipe)))


def plan_table(plan: Plan) -> str:
    """The plan as lines: each stage with the panel's calls and cost, or the reason why it is left out."""
    lines = [f"{'stage':<14}{'pairs':>10}{'calls':>10}{'at most':>10}{'cost':>12}"]
    for stage in plan.stages:
        if stage.reason:
            lines.append(f"{stage.label:<14}left out: {translated(stage.reason)}")
        else:
            money = f"${stage.cost_micros / 1e6:,.4f}" if stage.is_priced else "unknown"
            lines.append(f"{stage.label:<14}{stage.pairs:>10,}{stage.calls:>10,}{stage.most_calls:>10,}{money:>12}")
    money = f"${plan.cost_micros / 1e6:,.4f}" if plan.is_priced else "unknown"
    lines.append(f"{'in all':<14}{'':>10}{plan.calls:>10,}{plan.most_calls:>10,}{money:>12}")
    return "\n".join(lines)


def described(found: RecipeView) -> str:
    """A recipe as lines: its state and spend, then each stage with what it made."""
    recipe, spent = found.recipe, found.spent
    head = f"recipe {recipe.pk}: {recipe.job.get_state_display()}; {spent.calls:,} panel calls instead of {spent.paper_calls:,}"
    lines = [head]
    for stage in found.stages:
        made = [f"{name} {key}" for name, key in _made(stage) if key is not None]
        parts = [stage.get_state_display(), *made, *([str(stage.reason)] if stage.reason else [])]
        lines.append(f"  {stage.number}. {stage.get_name_display():<13} {'; '.join(parts)}")
    return "\n".join([*lines, *([f"  {recipe.job.error}"] if recipe.job.error else [])])


def _made(stage: Any) -> list[tuple[str, int | None]]:
    return [
        ("run", stage.run_id), ("job", stage.job_id), ("snapshot", stage.snapshot_id), ("training", stage.training_id),
    ]  # fmt: skip


def _recipe(project: Project, number: int) -> Recipe:
    found = Recipe.objects.filter(project=project, pk=number).select_related("project", "job").first()
    if found is None:
        raise CommandError(f"project {project.slug!r} has no recipe {number}; --status lists them")
    return found
