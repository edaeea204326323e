"""The leaderboard of rerankers on held-out queries, and the changes per query.

Figures come from `trainer.evaluation.leaderboard`, and `workers.jobs.evaluation` runs evaluations. A trained reranker that loses is
listed at its rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.core.cache import cache
from django.db.models import Max, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from labeling.access.annotators import names_told_apart
from labeling.importing.lines import RowError
from labeling.models import Annotator, Project, Query
from labeling.wording import translated_name
from scoring.models import Snapshot
from scoring.numerics.measures.rankings import UnknownMetric
from scoring.quality import JUDGE_ORDER
from trainer.evaluation.entries import UNTRAINED_BASE, EntryRefused, NameTaken, enter_outside, enter_run_file
from trainer.evaluation.external.rerankers import OutsideInvalid, UnknownOutside, outside_endpoints
from trainer.evaluation.leaderboard import (
    BASELINES,
    SPLITS,
    Leaderboard,
    NotEvaluated,
    Row,
    evaluation_query,
    leaderboard,
    unpacked,
)
from trainer.evaluation.llm_grades import grading_models
from trainer.evaluation.metrics import METRICS, REFERENCES, NothingToMeasure, Reference, parse_measures
from trainer.evaluation.rank_changes import Moved, moved_documents, origins_of, what_moved
from trainer.evaluation.system_orders import all_system_orders
from trainer.models import Evaluation, Reranker
from workers.jobs.evaluation import STAGE, EvaluationRefused, order_evaluation
from workers.models import Job
from zelo_site.pages.charts.geometry import Axis, IntervalBar
from zelo_site.pages.forms import BadForm, PageForm, one_of, shown_form, text_of, whole_number
from zelo_site.pages.rerankers.orders import OrdersLine, orders_lines
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.pages.texts import clipped, document_title

MOVED_SHOWN = 200
ORDERS_KEPT_S = 30
LONGEST_ID = 1000
LONGEST_MEASURES = 300


@dataclass(frozen=True, slots=True)
class Chosen:
    """The page's selection: snapshot, split and reference; `graded_by`: the model whose LLM grades count, None for all."""

    snapshot: Snapshot
    split: str
    reference: Reference
    compared_with: int | None = None
    measures: tuple[str, ...] = METRICS
    complete: bool = False
    wrong_measures: str = ""
    graded_by: int | None = None

    @property
    def address(self) -> str:
        """Return the selection as URL parameters."""
        words: dict[str, object] = {"snapshot": self.snapshot.pk, "split": self.split, "reference": self.reference}
        words |= {} if self.compared_with is None else {"against": self.compared_with}
        words |= {} if self.graded_by is None else {"graded_by": self.graded_by}
        words |= {} if self.measures == METRICS else {"measures": self.named_measures}
        return urlencode(words | ({"complete": "on"} if self.complete else {}))

    @property
    def named_measures(self) -> str:
        """Return the measures as the reader types them."""
        return ", ".join(self.measures)


def shown_name(reranker: Row | Reranker) -> str:
    """Return a baseline's name translated, and any other name unchanged."""
    if reranker.kind not in BASELINES:
        return reranker.name
    return translated_name(reranker.name, UNTRAINED_BASE, JUDGE_ORDER)


def named_with_release(reranker: Row | Reranker) -> str:
    """Return the name, and whether the gate held the reranker back: where there is no place for a badge."""
    found = reranker if isinstance(reranker, Reranker) else reranker.evaluation.reranker
    badges = {
        Reranker.Release.HELD_BACK: _("held back"),
        Reranker.Release.PUBLISHED_ANYWAY: _("published although held back"),
    }
    badge = badges.get(Reranker.Release(found.release))
    return f"{shown_name(reranker)} ({badge})" if badge else shown_name(reranker)


