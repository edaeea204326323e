"""Runs, jobs and dead letters: what the workers do, and what they gave up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from labeling.wording import translated
from trainer.models import TrainingRun
from workers.jobs.distillation import STAGE as DISTILL
from workers.jobs.distillation import cancel_distillation
from workers.jobs.recipe.job import STAGE as RECIPE
from workers.jobs.recipe.job import cancel_recipe
from workers.jobs.refinement.job import STAGE as REFINE
from workers.jobs.refinement.job import cancel_refinement
from workers.jobs.teaching.job import STAGE as TEACH
from workers.jobs.teaching.job import cancel_teaching
from workers.jobs.training import STAGE as TRAIN
from workers.jobs.training import cancel_training
from workers.judging.failures import FailureFilter, retry_failures
from workers.models import Job, JudgingTask, Run
from workers.runs.transitions import cancel_run, pause_run, resume_run
from zelo_site.admin.base import LinkedAdmin, plain_json, row_title
from zelo_site.templatetags.figures import count


def _project_page(row: Any, name: str = "project") -> str:
    return reverse(name, args=[row.project.slug]) if row.project.archived_at is None else ""


class RunAdmin(LinkedAdmin):
    """Orders to judge; their states change by `workers.runs.transitions`."""

    title = _("Runs")
    list_display = (
        "id",
        "project",
        "state",
        "sampler",
        "round",
        "pairs",
        "created_by",
        "created_at",
        "finished_at",
    )
    list_filter = ("state", "sampler", "project", "created_at")
    search_fields = ("=id", "project__name", "project__slug", "created_by__username")
    search_help_text = _("Number, project or user")
    list_select_related = ("project", "created_by")
    ordering = ("-id",)
    fields = (
        "project", "state", "why", "created_by", "sampler", "shown_sampler_options", "allocation", "orders", "seed",
        "pair_budget", "call_budget", "token_budget", "cost_budget_micros", "round", "pairs_planned", "tasks_planned",
        "created_at", "started_at", "finished_at",
    )  # fmt: skip
    readonly_fields = ("why", "shown_sampler_options")
    shown_sampler_options = plain_json("sampler_options", _("sampler options"))
    actions = ("pause", "resume", "cancel")

    page = staticmethod(_project_page)

    @admin.display(description=_("pairs"), ordering="pairs_planned")
    def pairs(self, row: Run) -> str:
        return count(row.pairs_planned)

    @admin.display(description=_("reason"))
    def why(self, row: Run) -> str:
        return translated(row.reason) or "–"

    @admin.action(description=_("Pause"))
    def pause(self, request: HttpRequest, runs: QuerySet[Run]) -> None:
        self.run_verb(request, runs, lambda run: pause_run(run, by=request.user))

    @admin.action(description=_("Resume"))
    def resume(self, request: HttpRequest, runs: QuerySet[Run]) -> None:
        self.run_verb(request, runs, lambda run: resume_run(run, by=request.user))

    @admin.action(description=_("Cancel"))
    def cancel(self, request: HttpRequest, runs: QuerySet[Run]) -> HttpResponse | None:
        question = _(
            "Cancel these runs? This cannot be undone. Their open questions are deleted; answers and costs stay."
        )
        if page := self.ask(request, runs, str(question)):
            return page
        self.run_verb(request, runs, lambda run: cancel_run(run, by=request.user))
        return None


class CannotCancelJob(ValueError):
    """A job whose stage cannot be cancelled; the message says why."""


def _cancel_training_of(job: Job, by: Any) -> bool:
    run = TrainingRun.objects.filter(pk=job.payload["training_run"]).first()
    return run is not None and cancel_training(run, by=by)


CANCEL_VERBS: dict[str, Callable[[Job, Any], bool]] = {
    DISTILL: lambda job, by: cancel_distillation(job, by=by),
    RECIPE: lambda job, by: cancel_recipe(job.recipe, by=by),
    REFINE: lambda job, by: cancel_refinement(job, by=by),
    TEACH: lambda job, by: cancel_teaching(job.teaching, by=by),
    TRAIN: _cancel_training_of,
}


def cancel_job(job: Job, *, by: Any) -> bool:
    """Cancel a job by the verb of its stage; False where it had ended. Raises CannotCancelJob."""
    if job.state not in (Job.State.OPEN, Job.State.LEASED):
        return False
    if job.run_id is not None:
        raise CannotCancelJob(
            _("Job %(job)d belongs to run %(run)d. Cancel that run instead.") % {"job": job.pk, "run": job.run_id}
        )
    if job.stage not in CANCEL_VERBS:
        raise CannotCancelJob(
            _(
                "Job %(job)d cannot be cancelled: its stage is %(stage)s. Only these stages can be cancelled: %(stages)s."
            )
            % {"job": job.pk, "stage": job.stage, "stages": ", ".join(sorted(CANCEL_VERBS))}
        )
    return CANCEL_VERBS[job.stage](job, by)


class JobAdmin(LinkedAdmin):
    """Stages of work in the background."""

    title = _("Jobs")
    list_display = ("id", "stage", "project", "state", "done", "total", "leased_by", "created_at", "finished_at")
    list_filter = ("state", "stage", "project", "created_at")
    search_fields = ("=id", "stage", "project__name", "project__slug", "error")
    search_help_text = _("Number, stage, project or error")
    list_select_related = ("project",)
    ordering = ("-id",)
    fields = (
        "stage", "project", "run", "state", "said", "error", "shown_payload", "done", "total", "attempts", "fence",
        "leased_by", "lease_until", "created_at", "finished_at",
    )  # fmt: skip
    readonly_fields = ("said", "shown_payload")
    shown_payload = plain_json("payload", _("payload"))
    actions = ("cancel",)

    page = staticmethod(_project_page)

    @admin.display(description=_("message"))
    def said(self, row: Job) -> str:
        return translated(row.message) or "–"

    def row_name(self, row: Job) -> str:
        return f"{row_title(row)} · {row.stage} · {row.project.name}"

    @admin.action(description=_("Cancel"))
    def cancel(self, request: HttpRequest, jobs: QuerySet[Job]) -> HttpResponse | None:
        question = _(
            "Cancel these jobs? The runs and trainings that they started are cancelled too; answers and costs stay."
        )
        if page := self.ask(request, jobs, str(question)):
            return page
        self.run_verb(request, jobs, lambda job: cancel_job(job, by=request.user), refused=CannotCancelJob)
        return None


class DeadLetterAdmin(LinkedAdmin):
    """Questions that failed and are not retried automatically."""

    title = _("Dead letters")
    list_display = ("id", "project", "run_number", "judge", "reason", "short_message", "attempts")
    list_filter = ("reason", "run__project")
    search_fields = ("=run__id", "annotator__name", "message", "run__project__name")
    search_help_text = _("Run, judge, project or message")
    list_select_related = ("run__project", "annotator")
    ordering = ("-id",)
    fields = ("run", "pair", "judge", "swapped", "reason", "message", "attempts", "next_at")
    readonly_fields = ("judge",)
    actions = ("retry",)

    page = staticmethod(lambda row: _project_page(row.run, "failures"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[JudgingTask]:
        dead = super().get_queryset(request).filter(state=JudgingTask.State.DEAD)
        return cast("QuerySet[JudgingTask]", dead)

    @admin.display(description=_("project"), ordering="run__project")
    def project(self, row: JudgingTask) -> str:
        return row.run.project.name

    @admin.display(description=_("run"), ordering="run")
    def run_number(self, row: JudgingTask) -> int:
        return row.run_id

    @admin.display(description=_("judge"), ordering="annotator__name")
    def judge(self, row: JudgingTask) -> str:
        return row.annotator.name

    @admin.display(description=_("message"))
    def short_message(self, row: JudgingTask) -> str:
        return row.message if len(row.message) <= 120 else f"{row.message[:120]}…"

    @admin.action(description=_("Retry all of the same run, judge and reason"))
    def retry(self, request: HttpRequest, rows: QuerySet[JudgingTask]) -> None:
        groups = {(row.run.project, row.run_id, row.annotator_id, row.reason) for row in rows}

        def again(group: Any) -> bool:
            project, run_id, annotator_id, reason = group
            return bool(retry_failures(project, FailureFilter(reason, annotator_id, run_id), by=request.user))

        self.run_verb(request, sorted(groups, key=lambda each: each[1:]), again)
