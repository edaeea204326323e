"""REST of published rerankers, with their forms and checksums. Ranking itself is at /v1/rerank."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema

from labeling.access.api_auth import project_or_404
from trainer.serving.registry import form_of, full_name, servable
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.projects import Text
from zelo_site.security.lineage import readable_slugs, shown_manifest

router = Router(tags=["rerankers"])


class RerankerOut(Schema):
    """`model` is its name at /v1/rerank; `checksum` the SHA-256 of the manifest at `location` in the storage.

    `form` is cross-encoder or bi-encoder (an embedding student); `release` is `published`, or `published_anyway` for one that the
    gate held back.
    """

    id: int
    name: str
    model: str
    training_run_id: int | None
    form: str
    release: str
    location: str
    checksum: str
    manifest: dict[str, Any]
    created_at: datetime


@router.get("/projects/{slug}/rerankers", response=list[RerankerOut])
def get_rerankers(
    request: HttpRequest, response: HttpResponse, slug: str, name: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """The project's published rerankers, newest first, all or the one of a name."""
    readable = readable_slugs(request.user)
    rows = servable().filter(project=project_or_404(request, slug)).select_related("project")
    rows = rows.filter(name=name) if name else rows
    return [
        {
            "id": each.pk,
            "name": each.name,
            "model": full_name(each),
            "training_run_id": each.training_run_id,
            "form": form_of(each),
            "release": each.release,
            "location": each.location,
            "checksum": each.checksum,
            "manifest": shown_manifest(each.manifest, readable),
            "created_at": each.created_at,
        }
        for each in paged(request, response, rows, cursor=cursor, limit=limit, newest=True)
    ]
