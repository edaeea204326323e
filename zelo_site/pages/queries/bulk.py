"""Actions on selected queries: a page that says what would happen, and a POST that does it with the verbs of single queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labeling.models import Project
from labeling.projects import exclude_queries, include_queries
from scoring.sampling.certainty import next_pairs
from scoring.spot_checks.draws import NothingToAsk
from scoring.spot_checks.plans import Reason, open_pairs
from workers.deletion.orders import delete
from workers.deletion.targets import COUNT_LABELS, DeletionRefused, find_target
from workers.models import Job
from workers.runs.ordering import NoJudges, RunRefused, last_judges, order_more
from zelo_site.pages.forms import LARGEST_ID, one_of, whole_number
from zelo_site.pages.queries.views import View, queries_of
from zelo_site.pages.scope import owned_project
from zelo_site.templatetags.figures import count

MOST_CHECKED = 200  # queries whose next pairs a request chooses
MOST_PAIRS = 1000
SHOWN = 10
ASK, CHECK, EXCLUDE, INCLUDE, DELETE = "ask", "check", "exclude", "include", "delete"
DEFAULT_PAIRS = {ASK: 10, CHECK: 1}


class BulkRefused(ValueError):
    """The action cannot be done on this selection; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Action:
    """A bulk action: the heading, the sentence that explains it, its button and its verb, which returns a message."""

    title: Any
    about: Any
    button: Any
    carry_out: Callable[[HttpRequest, Project, list[int], int], str]


def bulk_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what `action` would do to the selected queries; a POST does it."""
    project = owned_project(request, slug)
    sent = request.POST if request.method == "POST" else request.GET
    name = one_of(sent, "action", ACTIONS)
    if not name:
        return redirect("queries", slug=project.slug)
    view = View.of(sent)
    ids = _selected(request, project, sent, view)
    back = f"{reverse('queries', args=[project.slug])}?{view.address}"
    if not ids:
        messages.warning(request, _("No query is selected. Select some, then choose an action."))
        return redirect(back)
    pairs = min(max(1, whole_number(sent, "pairs") or DEFAULT_PAIRS.get(name, 1)), MOST_PAIRS)
    error = None
    if request.method == "POST":
        try:
            messages.success(request, ACTIONS[name].carry_out(request, project, ids, pairs))
            return redirect(back)
        except (BulkRefused, RunRefused, NoJudges, NothingToAsk, DeletionRefused) as refused:
            error = refused
    context = {
        "project": project,
        "action": ACTIONS[name],
        "name": name,
        "ids": ids,
        "everything": bool(sent.get("all")),
        "view": view,
        "back": back,
        "queries": queries_of(request, project).filter(pk__in=ids[:SHOWN]).order_by("id"),
        "more": max(0, len(ids) - SHOWN),
        "pairs": pairs if name in DEFAULT_PAIRS else None,
        "judges": last_judges(project)[1] if name == ASK else [],
        "counts": _deleted_with(project, ids) if name == DELETE else [],
        "error": error,
        "here": "queries",
    }
    return render(request, "zelo/queries/bulk.html", context, status=409 if error else 200)


def _selected(request: HttpRequest, project: Project, sent: QueryDict, view: View) -> list[int]:
    """Return the ids of the ticked queries, or with `all` of every query of the view, in id order."""
    rows = queries_of(request, project).select_related(None)
    if sent.get("all"):
        rows = view.applied(rows)
    else:
        ticked = [int(each) for each in sent.getlist("query") if each.isascii() and each.isdigit() and len(each) < 19]
        rows = rows.filter(pk__in=[each for each in ticked if each <= LARGEST_ID])
    return sorted(rows.values_list("pk", flat=True))


def _deleted_with(project: Project, ids: list[int]) -> list[tuple[str, int]]:
    counts = find_target(project, "query", ids).counted()
    return [(COUNT_LABELS[key], number) for key, number in counts.items() if number]


# --- the actions ----------------------------------------------------------------------------


def _ask(request: HttpRequest, project: Project, ids: list[int], pairs: int) -> str:
    run = order_more(project, ids, pairs=pairs, by=request.user)
    return _("Run %(run)s asks up to %(pairs)s pairs.") % {"run": run.pk, "pairs": count(pairs * len(ids))}


def _check(request: HttpRequest, project: Project, ids: list[int], pairs: int) -> str:
    if len(ids) > MOST_CHECKED:
        raise BulkRefused(
            _("%(n)s queries are selected; expected at most %(most)s. Select fewer, or plan checks on the people page.")
            % {"n": count(len(ids)), "most": MOST_CHECKED}
        )
    chosen = [(each.a_id, each.b_id, query) for query in ids for each in next_pairs(query, pairs)]
    if not chosen:
        raise BulkRefused(_("These queries have no pair left to ask, or no scores yet. Start a run on them first."))
    planned = open_pairs(project, chosen, reason=Reason.UNCERTAIN, by=request.user)
    return ngettext("Planned %(n)s pair.", "Planned %(n)s pairs.", planned.pairs) % {"n": count(planned.pairs)}


def _exclude(request: HttpRequest, project: Project, ids: list[int], pairs: int) -> str:
    done = exclude_queries(project, ids, by=request.user)
    return ngettext("%(n)s query excluded.", "%(n)s queries excluded.", done) % {"n": count(done)}


def _include(request: HttpRequest, project: Project, ids: list[int], pairs: int) -> str:
    done = include_queries(project, ids, by=request.user)
    return ngettext("%(n)s query included again.", "%(n)s queries included again.", done) % {"n": count(done)}


def _delete(request: HttpRequest, project: Project, ids: Sequence[int], pairs: int) -> str:
    target = find_target(project, "query", list(ids))
    job = delete(target, by=request.user)
    if job.state == Job.State.FINISHED:
        return _("%(name)s deleted.") % {"name": target.name}
    return _("Deleting %(name)s. The Jobs page shows the progress.") % {"name": target.name}


ACTIONS = {
    ASK: Action(
        gettext_lazy("Ask more"),
        gettext_lazy("A run asks the judges of the last run about the most informative pairs of these queries."),
        gettext_lazy("Start run"), _ask,
    ),
    CHECK: Action(
        gettext_lazy("Spot check"),
        gettext_lazy("People get the most informative pairs of these queries on their comparison screen."),
        gettext_lazy("Plan checks"), _check,
    ),
    EXCLUDE: Action(
        gettext_lazy("Exclude queries"),
        gettext_lazy("New runs, spot checks and snapshots leave these queries out. Their answers and scores stay."),
        gettext_lazy("Exclude"), _exclude,
    ),
    INCLUDE: Action(
        gettext_lazy("Include queries"),
        gettext_lazy("New runs, spot checks and snapshots use these queries again."),
        gettext_lazy("Include"), _include,
    ),
    DELETE: Action(
        gettext_lazy("Delete queries"),
        gettext_lazy("Their documents stay. Frozen snapshots stay as they are. This cannot be undone."),
        gettext_lazy("Delete"), _delete,
    ),
}  # fmt: skip
