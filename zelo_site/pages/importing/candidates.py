"""Where queries have no candidates: the offer to have a retriever find some, and how far it is.

One part that the project's page, the list of queries and a query's ranking show; the work is
`workers.jobs.candidates`, the same in the terminal is `manage.py candidates`.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from labeling.models import Document, Project
from workers.jobs.candidates import STAGE, AlreadyFilling, bare_queries, needs_filling, order_candidates
from workers.models import Job
from zelo_site.demo.announcing import announced_embedding
from zelo_site.pages.live import live_fragment, rendered_fragment
from zelo_site.pages.project.overview import read_queues
from zelo_site.pages.scope import may_change, owned_project, visible_project

PART = "zelo/parts/filling.html"


def filling_context(request: HttpRequest, project: Project) -> dict[str, object]:
    """The part's context: the last job, whether it goes on, how many queries are bare, who may order."""
    job = Job.objects.filter(project=project, stage=STAGE).first()
    announced = announced_embedding(project.pk)
    goes_on = announced is not None or (job is not None and job.state in {Job.State.OPEN, Job.State.LEASED})
    return {
        "project": project,
        "job": job,
        "goes_on": goes_on,
        "announced": announced,
        "bare": bare_queries(project),
        "has_documents": Document.objects.filter(project=project).exists(),
        "missing": [queue for queue in read_queues(["judging-cpu"]) if not queue.workers]
        if goes_on and announced is None
        else [],
        "may_change": may_change(request, project),
    }


def filling_part(request: HttpRequest, project: Project) -> str:
    """The part for a page, or "" where every query has candidates and nothing goes on."""
    return rendered_fragment(request, PART, filling_context(request, project))[0] if needs_filling(project) else ""


def candidates(request: HttpRequest, slug: str) -> HttpResponse:
    """GET: the part alone, 204 while nothing changed. POST: order candidates with the usual retriever."""
    if request.method != "POST":
        project = visible_project(request, slug)
        if not request.headers.get("HX-Request"):
            return redirect("project", slug=project.slug)  # a part is no page
        return live_fragment(request, PART, filling_context(request, project))
    project = owned_project(request, slug)
    try:
        order_candidates(project, by=request.user)
        messages.success(request, _("Candidates are being retrieved; they appear as soon as a worker has found them."))
    except AlreadyFilling:
        messages.info(request, _("Candidates are being retrieved already; nothing was ordered twice."))
    return redirect("project", slug=project.slug)