@dataclass(frozen=True, slots=True)
class Named:
    """A reranker's row on the page."""

    pk: int
    name: str

    @classmethod
    def of(cls, reranker: Reranker) -> Named:
        return cls(reranker.pk, named_with_release(reranker))


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the leaderboard with its interval as a bar on a shared axis."""

    row: Row
    bar: IntervalBar

    @property
    def name(self) -> str:
        return shown_name(self.row)

    @property
    def release(self) -> str:
        """Return whether the gate held the reranker back, see `trainer.models.Reranker`."""
        return self.row.evaluation.reranker.release

    @property
    def label(self) -> str:
        """Return the kind of reranker, unless the name already says it."""
        labels = {"trained": _("trained here"), "outside": _("over HTTP"), "run_file": _("run file")}
        return labels.get(self.row.kind, "")


class RunFileForm(PageForm):
    """A run file to add; without a name, the entry has the file's name."""

    run = forms.FileField(
        label=gettext_lazy("Run file"),
        allow_empty_file=True,
        error_messages={"required": gettext_lazy("no file was chosen; choose a run file")},
    )
    name = forms.CharField(label=gettext_lazy("Name"), max_length=200, required=False)


class EndpointForm(PageForm):
    """A configured HTTP reranker to add."""

    endpoint = forms.ChoiceField(label=gettext_lazy("HTTP reranker"), choices=lambda: [(n, n) for n in _outside()])


class EvaluateForm(PageForm):
    """The snapshot and the split to evaluate."""

    snapshot = forms.ModelChoiceField(Snapshot.objects.none(), label=gettext_lazy("Snapshot"))
    split = forms.ChoiceField(label=gettext_lazy("Split"), choices=[(split, split) for split in SPLITS], required=False)


def proof_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show one split's leaderboard; a POST starts an evaluation or adds an entry."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return _page(request, project)
    try:
        return _post(request, owned_project(request, slug))
    except BadForm as error:
        return _page(request, project, error)


def _page(request: HttpRequest, project: Project, error: BadForm | None = None) -> HttpResponse:
    snapshots = list(_snapshots(request, project))
    models = list(grading_models(project))
    chosen = _chosen(request, project, snapshots, models)
    job = Job.objects.filter(project=project, stage=STAGE).first()
    sent = {one_of(request.POST, "action", ACTIONS): request.POST}
    names = names_told_apart(project)
    context = {
        "project": project,
        "here": "proof",
        "snapshots": snapshots,
        "splits": SPLITS,
        "references": REFERENCES,
        "chosen": chosen,
        "board": (board := _board(project, chosen)),
        "lines": _lines(board) if board else [],
        "by_domain": _by_domain(board) if board and board.has_tall_domains else None,
        "orders": _orders(project, board, chosen.graded_by) if board and chosen else None,
        "grading_models": [Named(each.pk, names[each.pk]) for each in models],
        "job": job,
        "goes_on": job is not None and job.state in {Job.State.OPEN, Job.State.LEASED},
        "outside": _outside(),
        "run_form": shown_form(RunFileForm, sent.get("run_file"), error),
        "endpoint_form": shown_form(EndpointForm, sent.get("outside"), error),
        "error": error,
        "may_change": may_change(request, project),
    }
    return render(request, "zelo/rerankers/proof.html", context, status=422 if error else 200)


def _orders(project: Project, board: Leaderboard, model: int | None) -> list[OrdersLine]:
    """Return how far each two references order the rerankers alike, or what they lack.

    Kept for a while, until something else is evaluated: with LLM grades it reads every candidate of the split.
    """
    where, measure = (project, board.snapshot, board.split), board.measures[0]
    evaluated = Evaluation.objects.filter(project=project, snapshot=board.snapshot, split=board.split)
    newest = evaluated.aggregate(newest=Max("created_at"))["newest"]
    parts = (
        project.pk,
        board.snapshot.pk,
        board.split,
        measure,
        model,
        get_language(),
        newest.isoformat(),
        len(board.rows),
    )
    return cast(
        list[OrdersLine],
        cache.get_or_set(
            f"zelo:orders:{':'.join(map(str, parts))}",
            lambda: orders_lines(all_system_orders(*where, measure=measure, model=model)),
            ORDERS_KEPT_S,
        ),
    )


