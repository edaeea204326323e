"""REST of batches at providers: list and cancel."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema
from ninja.errors import HttpError

from labeling.access.api_auth import owned_project_or_404, project_or_404
from workers.judging.provider_batches.delivery import BatchIsOver, ask_to_cancel
from workers.models import ProviderBatch
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.security.job_errors import JobError

router = Router(tags=["judges"])


class BatchOut(Schema):
    """One batch. `input_tokens`, `output_tokens` and `cost_micros` are the upper bounds that were reserved for it."""

    id: int
    run_id: int
    annotator_id: int
    endpoint: str
    model: str
    state: str
    provider_status: str
    batch_id: str
    requests: int
    completed: int
    failed: int
    answered: int
    unanswered: int
    returned: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    message: JobError
    created_at: datetime
    sent_at: datetime | None
    finished_at: datetime | None
    cancel_asked_at: datetime | None


@router.get("/projects/{slug}/batches", response=list[BatchOut])
def get_batches(
    request: HttpRequest, response: HttpResponse, slug: str, state: Literal["all", "out"] = "all",
    cursor: Cursor = "", limit: Limit = 100,
) -> Any:  # fmt: skip
    """The project's batches, newest first, all or the unfinished ones."""
    project = project_or_404(request, slug)
    batches = ProviderBatch.objects.filter(run__project=project)
    if state == "out":
        batches = batches.filter(state__in=ProviderBatch.OUT)
    return paged(request, response, batches, cursor=cursor, limit=limit, newest=True)


@router.post("/projects/{slug}/batches/{batch_id}/cancel", response=BatchOut)
def post_cancel_batch(request: HttpRequest, slug: str, batch_id: int) -> Any:
    """Cancel a batch at its provider. Its answers are kept; its other questions return to the queue."""
    project = owned_project_or_404(request, slug)
    batch = ProviderBatch.objects.filter(run__project=project, pk=batch_id).first()
    if batch is None:
        raise HttpError(
            404, f"batch {batch_id} is not one of project {slug!r}; list them with GET /projects/{slug}/batches"
        )
    try:
        return ask_to_cancel(batch, by=request.user)
    except BatchIsOver as error:
        raise HttpError(409, str(error)) from None
