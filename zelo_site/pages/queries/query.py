"""One query: the live ranking of its documents with intervals, and the reasons for each score.

The page polls the ranking every second; a version from the judged and fitted versions detects an unchanged
ranking without reading the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import Count, F, Max, Min, Q, QuerySet, Window
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from labeling.models import Candidate, Judgment, Project, Query
from scoring.known_scores import best_elo_first, known
from scoring.models import QueryFit
from workers.models import Run
from zelo_site.pages.charts.geometry import Z95, Axis, IntervalBar, interval_bar
from zelo_site.pages.forms import whole_number
from zelo_site.pages.importing.candidates import filling_part
from zelo_site.pages.queries.reasons import MOST_SHOWN, Reason, count_answers, reasons_for
from zelo_site.pages.scope import may_change, visible_project
from zelo_site.pages.texts import SNIPPET_LENGTH, clipped, document_title

PAGE_SIZE = 100
FEW_COMPARISONS = 4


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """One row of the ranking; `bar` and the scores are None for an unrated document.

    `move`: by how many ranks the document is above its first-stage rank; None without scores or a first-stage rank.
    """

    rank: int
    candidate_id: int
    title: str
    external_id: str
    first_stage_rank: int | None
    grade: int | None
    move: int | None
    elo: float | None
    elo_stderr: float | None
    relevance: float | None
    calibrated: bool
    comparisons: int
    bar: IntervalBar | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpenDocument:
    """The document in the reasons panel; of `total` answers, the latest `read` were checked and `odd` contradict the fit."""

    candidate_id: int
    document_id: int
    text: str
    metadata: dict[str, Any]
    reasons: list[Reason] = field(default_factory=list)
    total: int = 0
    read: int = 0
    odd: int = 0


def _flags(row: dict[str, Any], main_island: int | None, opponents: int) -> tuple[str, ...]:
    if not row["score__comparisons"]:
        return (_("same text"), _("not compared yet")) if row["same_text"] > 1 else (_("not compared yet"),)
    flags = [_("same text")] if row["same_text"] > 1 else []
    if row["score__undefeated"]:
        flags.append(_("undefeated"))
    if row["score__winless"]:
        flags.append(_("winless"))
    if main_island is not None and row["score__island"] != main_island:
        flags.append(pgettext("flag", "island"))
    if row["score__comparisons"] < min(FEW_COMPARISONS, opponents):
        flags.append(_("few comparisons"))
    return tuple(flags)


def _ranked_rows(candidates: QuerySet[Candidate]) -> QuerySet[Candidate, dict[str, Any]]:
    score = ("elo", "elo_stderr", "relevance", "calibrated", "comparisons", "island", "undefeated", "winless")
    # A window reads the query's rows once; a subquery for each row reads all of them again where statistics are old.
    same_text = Window(Count("id"), partition_by=[F("query_id"), F("document__text_hash")])
    return (
        candidates.annotate(words=Left("document__text", SNIPPET_LENGTH), same_text=same_text)
        .order_by(*best_elo_first(), F("first_stage_rank").asc(nulls_last=True), "id")
        .values(
            "id",
            "words",
            "same_text",
            "document__metadata",
            "document__external_id",
            "first_stage_rank",
            "grade",
            *(f"score__{name}" for name in score),
        )
    )


def _axis(candidates: QuerySet[Candidate]) -> Axis:
    """Return the Elo range of all candidates, shared by all pages of the query."""
    reach = Z95 * F("score__elo_stderr")
    ends = candidates.filter(score__comparisons__gt=0).aggregate(
        low=Min(F("score__elo") - reach), high=Max(F("score__elo") + reach)
    )
    return Axis.around(ends["low"], ends["high"]) if ends["low"] is not None else Axis(1000.0, 2000.0)


def _main_group(candidates: QuerySet[Candidate], fit: QueryFit | None) -> int | None:
    """Return the largest group of a disconnected graph, in a tie the one that snapshots keep; None if it is connected."""
    if fit is None or fit.islands <= 1:
        return None
    rated = candidates.exclude(score__isnull=True).values("score__island")
    sizes = rated.annotate(size=Count("pk"), text=Min("document__text_hash"))
    largest = sizes.order_by("-size", "text").first()
    return largest["score__island"] if largest else None


def _document(row: dict[str, Any], rank: int, axis: Axis, main_island: int | None, opponents: int) -> RankedDocument:
    row = known(row)
    rated = row["score__elo"] is not None
    return RankedDocument(
        rank=rank,
        candidate_id=row["id"],
        title=document_title(row["words"], row["document__metadata"]),
        external_id=clipped(row["document__external_id"], 60),
        first_stage_rank=row["first_stage_rank"],
        grade=row["grade"],
        move=row["first_stage_rank"] - rank if rated and row["first_stage_rank"] else None,
        elo=row["score__elo"],
        elo_stderr=row["score__elo_stderr"],
        relevance=row["score__relevance"],
        calibrated=bool(row["score__calibrated"]),
        comparisons=row["score__comparisons"] or 0,
        bar=interval_bar(axis, row["score__elo"], row["score__elo_stderr"]) if rated else None,
        flags=_flags(row, main_island, opponents),
    )


def _open_document(request: HttpRequest, query: Query, fit: QueryFit | None) -> OpenDocument | None:
    """Return the document in `?document=` with its comparisons; 404 for another query's document."""
    wanted = whole_number(request.GET, "document")
    if wanted is None:
        return None
    candidates = Candidate.objects.visible_to(request.user).filter(query=query).select_related("document")
    candidate = get_object_or_404(candidates, pk=wanted)
    judgments = Judgment.objects.live().visible_to(request.user)
    reasons = reasons_for(judgments, candidate.pk, rater=fit.rater if fit else None)
    return OpenDocument(
        candidate_id=candidate.pk,
        document_id=candidate.document_id,
        text=candidate.document.text,
        metadata=candidate.document.metadata,
        reasons=reasons[:MOST_SHOWN],
        total=count_answers(judgments, candidate.pk),
        read=len(reasons),
        odd=sum(reason.is_odd for reason in reasons),
    )