def _chosen(
    request: HttpRequest, project: Project, snapshots: list[Snapshot], models: list[Annotator]
) -> Chosen | None:
    """Return the selection from the URL; the default is the latest evaluation (of the snapshot that is named), or the latest
    snapshot's test split.

    A model that is none of `models`, such as a deleted one, means all.
    """
    asked = request.GET
    named = asked.get("snapshot")
    among = [each for each in snapshots if str(each.pk) == named] if named else snapshots
    if not among:
        if named:
            raise Http404
        return None
    evaluated = Evaluation.objects.filter(project=project, snapshot__in=among).defer("scores", "metrics")
    latest = evaluated.select_related("snapshot").first()
    snapshot = latest.snapshot if latest else among[0]
    split = _known(asked, "split", SPLITS) or (latest.split if latest else "test")
    reference = cast(Reference, _known(asked, "reference", REFERENCES) or _first_reference(project, snapshot, split))
    graded_by = _asked(request, "graded_by")
    wrong = ""
    measures: tuple[str, ...] = METRICS
    try:
        measures = parse_measures(text_of(asked, "measures", LONGEST_MEASURES))
    except UnknownMetric as error:
        wrong = str(error)
    return Chosen(
        snapshot, split, reference, _asked(request, "against") or None,
        measures=measures, complete=asked.get("complete") == "on", wrong_measures=wrong,
        graded_by=graded_by if graded_by in {each.pk for each in models} else None,
    )  # fmt: skip


def _known(asked: QueryDict, name: str, choices: Iterable[str]) -> str:
    """Return the parameter, or an empty text without it. Raises Http404 for an unknown value."""
    found = one_of(asked, name, choices)
    if asked.get(name) and not found:
        raise Http404
    return found


def _first_reference(project: Project, snapshot: Snapshot, split: str) -> str:
    """Return the default reference: human grades if there are any, since they outrank our own scores."""
    graded = Evaluation.objects.filter(project=project, snapshot=snapshot, split=split, reference="grades")
    any_at_all = Evaluation.objects.filter(project=project, snapshot=snapshot, split=split).exists()
    return "grades" if graded.exists() or not any_at_all else "elo"


def _board(project: Project, chosen: Chosen | None) -> Leaderboard | None:
    if chosen is None:
        return None
    where = (project, chosen.snapshot, chosen.split, chosen.reference)
    for compared_with in (chosen.compared_with, None):  # an entry of one leaderboard may be missing from another
        with contextlib.suppress(NotEvaluated):
            return leaderboard(*where, compared_with=compared_with, measures=chosen.measures, complete=chosen.complete)
    return None


def _lines(board: Leaderboard) -> list[Line]:
    intervals = [row.leading for row in board.rows]
    low, high = min(each.low for each in intervals), max(each.high for each in intervals)
    axis = Axis(max(0.0, low - 0.02), min(1.0, high + 0.02))
    return [
        Line(row, IntervalBar(axis.at(own.low), axis.at(own.estimate), axis.at(own.high)))
        for row, own in zip(board.rows, intervals, strict=True)
    ]


def _by_domain(board: Leaderboard) -> list[tuple[str, list[Any]]]:
    """Return the domains, each with the figures of all rows in their order."""
    return [(domain, [row.by_domain[at] for row in board.rows]) for at, domain in enumerate(board.domains)]


def _outside() -> list[str]:
    try:
        return list(outside_endpoints())
    except OutsideInvalid:
        return []


def _post(request: HttpRequest, project: Project) -> HttpResponse:
    action = one_of(request.POST, "action", ACTIONS)
    if not action:
        raise Http404
    try:
        messages.success(request, ACTIONS[action](request, project))
    except (EntryRefused, EvaluationRefused, RowError, UnknownOutside, OutsideInvalid) as error:
        messages.error(request, str(error))
    return redirect("proof", slug=project.slug)


def _add_outside(request: HttpRequest, project: Project) -> str:
    values = EndpointForm(request.POST).checked()
    entered = enter_outside(project, values["endpoint"], by=request.user)
    return _("%(name)s added. Evaluate to see its rank.") % {"name": entered.name}


def _add_run_file(request: HttpRequest, project: Project) -> str:
    form = RunFileForm(request.POST, request.FILES)
    values = form.checked()
    try:
        entered = enter_run_file(project, values["name"] or str(values["run"].name), values["run"], by=request.user)
    except (EntryRefused, RowError) as error:
        form.add_error("name" if isinstance(error, NameTaken) else "run", str(error))
        raise BadForm(form) from error
    return _("%(name)s added. Evaluate to see its rank.") % {"name": entered.name}


