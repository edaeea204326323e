"""Deletes what is older than the installation keeps it, by kind: calls, reasons, messages, probes, jobs, deliveries, sessions, days of spend.

`settings.ZELO_KEEP_DAYS` says how long each kind stays. Nothing that a score, a total or the audit log needs is of any kind:
judgments stay, and a run's spend counts its deleted calls. The reconciler prunes each night, `manage.py prune` at once; both
delete in slices of one short transaction each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection, models, transaction
from django.db.models import F, Max, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from labeling import audit
from labeling.models import Rationale, Submission
from workers.budgets.operator_limits import MERGED_DAY, merge_days
from workers.deletion.job import FIGURES
from workers.deletion.walk import READ, Slices
from workers.models import (
    Attempt,
    DeletedSpend,
    EndpointSpend,
    InjectionProbe,
    Job,
    JudgeTrial,
    RecipeStage,
    Run,
    WebhookDelivery,
)

# The hour of the night, in the server's time zone, at which the reconciler prunes; a new reconciler does so an hour after its start.
NIGHT_HOUR = 3
FIRST_AFTER = timedelta(hours=1)
# The reconciler has other work: it continues in its next round.
SLICE_S = 2.0

ENDED_RUNS = (Run.State.FINISHED, Run.State.CANCELLED, Run.State.FAILED)
ENDED_JOBS = (Job.State.FINISHED, Job.State.FAILED, Job.State.CANCELLED)
# The day continues in UTC while it has ended here, and calls of yesterday end today.
FEWEST_DAYS_OF_SPEND = timedelta(days=2)
# Jobs of other stages are orders, which pages and lineage show.
PASSING_STAGES = ("pairs", "calibrate", "candidates", "evaluate", "archive")


@dataclass(frozen=True)
class Kind:
    """One kind of rows. `old` gives those that may go, of those before a moment; `remove` deletes some by primary key."""

    name: str
    model: type[models.Model]
    old: Callable[[datetime], QuerySet[Any]]
    remove: Callable[[type[models.Model], Sequence[Any]], None]


@dataclass(frozen=True, slots=True)
class Pruned:
    """Rows that were deleted by kind; `is_unfinished` if the time was up before all were."""

    rows: dict[str, int]
    is_unfinished: bool


def kept_days(name: str) -> int | None:
    """The number of days that rows of a kind are kept; None: for ever."""
    days: int | None = settings.ZELO_KEEP_DAYS[name]
    return days


def count_old(now: datetime | None = None) -> dict[str, int]:
    """The number of rows of each kind that `prune` would delete."""
    return {kind.name: _old(kind, now or timezone.now()).count() for kind in _limited()}


def prune(*, slice_s: float | None = None, now: datetime | None = None, by: Any = None) -> Pruned:
    """Delete what is older than it is kept, for `slice_s` seconds at most, and note what was deleted."""
    now = now or timezone.now()
    until = time.monotonic() + slice_s if slice_s is not None else None
    slices, rows, is_unfinished = Slices(), {}, False
    for kind in _limited():
        count = 0
        while not is_unfinished and (keys := _keys(kind, now)):
            while keys and not is_unfinished:
                part = keys[: slices.size(kind.model)]
                began = time.monotonic()
                with transaction.atomic():
                    kind.remove(kind.model, part)
                slices.took(kind.model, len(part), time.monotonic() - began)
                count += len(part)
                del keys[: len(part)]
                is_unfinished = until is not None and time.monotonic() > until
        if count:
            rows[kind.name] = count
    if rows:
        audit.note("server.pruned", project=None, actor=by, subject=", ".join(rows), **rows)
    return Pruned(rows, is_unfinished)


class Night:
    """When the reconciler prunes next."""

    def __init__(self) -> None:
        self._due: datetime | None = None

    def look(self, now: datetime) -> Pruned | None:
        """Prune if it is time; call it in each round."""
        if self._due is None:
            self._due = now + FIRST_AFTER
        if now < self._due:
            return None
        done = prune(slice_s=SLICE_S, now=now)
        if not done.is_unfinished:
            self._due = next_night(now)
        return done


def next_night(now: datetime) -> datetime:
    """The next moment at which it is NIGHT_HOUR in the server's time zone."""
    local = timezone.localtime(now)
    night = local.replace(hour=NIGHT_HOUR, minute=0, second=0, microsecond=0)
    return night if night > local else night + timedelta(days=1)


# --- kinds -------------------------------------------------------------------------------


def _old_attempts(before: datetime) -> QuerySet[Any]:
    return Attempt.objects.filter(finished_at__lt=before, run__state__in=ENDED_RUNS)


