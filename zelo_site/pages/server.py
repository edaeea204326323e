"""What the server is doing and whether it is well: runs, jobs, workers; and the doctor's findings."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from workers.models import Job, Run
from zelo_site.doctor import Health, examine
from zelo_site.overview import broker_is_up, read_queues
from zelo_site.pages.live import live_fragment, rendered_fragment

SHOWN = 30
LIVE = "zelo/parts/jobs_live.html"


def _jobs_context(request: HttpRequest) -> dict[str, object]:
    runs = Run.objects.visible_to(request.user).select_related("project").order_by("-id")
    jobs = Job.objects.visible_to(request.user).select_related("project").order_by("-id")
    return {"runs": runs[:SHOWN], "jobs": jobs[:SHOWN], "queues": read_queues(), "broker": broker_is_up()}


def jobs_page(request: HttpRequest) -> HttpResponse:
    """Runs and jobs of the visitor's projects, newest first, and the workers."""
    live, _ = rendered_fragment(request, LIVE, _jobs_context(request))
    return render(request, "zelo/jobs.html", {"live": live, "here": "jobs"})


def jobs_live(request: HttpRequest) -> HttpResponse:
    """The same as a fragment; 204 while nothing changed."""
    return live_fragment(request, LIVE, _jobs_context(request))


def doctor_page(request: HttpRequest) -> HttpResponse:
    """The doctor's findings; only for staff, since they tell about the machine."""
    if not getattr(request.user, "is_staff", False):
        raise PermissionDenied("the doctor's findings are for staff; ask whoever runs this server")
    findings = examine()
    bad = sum(finding.health is Health.BAD for finding in findings)
    return render(request, "zelo/doctor.html", {"findings": findings, "bad": bad, "here": "doctor"})
