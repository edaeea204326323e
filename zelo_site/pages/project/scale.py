"""The scale page: the prior, the calibration of relevance, and the common scale of all queries.

`scoring.calibration.calibrate` and `scoring.project_fits` store everything that it shows; the page only draws charts. Its
button starts a run on cross-query pairs with `workers.jobs.calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Count, F, Max, Min, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Candidate, Project, Query
from scoring.calibration.calibrate import project_calibration
from scoring.models import ProjectFit, QueryFit
from scoring.numerics.calibration.elo import ELO_PER_LOGIT
from workers.jobs.calibration import judges_so_far, order_calibration
from workers.models import Run
from workers.runs.ordering import RunRefused
from zelo_site.pages.charts.geometry import Z95, Axis, IntervalBar, interval_bar, reliability_dots
from zelo_site.pages.forms import one_of
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.pages.texts import clipped

PAGE_SIZE = 50
TEXT_LENGTH = 140
PAIRS_PER_QUERY = 3
SORTS = {
    "high": (gettext_lazy("highest first"), (F("bias").desc(), "query_id")),
    "low": (gettext_lazy("lowest first"), (F("bias").asc(), "query_id")),
    "uncertain": (gettext_lazy("least certain first"), (F("bias_stderr").desc(nulls_last=True), "query_id")),
    "import": (gettext_lazy("as imported"), ("query_id",)),
}


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior precision and its source; the precision is None before the first fit."""

    precision: float | None
    source: str
    pairs: int = 0
    chosen_at: datetime | None = None
    dispersion: float | None = None
    losses: tuple[tuple[float, float], ...] = ()

    @property
    def lowest_loss(self) -> float | None:
        return min((loss for __, loss in self.losses), default=None)


@dataclass(frozen=True, slots=True)
class BiasRow:
    """One query's bias in units of strength; `shift` is the resulting Elo change, also drawn as a bar."""

    query_id: int
    text: str
    bias: float
    stderr: float
    shift: float
    island: int
    bar: IntervalBar


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the queries that a common scale can include."""

    queries: int
    rated: int
    graded: int


@dataclass(frozen=True, slots=True)
class NextCalibration:
    """The run that the button would start, or the reason for a missing button."""

    pairs: int
    judges: tuple[str, ...]
    hindrance: str


def scale_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the prior, relevance, groups and 50 biases per page; a POST starts judging cross-query pairs."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _order(request, owned_project(request, slug))
    found, counts, is_owner = project_calibration(project), _counts(request, project), may_change(request, project)
    sort = one_of(request.GET, "sort", SORTS, "high")
    page, axis = _biases(request, project, sort)
    context = {
        "project": project,
        "scale": found,
        "counts": counts,
        "prior": read_prior(project),
        "dots": reliability_dots([(each.predicted, each.observed, each.count) for each in found.bins]),
        "page": page,
        "rows": [_row(fit, axis) for fit in page],
        "zero": axis.at(0.0),
        "sort": sort,
        "sorts": {name: label for name, (label, *_order_by) in SORTS.items()},
        "next": _next(project, counts) if is_owner else None,
        "may_change": is_owner,
        "here": "scale",
    }
    return render(request, "zelo/project/scale.html", context)


def _counts(request: HttpRequest, project: Project) -> Counts:
    queries = Query.objects.visible_to(request.user).filter(project=project)
    rated = Count("pk", filter=Q(fit__judgments__gt=0))
    graded = Candidate.objects.visible_to(request.user).filter(query__project=project, grade__isnull=False)
    return Counts(**queries.aggregate(queries=Count("pk"), rated=rated), graded=graded.count())


def read_prior(project: Project) -> Prior:
    """Return the prior in use: from the project's options, cross-validated, or the model's default."""
    shared = ProjectFit.objects.filter(project=project).first()
    last = QueryFit.objects.filter(query__project=project, error="").order_by("-fitted_at").first()
    dispersion = shared.dispersion if shared is not None else None
    fixed = project.rater_options.get("prior_precision")
    if fixed is not None:
        return Prior(fixed, _("set in the rater options"), dispersion=dispersion)
    if shared is not None and shared.prior_precision is not None:
        losses = tuple((float(precision), float(loss)) for precision, loss in shared.losses)
        source = _("chosen by 5-fold cross-validation") if shared.cross_validated else _("kept from an earlier fit")
        return Prior(shared.prior_precision, source, shared.pairs, shared.chosen_at, dispersion, losses)
    if last is None:
        return Prior(None, "")
    return Prior(last.prior_precision, _("the model's default, not cross-validated"), dispersion=dispersion)


def _biased(request: HttpRequest, project: Project) -> QuerySet[QueryFit]:
    return QueryFit.objects.visible_to(request.user).filter(query__project=project, bias__isnull=False)


def _biases(request: HttpRequest, project: Project, sort: str) -> tuple[Page, Axis]:
    """Return one page of fits with a bias, and the axis of Elo shifts, shared by all pages and including zero."""
    fits = _biased(request, project)
    reach = Z95 * F("bias_stderr")
    scale = F("logit_scale") * ELO_PER_LOGIT
    ends = fits.aggregate(low=Min((F("bias") - reach) * scale), high=Max((F("bias") + reach) * scale))
    rows = fits.select_related("query").order_by(*SORTS[sort][1])
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    return page, Axis.around(min(0.0, ends["low"] or 0.0), max(0.0, ends["high"] or 0.0))


def _row(fit: QueryFit, axis: Axis) -> BiasRow:
    bias, stderr = fit.bias or 0.0, fit.bias_stderr or 0.0
    points = fit.logit_scale * ELO_PER_LOGIT
    return BiasRow(
        query_id=fit.query_id,
        text=clipped(fit.query.text, TEXT_LENGTH),
        bias=bias,
        stderr=stderr,
        shift=bias * points,
        island=fit.bias_island or 0,
        bar=interval_bar(axis, bias * points, stderr * points),
    )


def _next(project: Project, counts: Counts) -> NextCalibration:
    """Return the run that an owner can start now."""
    judges = tuple(judge.name for judge in judges_so_far(project))
    hindrance = ""
    if counts.rated < 2:
        hindrance = _("Cross-query pairs need at least two queries with scores.")
    elif Run.objects.filter(project=project, state__in=Run.ACTIVE, sampler="cross-query").exists():
        hindrance = _("Cross-query pairs are being judged; the scale updates automatically.")
    elif not judges:
        hindrance = _("No judges yet. Start a run; its judges can then judge cross-query pairs.")
    every = counts.rated * (counts.rated - 1) // 2
    return NextCalibration(min(PAIRS_PER_QUERY * counts.rated, every), judges, hindrance)


def _order(request: HttpRequest, project: Project) -> HttpResponse:
    """Start the run; a repeated request starts only one."""
    try:
        found = _next(project, _counts(request, project))
        if found.hindrance:
            raise RunRefused(found.hindrance)
        order_calibration(project, by=request.user, sampler_options={"pairs_per_query": PAIRS_PER_QUERY})
    except RunRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(
            request, _("Judging of cross-query pairs started. The scale is fitted when the answers are in.")
        )
    return redirect("scale", slug=project.slug)
