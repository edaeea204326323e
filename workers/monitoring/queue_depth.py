"""The depth of each queue: work that waits, since when, work in flight, dead letters; as far as a user may see it.

Read by the jobs page, with the counts of large tables from `workers.monitoring.result_cache`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count, F, Min, Q

from labeling.models import Annotator, Membership, Query, Role, Viewer
from labeling.records import FailureKind
from workers.broker.routing import QUEUES, judging_queue
from workers.judging.failures import MEANINGS, MostFrequent
from workers.models import InjectionProbe, Job, JudgingTask, Run
from workers.monitoring.result_cache import costly

STAGE_QUEUES = {
    "candidates": "judging-cpu", "import": "judging-cpu", "archive": "judging-cpu", "train": "training",
    "evaluate": "training", "pairs": "rating",
}  # fmt: skip


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
            judging_queue(row["plugin"]),
            due=row["due"], later=row["later"], in_flight=row["leased"], oldest=row["oldest"],
        )  # fmt: skip
    for row in _jobs(user):
        if name := STAGE_QUEUES.get(row["stage"]):
            add(name, due=row["open"], in_flight=row["leased"], oldest=row["oldest"])
    for row in _probes(user):
        add(judging_queue(row["annotator__plugin"]), due=row["open"], in_flight=row["leased"], oldest=row["oldest"])
    add("rating", due=costly(f"zelo:stale:{user.pk}", lambda: _stale(user)))
    return list(found.values())


# The tasks of each judge in each run by the running counts, less those that an index of few rows holds. Reads no task that is due but
# the oldest. With the limit PostgreSQL looks at the index of open tasks alone.
_QUESTIONS = """
SELECT annotator.plugin AS plugin,
       COALESCE(sum(GREATEST(counted.tasks - apart.leased - apart.dead - apart.later, 0)) FILTER (WHERE asks), 0)::bigint AS due,
       COALESCE(sum(apart.later) FILTER (WHERE asks), 0)::bigint AS later, sum(apart.leased)::bigint AS leased,
       min(apart.oldest) FILTER (WHERE asks) AS oldest
FROM (
    SELECT run.id AS run_id, counts.annotator_id, run.state = 'judging' AS asks, sum(counts.tasks) AS tasks
    FROM workers_run run JOIN workers_taskcount counts ON counts.run_id = run.id WHERE run.id = ANY(%(runs)s)
    GROUP BY 1, 2 HAVING sum(counts.tasks) > 0
) counted JOIN labeling_annotator annotator ON annotator.id = counted.annotator_id AND annotator.paused_at IS NULL
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM workers_judgingtask task WHERE task.state = 'leased'
            AND task.run_id = counted.run_id AND task.annotator_id = counted.annotator_id) AS leased,
           (SELECT count(*) FROM workers_judgingtask task WHERE task.state = 'dead'
            AND task.run_id = counted.run_id AND task.annotator_id = counted.annotator_id) AS dead,
           (SELECT count(*) FROM workers_judgingtask task WHERE task.state = 'open' AND task.run_id = counted.run_id
            AND task.annotator_id = counted.annotator_id AND task.next_at > clock.now) AS later,
           (SELECT task.next_at FROM workers_judgingtask task WHERE task.state = 'open' AND task.run_id = counted.run_id
            AND task.annotator_id = counted.annotator_id AND task.next_at <= clock.now ORDER BY task.next_at LIMIT 1) AS oldest
    FROM (SELECT statement_timestamp() AS now) clock
) apart
GROUP BY annotator.plugin
"""


def _questions(user: Viewer) -> list[dict[str, Any]]:
    """The questions that are due, wait or are in flight by the judge's plugin; in flight in runs that have ended, too."""
    in_flight = JudgingTask.objects.filter(state=JudgingTask.State.LEASED).values("run")
    runs = Run.objects.visible_to(user).filter(Q(state=Run.State.JUDGING) | Q(pk__in=in_flight))
    with connection.cursor() as cursor:
        cursor.execute(_QUESTIONS, {"runs": list(runs.values_list("pk", flat=True))})
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


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