def _evaluate(request: HttpRequest, project: Project) -> str:
    values = EvaluateForm(request.POST, rows={"snapshot": _snapshots(request, project)}).checked()
    order_evaluation(project, values["snapshot"], values["split"] or "test", by=request.user)
    return _("Evaluation started. Rows appear as results arrive.")


ACTIONS: dict[str, Callable[[HttpRequest, Project], str]] = {
    "outside": _add_outside,
    "run_file": _add_run_file,
    "evaluate": _evaluate,
}


def _snapshots(request: HttpRequest, project: Project) -> QuerySet[Snapshot]:
    return Snapshot.objects.visible_to(request.user).filter(projects=project)


def moved_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the queries that gained and lost between two rerankers, and the moved documents of one query."""
    project = visible_project(request, slug)
    chosen = _chosen(request, project, list(_snapshots(request, project)), list(grading_models(project)))
    if chosen is None or not request.GET.get("from") or not request.GET.get("to"):
        return redirect("proof", slug=project.slug)
    evaluations = Evaluation.objects.filter(
        project=project, snapshot=chosen.snapshot, split=chosen.split, reference=chosen.reference
    ).select_related("reranker")
    first = get_object_or_404(evaluations, reranker__pk=_asked(request, "from"))
    second = get_object_or_404(evaluations, reranker__pk=_asked(request, "to"))
    rerankers = Reranker.objects.filter(evaluations__in=evaluations)
    moved = what_moved(first, second)
    losses = [each for each in moved if each.change < 0]
    gains = [each for each in reversed(moved) if each.change > 0]
    context: dict[str, object] = {
        "project": project,
        "here": "proof",
        "chosen": chosen,
        "first": Named.of(first.reranker),
        "second": Named.of(second.reranker),
        "rerankers": [Named.of(each) for each in rerankers.distinct().order_by("name")],
        "gains": gains,
        "losses": losses,
        "parts": [
            {"id": "losses", "title": _("Lost"), "rows": _with_texts(first, losses[:MOVED_SHOWN])},
            {"id": "gains", "title": _("Gained"), "rows": _with_texts(first, gains[:MOVED_SHOWN])},
        ],
        "same": sum(each.change == 0 for each in moved),
        "query": text_of(request.GET, "query", LONGEST_ID),
        "documents": [],
    }
    if context["query"]:
        context |= _documents(chosen, first, second, str(context["query"]))
    return render(request, "zelo/rerankers/moved.html", context)


def _with_texts(evaluation: Evaluation, rows: list[Moved]) -> list[dict[str, object]]:
    """Return the rows with the texts of their queries, where their projects have them still."""
    origins = origins_of(evaluation, [each.query_id for each in rows])
    projects, ids = ({each[place] for each in origins.values()} for place in (0, 1))
    found = Query.objects.filter(project__slug__in=projects, external_id__in=ids)
    texts = {(slug, own): text for slug, own, text in found.values_list("project__slug", "external_id", "text")}
    known = {name: texts.get(origin, "") for name, origin in origins.items()}
    return [{"moved": each, "text": clipped(known.get(each.query_id, ""), 160)} for each in rows]


def _asked(request: HttpRequest, field: str) -> int:
    return whole_number(request.GET, field) or 0


def _documents(chosen: Chosen, first: Evaluation, second: Evaluation, query_id: str) -> dict[str, object]:
    """Return one query's documents in both rankings."""
    try:
        query, rows = evaluation_query(chosen.snapshot, chosen.split, query_id)
    except NothingToMeasure:
        raise Http404 from None
    before, after = (unpacked(bytes(each.scores))[rows] for each in (first, second))
    are_ranks = (bool(first.metrics.get("are_ranks")), bool(second.metrics.get("are_ranks")))
    moved = moved_documents(query, before, after, are_ranks=are_ranks)
    return {
        "documents": [{"row": row, "title": document_title(row.text, None)} for row in moved],
        "query_text": query.text,
    }
