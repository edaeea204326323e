"""REST of scores: a query's ranked candidates, a project's calibration, its annotators' agreement, exports."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Router, Schema
from ninja.errors import HttpError
from pydantic import Json, ValidationError

from labeling.access.api_auth import project_or_404
from labeling.models import Candidate
from labeling.plugins import ExportFailed, UnknownPlugin
from scoring.calibration.calibrate import project_calibration
from scoring.known_scores import best_elo_first, known
from scoring.models import QueryFit
from workers.monitoring.project_figures import AGREEMENT, read_figure
from zelo_site.api.estimates import EstimateOut
from zelo_site.api.projects import Text, query_or_404
from zelo_site.pages.exporting.downloads import export_response

router = Router(tags=["scores"])


class ScoreOut(Schema):
    """`theta` in the rater's units, mean zero in the query; `relevance` in [0, 1], uncalibrated
    unless `calibrated`. None where nothing was compared with the candidate.
    """

    candidate: int
    document: str
    theta: float | None
    stderr: float | None
    elo: float | None
    elo_stderr: float | None
    relevance: float | None
    calibrated: bool | None
    comparisons: int | None
    island: int | None
    undefeated: bool | None
    winless: bool | None
    first_stage_rank: int | None
    grade: int | None


class QueryScoresOut(Schema):
    query: int
    external_id: str
    text: str
    judged_version: int
    fitted_version: int
    fitted_at: str | None
    scores: list[ScoreOut]


SCORE_FIELDS = (
    "theta", "stderr", "elo", "elo_stderr", "relevance", "calibrated", "comparisons", "island", "undefeated", "winless",
)  # fmt: skip


@router.get("/queries/{query_id}/scores", response=QueryScoresOut)
def get_scores(request: HttpRequest, query_id: int) -> Any:
    """The query's candidates, best Elo first, unrated ones last."""
    query = query_or_404(request, query_id)
    fit = QueryFit.objects.filter(query=query).first()
    rows = (
        Candidate.objects.visible_to(request.user)
        .filter(query=query)
        .order_by(*best_elo_first(), "id")
        .values(
            "id", "document__external_id", "first_stage_rank", "grade", *(f"score__{name}" for name in SCORE_FIELDS)
        )
    )
    return {
        "query": query.pk,
        "external_id": query.external_id,
        "text": query.text,
        "judged_version": query.judged_version,
        "fitted_version": fit.judged_version if fit else 0,
        "fitted_at": fit.fitted_at.isoformat() if fit else None,
        "scores": [
            {
                "candidate": row["id"],
                "document": row["document__external_id"],
                "first_stage_rank": row["first_stage_rank"],
                "grade": row["grade"],
                **{name: row[f"score__{name}"] for name in SCORE_FIELDS},
            }
            for row in map(known, rows)
        ],
    }


class BinOut(Schema):
    """One column of the reliability diagram, of held-out queries."""

    low: float
    high: float
    predicted: float
    observed: float
    count: int


class IslandOut(Schema):
    queries: int
    names: list[str]


class CalibrationOut(Schema):
    """`version` 0: never calibrated. Unless `calibrated`, relevance rests on no person's answer; `reason` says why.
    `source`: `grades`, `people` (their answers) or `model grades`.

    `thresholds`: queries that answers "neither is relevant" put on the scale.
    """

    version: int
    stale: bool
    created_at: datetime | None
    calibrated: bool
    method: str
    source: str
    ungraded_as_zero: bool
    answers: int
    queries: int
    ece: float | None
    brier: float | None
    bins: list[BinOut]
    reason: str
    pairs: int
    judgments: int
    islands: list[IslandOut]
    islands_count: int
    unlinked: int
    unlinked_names: list[str]
    thresholds: int
    prior_precision: float | None
    prior_cross_validated: bool
    prior_losses: list[tuple[float, float]]


@router.get("/projects/{slug}/calibration", response=CalibrationOut)
def get_calibration(request: HttpRequest, slug: str) -> Any:
    """The scale of the project's scores: biases' islands, reliability of relevance, the prior."""
    return dataclasses.asdict(project_calibration(project_or_404(request, slug)))


class ShareOut(Schema):
    hits: float
    count: int
    value: float | None


class AnnotatorOut(Schema):
    """One annotator; see scoring.annotators.agreement.AnnotatorFigures."""

    annotator_id: int
    name: str
    is_person: bool
    answers: int
    with_others: ShareOut
    with_people: ShareOut
    gold: ShareOut
    flips: ShareOut
    sharpness: EstimateOut | None
    position_bias: EstimateOut | None
    dispersion: float | None
    weight: float | None
    anchored: bool


class KappaOut(Schema):
    first: str
    second: str
    common: int
    kappa: float | None


class SharedErrorsOut(Schema):
    first: str
    second: str
    correlation: float


class AgreementOut(Schema):
    annotators: list[AnnotatorOut]
    kappas: list[KappaOut]
    alpha: float | None
    disagreement: ShareOut
    shared_errors: list[SharedErrorsOut]
    pairs: int


@router.get("/projects/{slug}/agreement", response=AgreementOut)
def get_agreement(request: HttpRequest, slug: str) -> Any:
    """The agreement of the project's annotators, with the figures of each."""
    return read_figure(project_or_404(request, slug), AGREEMENT, kept_s=0).value


@router.get("/projects/{slug}/exports/{exporter}")
def get_export(
    request: HttpRequest,
    slug: str,
    exporter: Text,
    options: Json[dict[str, Any]] | None = None,
) -> StreamingHttpResponse:
    """The project in the format of an exporter plugin: scores, texts, grades, judgments, training sets or tasks.

    `options`: its options as a JSON object; GET /plugins lists both.
    """
    project = project_or_404(request, slug)
    try:
        return export_response(project, exporter, options=options or {}, by=request.user)
    except (ExportFailed, UnknownPlugin, ValidationError) as error:
        raise HttpError(422, str(error)) from error
