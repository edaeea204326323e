"""The depth of each queue: work that waits, since when, work in flight, dead letters; as far as a user may see it.

Read by the jobs page, with the counts of large tables from `workers.monitoring.result_cache`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Min, Q
from django.db.models.functions import Now

from labeling.models import Annotator, Membership, Query, Role, Viewer
from labeling.records import FailureKind
from workers.broker.routing import QUEUES, judging_queue
from workers.judging.failures import MEANINGS, MostFrequent
from workers.models import InjectionProbe, Job, JudgingTask, Run
from workers.monitoring.result_cache import costly

STAGE_QUEUES = {"candidates": "judging-cpu", "train": "training", "evaluate": "training", "pairs": "rating"}


@dataclass(frozen=True, slots=True)
class Backlog:
    """One queue: work that is due, waits for a retry, or is in flight; when the oldest due work was ordered."""

    queue: str
    due: int = 0
    later: int = 0
    in_flight: int = 0
    oldest: datetime | None = None

    @property
    def has_work(self) -> bool:
        return bool(self.due or self.in_flight)


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The questions of a project that failed for one reason and are not retried automatically; their commonest message."""

    project: str
    slug: str
    reason: str
    label: str
    message: str
    count: int
    may_retry: bool


def read_backlog(user: Viewer) -> list[Backlog]:
    """The backlog of every queue, in the order of `manage.py worker`."""
    found: dict[str, Backlog] = {name: Backlog(name) for name in QUEUES}

    def add(name: str, *, due: int = 0, later: int = 0, in_flight: int = 0, oldest: datetime | None = None) -> None:
        was = found[name]
        since = min(filter(None, [was.oldest, oldest]), default=None)
        found[name] = Backlog(name, was.due + due, was.later + later, was.in_flight + in_flight, since)

    for row in costly(f"zelo:backlog:{user.pk}", lambda: _questions(user)):
        add(
            judging_queue(row["annotator__plugin"]),
            due=row["due"], later=row["later"], in_flight=row["leased"], oldest=row["oldest"],
        )  # fmt: skip
    for row in _jobs(user):
        if name := STAGE_QUEUES.get(row["stage"]):
            add(name, due=row["open"], in_flight=row["leased"], oldest=row["oldest"])
    for row in _probes(user):
        add(judging_queue(row["annotator__plugin"]), due=row["open"], in_flight=row["leased"], oldest=row["oldest"])
    add("rating", due=costly(f"zelo:stale:{user.pk}", lambda: _stale(user)))
    return list(found.values())


def _questions(user: Viewer) -> list[dict[str, Any]]:
    tasks = JudgingTask.objects.visible_to(user).filter(
        Q(run__state=Run.State.JUDGING) | Q(state=JudgingTask.State.LEASED), annotator__paused_at__isnull=True
    )
    is_due = Q(state=JudgingTask.State.OPEN, next_at__lte=Now())
    counted: Any = tasks.order_by().values("annotator__plugin")
    return list(
        counted.annotate(
            due=Count("pk", filter=is_due),
            later=Count("pk", filter=Q(state=JudgingTask.State.OPEN) & ~is_due),
            leased=Count("pk", filter=Q(state=JudgingTask.State.LEASED)),
            oldest=Min("next_at", filter=is_due),
        )
    )


def _jobs(user: Viewer) -> list[dict[str, Any]]:
    jobs: Any = Job.objects.visible_to(user).filter(state__in=[Job.State.OPEN, Job.State.LEASED])
    jobs = jobs.filter(Q(run__isnull=True) | Q(run__state__in=Run.ACTIVE)).order_by().values("stage")
    is_open = Q(state=Job.State.OPEN)
    return list(
        jobs.annotate(
            open=Count("pk", filter=is_open), leased=Count("pk", filter=~is_open),
            oldest=Min("created_at", filter=is_open),
        )
    )  # fmt: skip


def _probes(user: Viewer) -> list[dict[str, Any]]:
    probes: Any = InjectionProbe.objects.visible_to(user)
    probes = probes.filter(job__state__in=[Job.State.OPEN, Job.State.LEASED]).order_by()
    is_open = Q(job__state=Job.State.OPEN)
    return list(
        probes.values("annotator__plugin").annotate(
            open=Count("pk", filter=is_open), leased=Count("pk", filter=~is_open),
            oldest=Min("created_at", filter=is_open),
        )
    )  # fmt: skip


def _stale(user: Viewer) -> int:
    """The number of queries with answers that are not in a fit yet."""
    stale = Query.objects.visible_to(user).filter(judged_version__gt=0)
    return stale.filter(Q(fit__isnull=True) | Q(fit__judged_version__lt=F("judged_version"))).count()


def read_dead_letters(user: Viewer) -> list[DeadLetters]:
    """Dead letters of the projects that `user` sees, by project and reason, the largest first."""
    dead = JudgingTask.objects.visible_to(user).filter(state=JudgingTask.State.DEAD).order_by()
    rows = dead.values("run__project", "run__project__name", "run__project__slug", "reason").annotate(
        number=Count("pk"), common=MostFrequent("message")
    )
    owned = set(Membership.objects.filter(user_id=user.pk or 0, role=Role.OWNER).values_list("project", flat=True))
    is_superuser = getattr(user, "is_superuser", False)
    found = []
    for row in rows.order_by("-number", "run__project", "reason")[:50]:
        meaning = MEANINGS[FailureKind(row["reason"])]
        found.append(
            DeadLetters(
                row["run__project__name"], row["run__project__slug"], row["reason"], meaning.label,
                row["common"],
                row["number"], is_superuser or row["run__project"] in owned,
            )
        )  # fmt: skip
    return found


def endpoint_names(user: Viewer) -> set[str]:
    """The names of the endpoints that judges of the user's projects use."""
    named = Annotator.objects.visible_to(user).filter(is_person=False).values_list("options__endpoint", flat=True)
    return {name for name in named.distinct() if isinstance(name, str)}
