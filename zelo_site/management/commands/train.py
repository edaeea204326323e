"""`manage.py train PROJECT`: train a reranker (stage 7); the training worker does the work."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.plugins import UnknownPlugin, problem_of
from trainer.evaluation.gate import held_back_reason
from trainer.models import TrainingRun
from workers.jobs.training import TrainingRefused, recommendation, resume_training, start_training
from workers.management.arguments import json_object
from zelo_site.cli.lookup import find_project, find_snapshot
from zelo_site.cli.terminal import ProgressBar
from zelo_site.cli.watch import POLL_S
from zelo_site.processes.stack import working

# Phases before the first step on the scores, as their bar names them.
BEFORE = {"warm_start": "warm start", "cross_validation": "cross-validation"}


class Command(BaseCommand):
    help = "Train a reranker on a snapshot of the project; the training continues after Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--snapshot", help="number or name of the snapshot (default: the latest)")
        parser.add_argument(
            "--trainer", default="", help="trainer plugin (default: the one that suits base and snapshot)"
        )
        parser.add_argument(
            "--options", default="{}", help='trainer options as JSON, for example {"max_steps": 300, "max_length": 64}'
        )
        parser.add_argument("--resume", type=int, metavar="RUN", help="resume a failed or cancelled training")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = json_object(options["options"])
        try:
            with working({"training"}) as tick:
                follow(self._order(options, chosen), bar=ProgressBar("7 Train", sys.stdout), tick=tick)
        except (TrainingRefused, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("\nthe training continues in the background")

    def _order(self, options: dict[str, Any], chosen: dict[str, Any]) -> TrainingRun:
        project = find_project(options["project"])
        if options["resume"] is not None:
            run = TrainingRun.objects.filter(project=project, pk=options["resume"]).first()
            if run is None:
                raise CommandError(f"project {project.slug!r} has no training {options['resume']}")
            return resume_training(run)
        snapshot = find_snapshot(project, options["snapshot"])
        if options["trainer"]:
            return start_training(project, snapshot, trainer=options["trainer"], options=chosen)
        advised = recommendation(snapshot, chosen)
        self.stdout.write(f"trainer {advised.trainer}: {advised.sentence}")
        return start_training(project, snapshot, trainer=advised.trainer, options=chosen)


def follow(run: TrainingRun, *, bar: ProgressBar, tick: Callable[[], None]) -> None:
    """Draw the run's progress until it ends. Raises CommandError if it failed."""
    while run.state in {TrainingRun.State.PLANNED, TrainingRun.State.RUNNING}:
        progress = run.progress
        loss = progress.get("loss") or []
        before = next((name for name in ("warm_start", "cross_validation") if name in progress), "")
        if before and not loss:
            bar.show(progress[before]["step"], progress[before]["steps"], BEFORE[before])
        else:
            bar.show(
                progress.get("step", 0), progress.get("steps", 0), f"loss {loss[-1][1]:.4f}" if loss else "loading"
            )
        tick()
        time.sleep(POLL_S)
        run.refresh_from_db()
    best = run.progress.get("best")
    bar.end(f"{run.get_state_display()}{_measured(best or {})}")
    if run.state == TrainingRun.State.HELD_BACK:
        raise CommandError(f"training {run.pk} is held back: {held_back_reason(run.gate)}")
    if run.state != TrainingRun.State.FINISHED:
        ended = "failed" if run.state == TrainingRun.State.FAILED else "was cancelled"
        raise CommandError(f"training {run.pk} {ended}{f': {run.error}' if run.error else ''}")


def _measured(best: Mapping[str, float]) -> str:
    """The best figure on the dev split in words."""
    if "log_loss" in best:
        return f", log-loss {best['log_loss']:.3f} on the dev pairs"
    return f", NDCG@10 {best['ndcg']:.3f} on the dev split" if best else ""
