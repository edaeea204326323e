"""REST of projects, imports, queries and judgments under /api/v1."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from ninja import File, Router, Schema, Status, UploadedFile
from ninja.errors import HttpError
from pydantic import AfterValidator, Field, Json, ValidationError

from labeling.access.api_auth import member_project_or_404, owned_project_or_404, project_or_404
from labeling.importing.dataset import ImportFailed, import_dataset, preview_dataset
from labeling.importing.detection import AUTO
from labeling.models import Project, Query
from labeling.plugins import UnknownPlugin
from labeling.projects import BadProject, change_project, create_project, may_create, with_counts
from labeling.retrieval.candidates import rank_candidates
from scoring.storage.files import StorageFull
from workers.archives.data_files import AlreadyImporting, DataFile, order_data_import
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged


def _storable(text: str) -> str:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text contains NUL or a lone surrogate, which cannot be stored; remove it")
    return text


# Text of a request that goes into the database.
Text = Annotated[str, AfterValidator(_storable)]

router = Router(tags=["projects"])


class ProjectIn(Schema):
    name: Text = Field(max_length=200)
    instruction: Text = ""


class CriterionIO(Schema):
    """A criterion of the rubric; `weight` > 0 is its share of the verdict."""

    name: Text = Field(max_length=60)
    description: Text = Field("", max_length=1000)
    weight: float = 1.0


class ProjectPatch(Schema):
    """Omitted fields stay as they are. Another rater without options starts from its defaults."""

    name: Text | None = Field(None, max_length=200)
    instruction: Text | None = None
    rubric: list[CriterionIO] | None = None
    rater: Text | None = Field(None, max_length=80)
    rater_options: dict[str, Any] | None = None


class ProjectOut(Schema):
    slug: str
    name: str
    instruction: str
    rubric: list[CriterionIO]
    rater: str
    rater_options: dict[str, Any]
    queries: int
    documents: int
    candidates: int


class LeftOutOut(Schema):
    """Bad rows of one reason, with the line numbers of the first."""

    reason: str
    count: int
    lines: list[int]


class ImportOut(Schema):
    """Counts of a stored file; changed judgments superseded those of an earlier import. `import_id` leads to what was left out."""

    queries: int
    documents: int
    candidates: int
    grades: int
    judgments: int
    judgments_created: int
    judgments_changed: int
    ratings: int
    import_id: int
    left_out: list[LeftOutOut]
    message: str


class PreviewOut(Schema):
    """The contents of a file. `documents` are those on lines of their own; `complete` is false if reading stopped before the end."""

    importer: str
    queries: int
    documents: int
    candidates: int
    grades: int
    judgments: int
    ratings: int
    complete: bool
    rows: list[dict[str, Any]]
    errors: list[str]
    reasons: list[LeftOutOut]


class QueryOut(Schema):
    id: int
    external_id: str
    text: str
    domain: str
    judged_version: int


def _project_out(project: Project) -> dict[str, Any]:
    counted: Any = (
        project if hasattr(project, "query_count") else with_counts(Project.objects.filter(pk=project.pk)).get()
    )
    return {
        "slug": counted.slug,
        "name": counted.name,
        "instruction": counted.instruction,
        "rubric": counted.rubric,
        "rater": counted.rater,
        "rater_options": counted.rater_options,
        "queries": counted.query_count,
        "documents": counted.document_count,
        "candidates": counted.candidate_count,
    }


@router.get("/projects", response=list[ProjectOut])
def list_projects(
    request: HttpRequest, response: HttpResponse, name: Text = "", cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """The projects that you are a member of, newest first, all or those of a name."""
    rows = Project.objects.visible_to(request.user)
    rows = with_counts(rows.filter(name=name) if name else rows)
    return [_project_out(each) for each in paged(request, response, rows, cursor=cursor, limit=limit, newest=True)]


@router.post("/projects", response={201: ProjectOut})
def post_project(request: HttpRequest, body: ProjectIn) -> Any:
    """Create a project; you become its owner. Needs a staff account or a project of your own."""
    if not may_create(request.user):
        raise HttpError(403, "starting a project needs a staff account or a project of one's own; ask an owner")
    try:
        project = create_project(body.name, owner=request.user, instruction=body.instruction, by=request.user)
    except BadProject as error:
        raise HttpError(422, str(error)) from error
    return Status(201, _project_out(project))


@router.get("/projects/{slug}", response=ProjectOut)
def get_project(request: HttpRequest, slug: str) -> Any:
    """One project with its counts."""
    return _project_out(member_project_or_404(request, slug))


@router.patch("/projects/{slug}", response=ProjectOut)
def patch_project(request: HttpRequest, slug: str, body: ProjectPatch) -> Any:
    """Change name, instruction, rubric or rater; with another rater, or other options of it, all queries are fitted again."""
    project = owned_project_or_404(request, slug)
    try:
        return _project_out(change_project(project, **body.dict(exclude_unset=True), by=request.user))
    except BadProject as error:
        raise HttpError(422, str(error)) from error


class ImportOrderedOut(Schema):
    """A file that is larger than the server imports at once: a worker imports it, and GET /jobs/{job_id} returns its progress."""

    job_id: int


@router.post("/projects/{slug}/imports", response={200: ImportOut, 202: ImportOrderedOut})
def post_import(
    request: HttpRequest,
    slug: str,
    file: File[UploadedFile],
    importer: str = AUTO,
    options: Json[dict[str, Any]] | None = None,
    leave_out_bad_rows: bool = False,
    replaces: bool = False,
) -> Any:
    """Import a file, all or nothing unless `leave_out_bad_rows`; repeating it changes nothing.

    `importer`: its name, or `auto` for the one that recognises the file. `options`: its options as a JSON object.
    `replaces`: changed texts without judgments, metadata and first-stage ranks replace those of the project.
    A file above the server's limit (ZELO_IMPORT_INLINE_MB) is imported by a worker: 202 with its job.
    """
    project = owned_project_or_404(request, slug)
    if (file.size or 0) > settings.ZELO_IMPORT_INLINE_BYTES:
        data = DataFile(file, file.name or "upload", importer, options or {})
        try:
            job = order_data_import(
                project, [data], leave_out_bad_rows=leave_out_bad_rows, replaces=replaces, by=request.user
            )
        except AlreadyImporting as error:
            raise HttpError(409, str(error)) from error
        except StorageFull as error:
            raise HttpError(507, str(error)) from error
        return Status(202, {"job_id": job.pk})
    try:
        summary = import_dataset(
            project,
            file,
            importer=importer,
            options=options,
            filename=file.name or "upload",
            leave_out_bad_rows=leave_out_bad_rows,
            replaces=replaces,
            by=request.user,
        )
    except (ImportFailed, UnknownPlugin, ValidationError) as error:
        raise HttpError(422, str(error)) from error
    rank_candidates(project)
    return {
        "queries": summary.queries,
        "documents": summary.documents,
        "candidates": summary.candidates,
        "grades": summary.grades,
        "judgments": summary.judgments,
        "judgments_created": summary.judgments_created,
        "judgments_changed": summary.judgments_changed,
        "ratings": summary.ratings,
        "import_id": summary.import_id,
        "left_out": [asdict(each) for each in summary.left_out],
        "message": str(summary),
    }


@router.post("/projects/{slug}/imports/preview", response=PreviewOut)
def post_import_preview(
    request: HttpRequest,
    slug: str,
    file: File[UploadedFile],
    importer: str = AUTO,
    options: Json[dict[str, Any]] | None = None,
) -> Any:
    """Check a file without storing anything: its format, its first rows, and its errors by reason."""
    project = owned_project_or_404(request, slug)
    try:
        found = preview_dataset(
            file, importer=importer, options=options, filename=file.name or "upload", project=project
        )
    except (ImportFailed, UnknownPlugin, ValidationError) as error:
        raise HttpError(422, str(error)) from error
    names = ("importer", "queries", "documents", "candidates", "grades", "judgments", "ratings", "complete")
    counts = {name: getattr(found, name) for name in names}
    return {
        **counts,
        "rows": [{"kind": type(row).__name__.removeprefix("Imported").lower(), **asdict(row)} for row in found.rows],
        "errors": [str(each) for each in found.errors],
        "reasons": [asdict(each) for each in found.reasons],
    }


@router.get("/projects/{slug}/queries", response=list[QueryOut])
def list_queries(
    request: HttpRequest, response: HttpResponse, slug: str, external_id: Text = "", domain: Text = "",
    cursor: Cursor = "", limit: Limit = 100,
) -> Any:  # fmt: skip
    """Queries in id order, filtered by imported id or domain. The header Link leads to the next page."""
    rows = Query.objects.visible_to(request.user).filter(project=project_or_404(request, slug))
    rows = rows.filter(external_id=external_id) if external_id else rows
    rows = rows.filter(domain=domain) if domain else rows
    return paged(request, response, rows, cursor=cursor, limit=limit)


@router.get("/queries/{query_id}", response=QueryOut, tags=["texts"])
def get_query(request: HttpRequest, query_id: Number) -> Any:
    """One query."""
    return query_or_404(request, query_id)


@router.get("/projects/{slug}/judgments")
def get_judgments(request: HttpRequest, slug: str) -> StreamingHttpResponse:
    """All live judgments as JSON lines."""
    from labeling.importing.dataset import stream_judgments

    project = project_or_404(request, slug)
    response = StreamingHttpResponse(stream_judgments(project, by=request.user), content_type="application/x-ndjson")
    response["Content-Disposition"] = f'attachment; filename="{project.slug}-judgments.jsonl"'
    return response


def query_or_404(request: HttpRequest, query_id: int) -> Query:
    """The query, if the user may see its project."""
    return get_object_or_404(Query.objects.visible_to(request.user).select_related("project"), pk=query_id)
