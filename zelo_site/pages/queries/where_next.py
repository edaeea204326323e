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

from labeling.models import Candidate, Query
from scoring.sampling.certainty import NextPair, next_pairs
from workers.runs.ordering import NoJudges, RunRefused, last_judges, order_more
from workers.runs.planning import pending_pairs
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


def queue_next(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Start the run on POST; show the reason if it cannot start."""
    project = owned_project(request, slug)
    query = get_object_or_404(Query.objects.visible_to(request.user).filter(project=project), pk=query_id)
    if request.method != "POST":
        return redirect("where-next", slug=project.slug, query_id=query.pk)
    try:
        order_more(project, [query.pk], pairs=PAIRS, by=request.user)
        messages.success(request, _("%(n)s pairs queued. Scores update as answers arrive.") % {"n": PAIRS})
    except NoJudges as error:
        messages.warning(request, str(error))
        return redirect("new-run", slug=project.slug)
    except RunRefused as error:
        messages.error(request, _("No pairs queued: %(error)s.") % {"error": error})
    return redirect("query", slug=project.slug, query_id=query.pk)