def _version(query: Query, fit: QueryFit | None, *, is_live: bool) -> str:
    """Return a version that changes whenever the ranking may have changed."""
    fitted = f"{fit.judged_version}-{fit.fitted_at.timestamp()}" if fit else "0"
    return f"{query.judged_version}-{fitted}-{int(is_live)}"


def _ranking_context(request: HttpRequest, project: Project, query: Query, fit: QueryFit | None) -> dict[str, Any]:
    candidates = Candidate.objects.visible_to(request.user).filter(query=query)
    page: Page = Paginator(_ranked_rows(candidates), PAGE_SIZE).get_page(request.GET.get("page"))
    axis, island = _axis(candidates), _main_group(candidates, fit)
    texts = candidates.aggregate(texts=Count("document__text_hash", distinct=True))["texts"]
    opened = _open_document(request, query, fit)
    kept = {"page": page.number} if page.number > 1 else {}
    if opened is not None:
        kept["document"] = opened.candidate_id
    return {
        "project": project,
        "query": query,
        "fit": fit,
        "page": page,
        "documents": [_document(row, page.start_index() + at, axis, island, texts - 1) for at, row in enumerate(page)],
        "axis": axis,
        "opened": opened,
        "kept": urlencode(kept),
        "asked": _asked(request, query),
        "filling": "" if page.paginator.count else filling_part(request, project),
    }


def _asked(request: HttpRequest, query: Query) -> dict[str, int]:
    """Return the number of answers per annotator on this query."""
    answers = Judgment.objects.live().visible_to(request.user).filter(pair__query=query)
    return answers.aggregate(
        total=Count("pk"),
        people=Count("pk", filter=Q(by_person=True)),
        judges=Count("annotator", distinct=True, filter=Q(by_person=False)),
    )


def _is_live(project: Project, query: Query, fit: QueryFit | None) -> bool:
    """Return whether pending work will change the scores."""
    if query.judged_version > (fit.judged_version if fit else 0):
        return True
    return Run.objects.filter(project=project, state__in=Run.ACTIVE).exists()


def _found(request: HttpRequest, slug: str, query_id: int) -> tuple[Project, Query, QueryFit | None]:
    project = visible_project(request, slug)
    queries = Query.objects.visible_to(request.user).filter(project=project).select_related("fit")
    query = get_object_or_404(queries, pk=query_id)
    return project, query, getattr(query, "fit", None)


def query_page(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Show the query with its ranking; `?document=` opens one document's reasons."""
    project, query, fit = _found(request, slug, query_id)
    is_live = _is_live(project, query, fit)
    siblings = Query.objects.visible_to(request.user).filter(project=project)
    place = siblings.aggregate(
        total=Count("pk"),
        before=Count("pk", filter=Q(pk__lt=query.pk)),
        previous=Max("pk", filter=Q(pk__lt=query.pk)),
        following=Min("pk", filter=Q(pk__gt=query.pk)),
    )
    context = {
        **_ranking_context(request, project, query, fit),
        "version": _version(query, fit, is_live=is_live),
        "is_live": is_live,
        "place": {**place, "number": place["before"] + 1},
        "may_change": may_change(request, project),
        "here": "queries",
    }
    return render(request, "zelo/queries/query.html", context)


def query_ranking(request: HttpRequest, slug: str, query_id: int) -> HttpResponse:
    """Return the ranking fragment, or 204 if the browser (`?v=`) has this version."""
    project, query, fit = _found(request, slug, query_id)
    is_live = _is_live(project, query, fit)
    version = _version(query, fit, is_live=is_live)
    if request.GET.get("v") == version:
        return HttpResponse(status=204)
    context = {
        **_ranking_context(request, project, query, fit),
        "version": version,
        "is_live": is_live,
        "may_change": may_change(request, project),
    }
    return render(request, "zelo/queries/parts/ranking.html", context)