def _old_probes(before: datetime) -> QuerySet[Any]:
    return _all_but_the_latest(InjectionProbe, before)


def _old_trials(before: datetime) -> QuerySet[Any]:
    return _all_but_the_latest(JudgeTrial, before)


def _all_but_the_latest(model: type[Any], before: datetime) -> QuerySet[Any]:
    """Ended ones, but for each judge's latest, which its scorecard shows."""
    ended = model.objects.filter(job__state__in=ENDED_JOBS)
    latest = ended.order_by().values("annotator").annotate(latest=Max("pk")).values("latest")
    rows: QuerySet[Any] = ended.filter(job__finished_at__lt=before).exclude(pk__in=latest)
    return rows


def _old_jobs(before: datetime) -> QuerySet[Any]:
    """Jobs that have ended, but for the latest of each stage of a project, and those of recipes and of runs that may continue."""
    ended = Job.objects.filter(state__in=ENDED_JOBS, stage__in=PASSING_STAGES)
    latest = ended.order_by().values("project", "stage").annotate(latest=Max("pk")).values("latest")
    closed = models.Q(run__isnull=True) | models.Q(
        run__state__in=ENDED_RUNS, run__is_spent=False, run__is_unanswered=False
    )
    of_recipes = RecipeStage.objects.filter(job__isnull=False).values("job")
    return ended.filter(closed, finished_at__lt=before).exclude(pk__in=latest).exclude(pk__in=of_recipes)


def _old_spend(before: datetime) -> QuerySet[Any]:
    day = min(before, timezone.now() - FEWEST_DAYS_OF_SPEND).astimezone(UTC).date()
    return EndpointSpend.objects.filter(day__lt=day).exclude(day=MERGED_DAY)


def _merge_spend(model: type[models.Model], keys: Sequence[Any]) -> None:
    """Merge days of spend into one row a judge: limits in total still count them."""
    merge_days(keys)


def _remove(model: type[models.Model], keys: Sequence[Any]) -> None:
    QuerySet(model).filter(pk__in=keys).delete()


def _remove_attempts(model: type[models.Model], keys: Sequence[Any]) -> None:
    """Delete calls; the totals of their runs stay (migration 0031_pruned_attempts)."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL zelo.pruning = 'on'")
        cursor.execute("DELETE FROM workers_attempt WHERE id = ANY(%s)", [list(keys)])
        cursor.execute("SET LOCAL zelo.pruning = 'off'")


def _remove_checks(model: type[models.Model], keys: Sequence[Any]) -> None:
    """Delete probes or trials with their jobs; what they spent still counts for their projects."""
    rows: QuerySet[Any] = QuerySet(model).filter(pk__in=keys)
    jobs = list(rows.values_list("job", flat=True))
    sums = {figure: Coalesce(Sum(figure), 0) for figure in FIGURES}
    for spent in list(rows.order_by().values("project").annotate(**sums)):
        DeletedSpend.objects.get_or_create(project_id=spent["project"])
        changes: dict[str, Any] = {figure: F(figure) + spent[figure] for figure in FIGURES}
        DeletedSpend.objects.filter(project=spent["project"]).update(**changes)
    rows.delete()
    Job.objects.filter(pk__in=jobs).delete()


KINDS = (
    Kind("attempts", Attempt, _old_attempts, _remove_attempts),
    Kind("rationales", Rationale, lambda before: Rationale.objects.filter(judgment__created_at__lt=before), _remove),
    Kind("submissions", Submission, lambda before: Submission.objects.filter(created_at__lt=before), _remove),
    Kind("probes", InjectionProbe, _old_probes, _remove_checks),
    Kind("trials", JudgeTrial, _old_trials, _remove_checks),
    Kind("jobs", Job, _old_jobs, _remove),
    Kind(
        "deliveries",
        WebhookDelivery,
        lambda before: WebhookDelivery.objects.filter(finished_at__lt=before, state__in=["delivered", "failed"]),
        _remove,
    ),
    Kind("spend", EndpointSpend, _old_spend, _merge_spend),
    Kind("sessions", Session, lambda before: Session.objects.filter(expire_date__lt=before), _remove),
)


def _limited() -> list[Kind]:
    return [kind for kind in KINDS if kept_days(kind.name) is not None]


def _old(kind: Kind, now: datetime) -> QuerySet[Any]:
    return kind.old(now - timedelta(days=kept_days(kind.name) or 0))


def _keys(kind: Kind, now: datetime) -> list[Any]:
    """Primary keys of many slices at once: finding them may read past rows that were deleted just now."""
    return list(_old(kind, now).order_by("pk").values_list("pk", flat=True)[:READ])
