"""REST of deployments: names that programs call, with versions, variant, shadow and the log of their requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.importing.summary import ImportFailed
from labeling.models import Project
from trainer.deployments.changes import (
    DeploymentRefused,
    change_deployment,
    clear_log,
    create_deployment,
    delete_deployment,
    deploy,
    roll_back,
)
from trainer.deployments.reports import shadow_summaries
from trainer.deployments.request_log import MOST_IMPORTED, import_logged
from trainer.deployments.routing import deployment_name
from trainer.models import Deployment, Reranker
from trainer.serving.registry import servable
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.projects import Text
from zelo_site.reranking import warm

router = Router(tags=["deployments"])
DEPLOYMENTS = "/projects/{slug}/deployments"
ONE = f"{DEPLOYMENTS}/{{deployment_id}}"


class VersionIn(Schema):
    """`reranker_id`: a published reranker of the project."""

    reranker_id: Number


class DeploymentIn(VersionIn):
    """`name`: lowercase letters, digits, `.`, `_` and `-`."""

    name: Text = Field(max_length=80, examples=["search"])


class DeploymentPatch(Schema):
    """Omitted fields stay as they are; null ends a variant or shadow. Shares are percent: of the keys for the variant, else of the requests."""

    variant_id: Number | None = None
    variant_share: int | None = Field(None, ge=0, le=100)
    shadow_id: Number | None = None
    shadow_share: int | None = Field(None, ge=0, le=100)
    log_share: int | None = Field(None, ge=0, le=100)
    log_days: int | None = Field(None, ge=1, le=365)


class DeploymentOut(Schema):
    """`model` is its name at /v1/rerank. `dropped`: requests that were to be stored or compared while the server was busy."""

    id: int
    name: str
    model: str
    current_id: int
    previous_id: int | None
    variant_id: int | None
    variant_share: int
    shadow_id: int | None
    shadow_share: int
    log_share: int
    log_days: int
    dropped: int
    created_at: datetime


class ShadowOut(Schema):
    """Means over the compared requests: Kendall's tau, and the part of the ten best that both have."""

    shadow: str
    answered_by: str
    requests: int
    tau: float | None
    same_top: float
    milliseconds: float
    shadow_milliseconds: float


class LoggedDocument(Schema):
    text: str
    place: int
    score: float | None


class RequestOut(Schema):
    """A logged request, redacted. `place`: from 1, in the request's order; `score` is null for documents that were not returned."""

    id: int
    reranker_id: int | None
    is_variant: bool
    query: str
    documents: list[LoggedDocument]
    redactions: int
    milliseconds: int
    at: datetime
    expires_at: datetime
    imported_at: datetime | None


class ImportIn(Schema):
    """`most`: of the newest requests that were not imported yet."""

    most: int = Field(100, ge=1, le=MOST_IMPORTED)


class ImportedOut(Schema):
    """`known`: requests whose query the project has under another id; they were left out."""

    requests: int
    queries: int
    documents: int
    known: int


class ClearedOut(Schema):
    requests: int


