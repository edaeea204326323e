"""Candidate retrieval for queries without candidates: the button that starts it, and its progress.

The project's page, the list of queries and a query's ranking include this fragment. `workers.jobs.candidates` does
the work; `manage.py candidates` is the same in the terminal.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from labeling.models import Document, Project
from workers.jobs.candidates import STAGE, AlreadyFilling, bare_queries, needs_filling, order_candidates
from workers.models import Job
from zelo_site.pages.live import live_fragment, rendered_fragment
from zelo_site.pages.project.queues import read_queues
from zelo_site.pages.scope import may_change, owned_project, visible_project

PART = "zelo/importing/parts/filling.html"


def filling_context(request: HttpRequest, project: Project) -> dict[str, object]:
    """Return the fragment's context: last job, whether it runs, queries without candidates, and permission."""
    job = Job.objects.filter(project=project, stage=STAGE).first()
    goes_on = job is not None and job.state in {Job.State.OPEN, Job.State.LEASED}
    return {
        "project": project,
        "job": job,
        "goes_on": goes_on,
        "bare": bare_queries(project),
        "has_documents": Document.objects.filter(project=project).exists(),
        "missing": [queue for queue in read_queues(["judging-cpu"]) if not queue.workers] if goes_on else [],
        "may_change": may_change(request, project),
    }


def filling_part(request: HttpRequest, project: Project) -> str:
    """Return the fragment, or "" if every query has candidates and no job runs."""
    return rendered_fragment(request, PART, filling_context(request, project))[0] if needs_filling(project) else ""


def candidates(request: HttpRequest, slug: str) -> HttpResponse:
    """GET returns the fragment, or 204 if it is unchanged. POST starts retrieval with the default retriever."""
    if request.method != "POST":
        project = visible_project(request, slug)
        if not request.headers.get("HX-Request"):
            return redirect("project", slug=project.slug)  # a fragment is not a page
        return live_fragment(request, PART, filling_context(request, project))
    project = owned_project(request, slug)
    try:
        order_candidates(project, by=request.user)
        messages.success(request, _("Candidate retrieval started. Candidates appear when a worker has found them."))
    except AlreadyFilling:
        messages.info(request, _("Candidate retrieval is already running."))
    return redirect("project", slug=project.slug)
