"""REST of scores: a query's ranked candidates and a project's exports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any, cast

from django.db.models import F
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Router, Schema
from ninja.errors import HttpError

from labeling.api import query_or_404
from labeling.api_auth import project_or_404
from labeling.models import Candidate
from labeling.plugins import Exporter, UnknownPlugin, get_plugin
from scoring.exports import export_scores
from scoring.models import QueryFit

router = Router(tags=["scores"])
BLOCK = 64 * 1024


class ScoreOut(Schema):
    """`theta` in the rater's units, mean zero in the query; `relevance` in [0, 1], uncalibrated
    unless `calibrated`. None where the candidate has not been rated.
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
        .order_by(F("score__elo").desc(nulls_last=True), "id")
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
            for row in rows
        ],
    }


@router.get("/projects/{slug}/export")
def get_export(request: HttpRequest, slug: str, exporter: str = "zbench-annotated-jsonl") -> StreamingHttpResponse:
    """The project's scores in the format of an exporter plugin."""
    project = project_or_404(request, slug)
    try:
        plugin = cast("type[Exporter]", get_plugin("exporter", exporter))
    except UnknownPlugin as error:
        raise HttpError(422, str(error)) from error
    spool = tempfile.SpooledTemporaryFile(max_size=16 * 1024 * 1024)  # noqa: SIM115  closed by the stream
    export_scores(project, exporter, cast(IO[bytes], spool))
    spool.seek(0)
    response = StreamingHttpResponse(_blocks(cast(IO[bytes], spool)), content_type=plugin.content_type)
    response["Content-Disposition"] = f'attachment; filename="{project.slug}{plugin.suffix}"'
    return response


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while block := stream.read(BLOCK):
            yield block
