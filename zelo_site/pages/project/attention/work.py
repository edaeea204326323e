"""Work of a project that has failed or waits for a person: jobs, questions, budgets, students, annotators, imports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.models import Project
from labeling.stored_texts import read_stored
from labeling.wording import translated
from workers.models import Job, Run
from workers.runs.stages import STAGES
from zelo_site.pages.project.attention.causes import Cause, cause_of, not_by_itself, words_of
from zelo_site.pages.project.attention.needs import Audience, Button, Level, Need
from zelo_site.templatetags.figures import count

# A failure or a report older than this is history: it is on its own page.
RECENT = timedelta(days=7)
LONGEST = 300


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Dead letters of one reason, and an example's message."""

    reason: str
    count: int
    example: str

    @property
    def label(self) -> str:
        """The reason in words, as in `JudgingTask.get_reason_display`."""
        return self.reason.replace("_", " ")


def work_needs(
    project: Project, run: Run | None, failures: Sequence[FailureCount], *, explained: Collection[str]
) -> list[Need]:
    """Return the problems of this kind, in two queries; `explained`: reasons of failures whose cause another problem states."""
    found = [_failed_job(project, job) for job in failed_jobs(project)]
    if run is not None:
        for each in failures:
            level = Level.NOTE if each.reason in explained else Level.WARNING
            found.append(_dead_letters(project, run, each, level))
    if run is not None and run.is_spent:
        found.append(_spent(project, run))
    return found + _waiting(project)


def failed_jobs(project: Project) -> list[Job]:
    """Return the latest job of each stage, where it failed in the last days."""
    latest = Job.objects.filter(project=project, created_at__gte=timezone.now() - RECENT)
    latest = latest.exclude(stage__in=("trial", "probe", "teaching")).order_by("stage", "-id").distinct("stage")
    return [job for job in latest if job.state == Job.State.FAILED]


# The pages on which a failed job is started again, and the training run's own page.
_PAGES = {"train": "training", "evaluate": "proof", "candidates": "project", "recipe": "recipe", "distill": "distill"}


def _failed_job(project: Project, job: Job) -> Need:
    cause = cause_of("", job.error)
    words = words_of(cause)
    label = next((stage.label for stage in STAGES if stage.key == job.stage), job.stage)
    name, arguments = _PAGES.get(job.stage, "jobs"), [project.slug]
    if job.stage == "train" and (training := job.payload.get("training_run")):
        name, arguments = "training-run", [project.slug, training]
    known = cause in (Cause.GPU_MEMORY, Cause.DISK_FULL)
    trouble = f"{words.title[:1].upper()}{words.title[1:]}." if known else ""
    return Need(
        f"job-{job.pk}",
        Level.ERROR,
        _("%(stage)s failed.") % {"stage": translated(label).capitalize()} + (f" {trouble}" if known else ""),
        what=words.what if known else _("Its result is missing; earlier results are kept."),
        again=not_by_itself(),
        todo=words.todo if known else _("See the error, fix its cause, then start it again."),
        since=job.finished_at,
        job=job,
        buttons=(Button(_("Open"), reverse(name, args=arguments if name != "jobs" else []), audience=Audience.READERS, is_main=True),),
    )  # fmt: skip


def _dead_letters(project: Project, run: Run, failure: FailureCount, level: Level) -> Need:
    retry = reverse("move-run", args=[project.slug, run.pk, "retry"])
    text = ngettext("%(n)s question got no answer", "%(n)s questions got no answer", failure.count)
    return Need(
        f"dead-{failure.reason}",
        level,
        f"{text % {'n': count(failure.count)}}: {translated(failure.label)}",
        what=_("The run continues and ends without them; no score includes them."),
        again=not_by_itself(),
        todo=_("Fix the cause, then retry."),
        message=failure.example[:LONGEST],
        buttons=(
            Button(_("Retry"), retry, {"reason": failure.reason}, key=f"retry-{failure.reason}", is_main=True),
            Button(_("See all"), reverse("failures", args=[project.slug]), audience=Audience.READERS),
        ),
    )