@router.get(DEPLOYMENTS, response=list[DeploymentOut])
def list_deployments(
    request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """The project's deployments."""
    rows = Deployment.objects.filter(project=project_or_404(request, slug)).select_related("project")
    return [_shown(row) for row in paged(request, response, rows, cursor=cursor, limit=limit)]


@router.post(DEPLOYMENTS, response={201: DeploymentOut})
def post_deployment(request: HttpRequest, slug: str, body: DeploymentIn) -> Any:
    """Create a deployment; the ranking server loads the version first."""
    project = owned_project_or_404(request, slug)
    with _refusals():
        version = _version(project, body.reranker_id)
        return Status(201, _shown(create_deployment(project, body.name, version, warm=warm, by=request.user)))


@router.get(ONE, response=DeploymentOut)
def get_deployment(request: HttpRequest, slug: str, deployment_id: Number) -> Any:
    """One deployment."""
    return _shown(_deployment_or_404(project_or_404(request, slug), deployment_id))


@router.patch(ONE, response=DeploymentOut)
def patch_deployment(request: HttpRequest, slug: str, deployment_id: Number, body: DeploymentPatch) -> Any:
    """Change variant, shadow or log; the ranking server loads a new variant or shadow first."""
    deployment = _deployment_or_404(owned_project_or_404(request, slug), deployment_id)
    given = body.dict(exclude_unset=True)
    with _refusals():
        for name in ("variant", "shadow"):
            if f"{name}_id" in given:
                number = given.pop(f"{name}_id")
                given[name] = None if number is None else _version(deployment.project, number)
        given = {name: value for name, value in given.items() if value is not None or name in ("variant", "shadow")}
        return _shown(change_deployment(deployment, **given, warm=warm, by=request.user))


@router.delete(ONE, response={204: None})
def delete_one(request: HttpRequest, slug: str, deployment_id: Number) -> Any:
    """Delete a deployment with its log; its rerankers stay."""
    with _refusals():
        delete_deployment(_deployment_or_404(owned_project_or_404(request, slug), deployment_id), by=request.user)
    return Status(204, None)


@router.post(f"{ONE}/deploy", response=DeploymentOut)
def post_deploy(request: HttpRequest, slug: str, deployment_id: Number, body: VersionIn) -> Any:
    """Make a reranker the current version, once the ranking server has loaded it."""
    deployment = _deployment_or_404(owned_project_or_404(request, slug), deployment_id)
    with _refusals():
        version = _version(deployment.project, body.reranker_id)
        return _shown(deploy(deployment, version, warm=warm, by=request.user))


@router.post(f"{ONE}/rollback", response=DeploymentOut)
def post_rollback(request: HttpRequest, slug: str, deployment_id: Number) -> Any:
    """Make the previous version the current one again."""
    deployment = _deployment_or_404(owned_project_or_404(request, slug), deployment_id)
    with _refusals():
        return _shown(roll_back(deployment, warm=warm, by=request.user))


@router.get(f"{ONE}/shadow", response=list[ShadowOut])
def list_shadow_results(request: HttpRequest, slug: str, deployment_id: Number) -> Any:
    """Differences between the orders of shadows and the answers, one row for each pair of versions."""
    return shadow_summaries(_deployment_or_404(project_or_404(request, slug), deployment_id))


@router.get(f"{ONE}/requests", response=list[RequestOut])
def list_requests(
    request: HttpRequest, response: HttpResponse, slug: str, deployment_id: Number, cursor: Cursor = "",
    limit: Limit = 100,
) -> Any:  # fmt: skip
    """The logged requests, newest first; for owners."""
    deployment = _deployment_or_404(owned_project_or_404(request, slug), deployment_id)
    return paged(request, response, deployment.requests.all(), cursor=cursor, limit=limit, newest=True)


@router.delete(f"{ONE}/requests", response=ClearedOut)
def delete_requests(request: HttpRequest, slug: str, deployment_id: Number) -> Any:
    """Delete the logged requests."""
    deployment = _deployment_or_404(owned_project_or_404(request, slug), deployment_id)
    with _refusals():
        return {"requests": clear_log(deployment, by=request.user)}


@router.post(f"{ONE}/import", response=ImportedOut)
def post_import(request: HttpRequest, slug: str, deployment_id: Number, body: ImportIn) -> Any:
    """Make logged requests new queries of the project, with their documents as candidates."""
    deployment = _deployment_or_404(owned_project_or_404(request, slug), deployment_id)
    with _refusals():
        return import_logged(deployment, most=body.most, by=request.user)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (DeploymentRefused, ImportFailed) as error:
        raise HttpError(422, str(error)) from error


def _deployment_or_404(project: Project, deployment_id: int) -> Deployment:
    rows = Deployment.objects.filter(project=project, pk=deployment_id)
    found = rows.select_related("project", "current", "previous", "variant", "shadow").first()
    if found is None:
        raise HttpError(
            404, f"project {project.slug!r} has no deployment {deployment_id}; GET .../deployments lists them"
        )
    return found


def _version(project: Project, reranker_id: int) -> Reranker:
    found = servable().filter(project=project, pk=reranker_id).first()
    if found is None:
        raise DeploymentRefused(f"reranker {reranker_id} is not a published reranker of this project")
    return found


def _shown(row: Deployment) -> dict[str, Any]:
    names = [name for name in DeploymentOut.model_fields if name != "model"]
    return {name: getattr(row, name) for name in names} | {"model": deployment_name(row)}
