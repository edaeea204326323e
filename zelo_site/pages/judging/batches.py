"""Batches at providers: the rows of the jobs page, and the cancel button."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.db.models import F
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _

from labeling.models import Membership, Role
from workers.judging.provider_batches.delivery import BatchIsOver, ask_to_cancel
from workers.models import ProviderBatch
from zelo_site.pages.scope import owned_project

SHOWN = 30


def recent_batches(user: Any) -> list[ProviderBatch]:
    """The batches of the user's projects: those that are out first, then the latest; at most 30. Each has `may_cancel`."""
    visible = ProviderBatch.objects.visible_to(user).select_related("run__project", "annotator")
    return _with_rights(user, visible.order_by(F("finished_at").desc(nulls_first=True), "-id")[:SHOWN])


def _with_rights(user: Any, batches: Iterable[ProviderBatch]) -> list[ProviderBatch]:
    rows = list(batches)
    is_any_out = any(batch.finished_at is None for batch in rows)
    mine = Membership.objects.filter(user=user.pk, role=Role.OWNER).values_list("project_id", flat=True)
    owned = set(mine) if is_any_out else set()
    for batch in rows:
        is_out = batch.finished_at is None and batch.cancel_asked_at is None
        batch.may_cancel = is_out and (user.is_staff or batch.run.project_id in owned)  # type: ignore[attr-defined]
    return rows


def cancel_batch(request: HttpRequest, slug: str, batch_id: int) -> HttpResponse:
    """Cancel a batch at its provider; its answers are kept, its other questions return to the queue."""
    project = owned_project(request, slug)
    batch = get_object_or_404(ProviderBatch.objects.filter(run__project=project), pk=batch_id)
    try:
        ask_to_cancel(batch, by=request.user)
        messages.success(
            request, _("Cancelling batch %(id)s. Its unanswered questions return to the queue.") % {"id": batch.pk}
        )
    except BatchIsOver:
        messages.error(request, _("Batch %(id)s is over already.") % {"id": batch.pk})
    return redirect("jobs")
