"""Server status: runs, jobs and workers, and the doctor's findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from workers.broker.routing import QUEUES, QueueKind
from workers.endpoints.limiter import EndpointView, endpoint_states
from workers.models import Job, Run, Worker
from workers.monitoring.heartbeats import may_see_hosts
from workers.monitoring.queue_depth import Backlog, endpoint_names, read_backlog, read_dead_letters
from workers.monitoring.result_cache import costly
from workers.runs.progress import RunPace, count_tasks, read_paces
from zelo_site.cli.worker_command import worker_command
from zelo_site.doctor import Health, examine
from zelo_site.pages.judging.batches import recent_batches
from zelo_site.pages.live import live_fragment, rendered_fragment
from zelo_site.pages.project.queues import broker_is_up, read_queues

SHOWN = 30
LIVE = "zelo/server/parts/jobs_live.html"


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue on the page: waiting tasks, its workers, and the command that starts one if there is none."""

    kind: QueueKind
    backlog: Backlog
    workers: list[Worker]
    command: str

    @property
    def is_stuck(self) -> bool:
        return self.backlog.has_work and not self.workers


@dataclass(frozen=True, slots=True)
class RunRow:
    run: Run
    pace: RunPace | None


def _is_staff(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_staff", False))


def _endpoint_views(request: HttpRequest) -> list[EndpointView]:
    """Return the endpoints of the user's judges. Other projects may share them, so only staff see error texts; a project's
    own errors are on its page of unanswered questions.
    """
    names = endpoint_names(request.user)
    views = [view for view in endpoint_states() if view.name in names] if names else []
    return views if _is_staff(request) else [replace(view, last_error="") for view in views]


def _queue_rows(request: HttpRequest) -> list[QueueRow]:
    backlogs = {each.queue: each for each in read_backlog(request.user)}
    return [
        QueueRow(
            QUEUES[each.name], backlogs[each.name], each.workers, worker_command(each.name, in_full=_is_staff(request))
        )
        for each in read_queues(QUEUES)
    ]


def _paces(request: HttpRequest, runs: Sequence[Run]) -> dict[int, RunPace]:
    """The pace of those runs that have not ended."""
    going = [run for run in runs if run.state in (*Run.ACTIVE, Run.State.PAUSED)]
    ids = [run.pk for run in going]
    key = f"zelo:paces:{request.user.pk}:{max(ids, default=0)}:{len(ids)}"
    return read_paces(going, costly(key, lambda: count_tasks(ids)))


def _jobs_context(request: HttpRequest) -> dict[str, object]:
    user = request.user
    runs = list(Run.objects.visible_to(user).select_related("project").order_by("-id")[:SHOWN])
    jobs = Job.objects.visible_to(user).select_related("project").order_by("-id")
    paces, queues = _paces(request, runs), _queue_rows(request)
    return {
        "runs": [RunRow(run, paces.get(run.pk)) for run in runs],
        "jobs": jobs[:SHOWN],
        "queues": queues,
        "stuck": [queue for queue in queues if queue.is_stuck],
        "workers": sorted({worker.pk: worker for queue in queues for worker in queue.workers}.values(), key=_by_host),
        "in_flight": sum(queue.backlog.in_flight for queue in queues),
        "answers_a_minute": sum(pace.answers_a_minute for pace in paces.values()),
        "dead": read_dead_letters(user),
        "batches": recent_batches(user),
        "endpoints": _endpoint_views(request),
        "shows_hosts": may_see_hosts(user),
        "broker": broker_is_up(),
    }


def _by_host(worker: Worker) -> tuple[str, str]:
    return worker.host, worker.name


def jobs_page(request: HttpRequest) -> HttpResponse:
    """Show the runs and jobs of the user's projects, newest first, and the workers."""
    live, __ = rendered_fragment(request, LIVE, _jobs_context(request))
    return render(request, "zelo/server/jobs.html", {"live": live, "here": "jobs"})


def jobs_live(request: HttpRequest) -> HttpResponse:
    """Return the same as a fragment, or 204 if it is unchanged."""
    return live_fragment(request, LIVE, _jobs_context(request))


def doctor_page(request: HttpRequest) -> HttpResponse:
    """Show the doctor's findings, only to staff, because they describe the machine."""
    if not _is_staff(request):
        raise PermissionDenied(_("only staff can see the doctor page; ask the server administrator"))
    findings = examine()
    bad = sum(finding.health is Health.BAD for finding in findings)
    return render(request, "zelo/server/doctor.html", {"findings": findings, "bad": bad, "here": "doctor"})