def _spent(project: Project, run: Run) -> Need:
    return Need(
        "budget",
        Level.WARNING,
        _("The run stopped at its budget."),
        what=translated(run.reason)[:LONGEST],
        again=_("It continues where it stopped once the budget is raised."),
        todo=_("Raise the run’s budget or the project’s limit, or leave it as it is."),
        buttons=(
            Button(_("Raise budget"), reverse("budget", args=[project.slug, run.pk]), is_main=True),
            Button(_("Project limits"), reverse("settings", args=[project.slug])),
        ),
    )


_WAITING = """
SELECT 'gold', person.name, person.pause_reason, person.paused_at, person.id FROM labeling_annotator person
WHERE person.project_id = %(project)s AND person.is_person AND person.paused_at IS NOT NULL
UNION ALL
(SELECT 'student', reranker.name, '', reranker.created_at, reranker.training_run_id FROM trainer_reranker reranker
 WHERE reranker.project_id = %(project)s AND reranker.release = 'held_back' AND NOT EXISTS (
     SELECT 1 FROM trainer_reranker later WHERE later.project_id = reranker.project_id AND later.id > reranker.id
       AND later.training_run_id IS NOT NULL AND later.release <> 'held_back')
 ORDER BY reranker.id DESC LIMIT 1)
UNION ALL
(SELECT 'import', latest.file, latest.left_out::text, latest.created_at, latest.id FROM (
     SELECT * FROM labeling_datasetimport WHERE project_id = %(project)s ORDER BY id DESC LIMIT 1) latest
 WHERE latest.left_out > 0 AND latest.created_at > now() - %(days)s * interval '1 day')
"""


def _waiting(project: Project) -> list[Need]:
    """Annotators who failed gold, the latest student that is held back, and the rows that the last import left out."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"project": project.pk, "days": RECENT.days})
        rows = cursor.fetchall()
    return [_OF_KIND[kind](project, *values) for kind, *values in rows]


def _gold(project: Project, name: str, reason: str, since: Any, annotator_id: int) -> Need:
    return Need(
        f"person-{annotator_id}",
        Level.WARNING,
        _("%(name)s is paused: too many answers to gold pairs were wrong.") % {"name": name},
        what=_("They get no pairs. Their answers so far stay and count."),
        again=not_by_itself(),
        todo=_("Talk to them about the instruction, then resume them."),
        message=translated(read_stored(reason)),
        since=since,
        buttons=(Button(_("Open people"), reverse("people", args=[project.slug]), audience=Audience.READERS, is_main=True),),
    )  # fmt: skip


def _student(project: Project, name: str, __: str, since: Any, training_id: int | None) -> Need:
    address = (
        reverse("training-run", args=[project.slug, training_id])
        if training_id
        else reverse("rerankers", args=[project.slug])
    )
    return Need(
        f"student-{training_id or 0}",
        Level.WARNING,
        _("The student “%(name)s” is held back.") % {"name": name},
        what=_("It ranks no better than its base or the first stage, so it is measured but not served."),
        again=_("Each new training is compared before it is published."),
        todo=_("Judge more pairs or change the training, then train again; or publish it anyway."),
        since=since,
        buttons=(Button(_("Open training"), address, audience=Audience.READERS, is_main=True),),
    )


def _import(project: Project, file: str, left_out: str, since: Any, __: int) -> Need:
    rows = int(left_out)
    text = ngettext("The import of %(file)s left out %(n)s row.", "The import of %(file)s left out %(n)s rows.", rows)
    return Need(
        "import",
        Level.NOTE,
        text % {"file": file, "n": count(rows)},
        todo=_("Download them with their problems, correct them, and import them again."),
        since=since,
        buttons=(Button(_("Open imports"), reverse("imports", args=[project.slug]), audience=Audience.READERS),),
    )


_OF_KIND: dict[str, Any] = {"gold": _gold, "student": _student, "import": _import}
