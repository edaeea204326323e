"""REST of whole projects and accounts: delete, restore and purge projects, export and import archives, delete an account."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.contrib.auth import get_user_model
from django.http import HttpRequest, StreamingHttpResponse
from ninja import File, Router, Schema, Status, UploadedFile
from ninja.errors import HttpError

from labeling.access.api_auth import owned_project_or_404
from labeling.models import Project
from labeling.projects import BadProject, may_create
from scoring.storage.files import StorageFull
from workers.archives.exporting import stream_archive
from workers.archives.format import SUFFIX
from workers.archives.importing import order_import
from workers.archives.reading import BadArchive
from workers.deletion.accounts import count_account, delete_account
from workers.deletion.projects import archive_project, is_purging, purge_project, purged_at, restore_project
from workers.deletion.targets import DeletionRefused, count_project
from zelo_site.api.lifecycle.deletions import PreviewOut
from zelo_site.api.projects import Text
from zelo_site.api.projects import router as projects_router
from zelo_site.api.server.users import router as users_router

router = Router(tags=["deletion"])


class ArchivedOut(Schema):
    """A deleted project; `purged_at`: when it can no longer be restored. `purging`: its purge has started."""

    slug: str
    name: str
    archived_at: datetime
    purged_at: datetime
    purging: bool


class ImportedOut(Schema):
    """GET /jobs/{job_id} follows the import into the new project."""

    slug: str
    job_id: int


@router.get("/projects/{slug}/deletion", response=PreviewOut)
def get_project_deletion(request: HttpRequest, slug: str) -> Any:
    """Count the rows deleted with a project once it is purged."""
    project = owned_project_or_404(request, slug)
    return {"kind": "project", "name": project.name, "counts": count_project(project)}


@projects_router.delete("/projects/{slug}", response={204: None}, tags=["deletion"])
def delete_project(request: HttpRequest, slug: str) -> Any:
    """Delete a project: it is hidden at once, can be restored for 30 days, and is then purged."""
    archive_project(owned_project_or_404(request, slug), by=request.user)
    return Status(204, None)


@router.get("/archived-projects", response=list[ArchivedOut])
def list_archived(request: HttpRequest) -> Any:
    """Deleted projects that you own and that are not purged yet, the latest first."""
    return [
        {
            "slug": each.slug,
            "name": each.name,
            "archived_at": each.archived_at,
            "purged_at": purged_at(each),
            "purging": is_purging(each),
        }
        for each in Project.with_archived.archived_by(request.user)
    ]


def _archived_or_404(request: HttpRequest, archived: str) -> Project:
    found = Project.with_archived.archived_by(request.user)
    project = None if "\x00" in archived else found.filter(slug=archived).first()
    if project is None:
        raise HttpError(404, f"no deleted project {archived!r} is yours; GET /api/v1/archived-projects lists them")
    return project


@router.post("/archived-projects/{archived}/restore", response={204: None})
def post_restore_project(request: HttpRequest, archived: str) -> Any:
    """Restore a deleted project; its runs stay paused."""
    try:
        restore_project(_archived_or_404(request, archived), by=request.user)
    except DeletionRefused as error:
        raise HttpError(409, str(error)) from error
    return Status(204, None)


@router.delete("/archived-projects/{archived}", response={204: None})
def delete_archived(request: HttpRequest, archived: str) -> Any:
    """Purge a deleted project now; that cannot be undone. A worker deletes its rows and files."""
    try:
        purge_project(_archived_or_404(request, archived), by=request.user)
    except DeletionRefused as error:
        raise HttpError(409, str(error)) from error
    return Status(204, None)


@router.get("/projects/{slug}/archive", tags=["archives"])
def get_archive(
    request: HttpRequest, slug: str, people: Literal["names", "pseudonyms"] = "pseudonyms"
) -> StreamingHttpResponse:
    """The whole project as one compressed file, which another installation imports to the same scores."""
    project = owned_project_or_404(request, slug)
    blocks = stream_archive(project, people=people, by=request.user)
    response = StreamingHttpResponse(blocks, content_type="application/gzip")
    response["Content-Disposition"] = f'attachment; filename="{project.slug}{SUFFIX}"'
    return response


@router.post("/archives", response={202: ImportedOut}, tags=["archives"])
def post_archive(request: HttpRequest, file: File[UploadedFile], name: Text = "") -> Any:
    """Import a project archive as a new project of yours, all or nothing; without `name` it keeps its own."""
    if not may_create(request.user):
        raise HttpError(403, "starting a project needs a staff account or a project of one's own; ask an owner")
    try:
        job = order_import(file, name=name, owner=request.user, by=request.user)
    except (BadArchive, BadProject, StorageFull) as error:
        raise HttpError(422, str(error)) from error
    return Status(202, {"slug": job.project.slug, "job_id": job.pk})


def _account_or_404(request: HttpRequest, user_id: int) -> Any:
    """One's own account; any for superusers."""
    if user_id == request.user.pk or getattr(request.user, "is_superuser", False):
        user = get_user_model().objects.filter(pk=user_id).first()
        if user is not None:
            return user
    raise HttpError(404, f"no account {user_id} that you may delete; people delete their own, superusers any")


@router.get("/users/{user_id}/deletion", response=PreviewOut)
def get_account_deletion(request: HttpRequest, user_id: int) -> Any:
    """Count the rows deleted with an account, and the judgments kept without its name (`judgments`)."""
    user = _account_or_404(request, user_id)
    return {"kind": "account", "name": user.get_username(), "counts": count_account(user)}


@users_router.delete("/users/{user_id}", response={204: None}, tags=["deletion"])
def delete_user(request: HttpRequest, user_id: int) -> Any:
    """Delete one's own account, or any as a superuser; answers stay under the name of a former member."""
    try:
        delete_account(_account_or_404(request, user_id), by=request.user)
    except DeletionRefused as error:
        raise HttpError(409, str(error)) from error
    return Status(204, None)
