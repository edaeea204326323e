"""Next pairs of a query: its top-10 certainty, the most informative pairs, and the button that queues them.

The sampler `uncertain` chooses the pairs; the button starts a run with it over this query only, with the judges of the
project's last run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from labeling.models import Annotator, Candidate, Project, Query
from scoring.sampling.certainty import NextPair, next_pairs
from workers.models import Run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.planning import UNCERTAIN, pending_pairs
from zelo_site.pages.project.certainty import certainty_of_fits
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.pages.texts import SNIPPET_LENGTH, document_title

PAIRS = 10


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair with its document titles; `width` is its bar's width in per cent of the widest."""

    a_title: str
    b_title: str
    shrinkage: float
    width: float


def where_next(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Show the card: a fragment of the query's page, or a full page without JavaScript."""
    project = visible_project(request, slug)
    queries = Query.objects.visible_to(request.user).filter(project=project).select_related("fit")
    query = get_object_or_404(queries, pk=query_id)
    context = {
        **_context(query),
        "project": project,
        "query": query,
        "may_change": may_change(request, project),
        "judges": last_judges(project)[1],
        "here": "queries",
    }
    is_fragment = bool(request.headers.get("HX-Request"))
    return render(
        request, "zelo/queries/parts/where_next.html" if is_fragment else "zelo/queries/where_next.html", context
    )


def _context(query: Query) -> dict[str, Any]:
    fit = getattr(query, "fit", None)
    waiting = pending_pairs([query.pk])
    pairs = next_pairs(query.pk, PAIRS, pending=waiting) if fit else []
    return {
        "certainty": certainty_of_fits([fit]).get(query.pk) if fit else None,
        "pairs": _shown(pairs),
        "total": sum(pair.shrinkage for pair in pairs),
        "waiting": len(waiting),
    }


def _shown(pairs: list[NextPair]) -> list[ShownPair]:
    ids = {candidate for pair in pairs for candidate in (pair.a_id, pair.b_id)}
    rows = (
        Candidate.objects.filter(pk__in=ids)
        .annotate(words=Left("document__text", SNIPPET_LENGTH))
        .values_list("id", "words", "document__metadata")
    )
    titles = {row[0]: document_title(row[1], row[2]) for row in rows}
    widest = max((pair.shrinkage for pair in pairs), default=0.0) or 1.0
    return [
        ShownPair(titles[pair.a_id], titles[pair.b_id], pair.shrinkage, round(100.0 * pair.shrinkage / widest, 1))
        for pair in pairs
    ]


def last_judges(project: Project) -> tuple[Run | None, list[Annotator]]:
    """Return the project's last run and its active judges, a cascade's first judge first."""
    run = Run.objects.filter(project=project).order_by("-id").first()
    if run is None:
        return None, []
    judges = run.judges.filter(paused_at__isnull=True).order_by("id")
    return run, sorted(judges, key=lambda judge: judge.pk != run.cascade_first_id)


def queue_next(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Start the run on POST; show the reason if it cannot start."""
    project = owned_project(request, slug)
    query = get_object_or_404(Query.objects.visible_to(request.user).filter(project=project), pk=query_id)
    if request.method != "POST":
        return redirect("where-next", slug=project.slug, query_id=query.pk)
    last, judges = last_judges(project)
    if last is None or not judges:
        messages.warning(request, _("No judges yet. Choose the judges for this run."))
        return redirect("new-run", slug=project.slug)
    is_cascade = last.allocation == Run.Allocation.CASCADE and len(judges) > 1 and judges[0].pk == last.cascade_first_id
    allocation = Run.Allocation.ALL if last.allocation == Run.Allocation.CASCADE and not is_cascade else last.allocation
    try:
        start_run(
            project,
            judges=judges,
            by=request.user,
            sampler=UNCERTAIN,
            sampler_options={"pairs": PAIRS},
            allocation=allocation,
            cascade_threshold=last.cascade_threshold if is_cascade else None,
            orders=last.orders,
            query_ids=[query.pk],
            pair_budget=PAIRS,
        )
        messages.success(request, _("%(n)s pairs queued. Scores update as answers arrive.") % {"n": PAIRS})
    except RunRefused as error:
        messages.error(request, _("No pairs queued: %(error)s.") % {"error": error})
    return redirect("query", slug=project.slug, query_id=query.pk)
