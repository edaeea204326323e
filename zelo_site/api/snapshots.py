"""REST of snapshots: freeze scores, list what was frozen, read a manifest, download the rows."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from scoring.models import Snapshot
from scoring.snapshots.freeze import MOST_ROWS_OF_A_REQUEST, SnapshotOptions, SnapshotRefused, freeze
from scoring.snapshots.stored_rows import opened_rows
from scoring.storage.files import StorageFull
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.projects import Text

router = Router(tags=["snapshots"])


class SnapshotIn(Schema):
    """`projects`: slugs of further projects whose scores are frozen with this one's."""

    name: Text = Field(max_length=200)
    projects: list[Text] = Field([], max_length=100)
    options: SnapshotOptions = SnapshotOptions()


class SnapshotOut(Schema):
    """`manifest` says what the rows are and where they come from."""

    snapshot_id: int
    name: str
    rows: int
    checksum: str
    created_at: str
    manifest: dict[str, Any]


def snapshot_out(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.pk,
        "name": snapshot.name,
        "rows": snapshot.rows,
        "checksum": snapshot.checksum,
        "created_at": snapshot.created_at.isoformat(),
        "manifest": snapshot.manifest,
    }


def visible_snapshots(request: HttpRequest) -> QuerySet[Snapshot]:
    return Snapshot.objects.visible_to(request.user)


@router.post("/projects/{slug}/snapshots", response={201: SnapshotOut})
def post_snapshot(request: HttpRequest, slug: str, body: SnapshotIn) -> Any:
    """Freeze the live scores of the project, and of others that are named; needs the role owner in all of them."""
    projects = [owned_project_or_404(request, each) for each in dict.fromkeys([slug, *body.projects])]
    try:
        snapshot = freeze(
            projects,
            name=body.name,
            options=body.options,
            by=request.user,
            most_rows=MOST_ROWS_OF_A_REQUEST,
        )
    except (SnapshotRefused, StorageFull) as error:
        raise HttpError(422, str(error)) from error
    snapshot.refresh_from_db()
    return Status(201, snapshot_out(snapshot))


@router.get("/projects/{slug}/snapshots", response=list[SnapshotOut])
def list_snapshots(
    request: HttpRequest, response: HttpResponse, slug: str, name: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """The project's snapshots, newest first, all or those of a name; those that join projects hidden from you are left out."""
    rows = visible_snapshots(request).filter(projects=project_or_404(request, slug))
    rows = rows.filter(name=name) if name else rows
    return [snapshot_out(each) for each in paged(request, response, rows, cursor=cursor, limit=limit, newest=True)]


@router.get("/snapshots/{snapshot_id}", response=SnapshotOut)
def get_snapshot(request: HttpRequest, snapshot_id: int) -> Any:
    return snapshot_out(get_object_or_404(visible_snapshots(request), pk=snapshot_id))


@router.get("/snapshots/{snapshot_id}/rows")
def get_rows(request: HttpRequest, snapshot_id: int) -> FileResponse:
    """The rows as one Parquet file, whose SHA-256 is the snapshot's checksum."""
    snapshot = get_object_or_404(visible_snapshots(request), pk=snapshot_id)
    try:
        stream = opened_rows(snapshot)
    except FileNotFoundError as error:
        raise HttpError(
            404, f"the rows of snapshot {snapshot_id} are no longer in the storage; freeze a new snapshot"
        ) from error
    name = f"{snapshot.location.rpartition('/')[2]}.parquet"
    return FileResponse(stream, as_attachment=True, filename=name, content_type="application/vnd.apache.parquet")
