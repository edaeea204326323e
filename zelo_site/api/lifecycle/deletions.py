"""REST of deletion: GET /deletions/KIND/ID counts what would be deleted, and DELETE of the row's own address deletes it.

204: everything is deleted. 202: there is much to delete, and the named job does it in slices. 409: it cannot be deleted now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from django.http import HttpRequest
from ninja import Router, Schema, Status
from ninja.errors import HttpError

from labeling.access.api_auth import owns
from labeling.models import Annotator, Candidate, Document, Project, Query
from scoring.models import Snapshot
from trainer.models import Reranker
from workers.deletion.orders import delete
from workers.deletion.targets import DeletionRefused, Target, UnknownTarget, find_target
from workers.judging.pausing import restore_judge, retire_judge
from workers.models import Job, Run
from zelo_site.api.projects import router as projects_router
from zelo_site.api.runs import router as runs_router
from zelo_site.api.snapshots import router as snapshots_router

router = Router(tags=["deletion"])


class PreviewOut(Schema):
    """`counts`: rows that go, by kind; `name`: what is deleted. Frozen snapshots stay as they are."""

    kind: str
    name: str
    counts: dict[str, int]


class DeletionOut(Schema):
    """GET /jobs/{job_id} follows the deletion."""

    job_id: int


class RetiredOut(Schema):
    annotator_id: int
    retired: bool


RESPONSES = {204: None, 202: DeletionOut}


def _target(request: HttpRequest, kind: str, number: int) -> Target:
    """The target, if the user may read its project; 403 unless they own it."""
    row = ROWS[kind].visible_to(request.user).filter(pk=number).first()
    if row is None:
        raise HttpError(404, f"no {kind} {number} is visible to you; check the id")
    project = _project(request, row)
    if not owns(request.user, project):
        raise HttpError(
            403, f"deleting a {kind} of project {project.slug!r} needs the role owner; ask one of its owners"
        )
    try:
        return find_target(project, kind, number)
    except UnknownTarget as error:
        raise HttpError(404, str(error)) from error


def _project(request: HttpRequest, row: Any) -> Project:
    """The project of a row; of a snapshot of several, one that the user does not own, if there is one."""
    if isinstance(row, Snapshot):
        projects = list(Project.with_archived.filter(snapshots=row))
        return next((each for each in projects if not owns(request.user, each)), projects[0])
    return row.query.project if isinstance(row, Candidate) else row.project


def _preview(target: Target) -> dict[str, Any]:
    return {"kind": target.kind, "name": target.name, "counts": target.counted()}


def _delete(request: HttpRequest, target: Target) -> Any:
    try:
        job = delete(target, by=request.user)
    except DeletionRefused as error:
        raise HttpError(409, str(error)) from error
    return Status(204, None) if job.state == Job.State.FINISHED else Status(202, {"job_id": job.pk})


ROWS: Mapping[str, Any] = {
    "query": Query.objects,
    "document": Document.objects,
    "candidate": Candidate.objects,
    "answers": Annotator.objects,
    "run": Run.objects,
    "snapshot": Snapshot.objects,
    "reranker": Reranker.objects,
}
KindName = Literal["query", "document", "candidate", "answers", "run", "snapshot", "reranker"]


@router.get("/deletions/{what}/{target_id}", response=PreviewOut)
def get_deletion(request: HttpRequest, what: KindName, target_id: int) -> Any:
    """Count the rows deleted with a query, document, candidate, run, snapshot or reranker, or an annotator's answers."""
    return _preview(_target(request, what, target_id))


@projects_router.delete("/queries/{query_id}", response=RESPONSES, tags=["deletion"])
def delete_query(request: HttpRequest, query_id: int) -> Any:
    """Delete a query with its candidates, pairs and judgments."""
    return _delete(request, _target(request, "query", query_id))


@projects_router.delete("/documents/{document_id}", response=RESPONSES, tags=["deletion"])
def delete_document(request: HttpRequest, document_id: int) -> Any:
    """Delete a document with its candidates, pairs and judgments; the queries are fitted again."""
    return _delete(request, _target(request, "document", document_id))


@projects_router.delete("/candidates/{candidate_id}", response=RESPONSES, tags=["deletion"])
def delete_candidate(request: HttpRequest, candidate_id: int) -> Any:
    """Delete a candidate with its pairs and judgments; its query is fitted again."""
    return _delete(request, _target(request, "candidate", candidate_id))


@router.delete("/annotators/{annotator_id}/judgments", response=RESPONSES)
def delete_answers(request: HttpRequest, annotator_id: int) -> Any:
    """Delete all judgments of one judge or person, who stays; the queries are fitted again."""
    return _delete(request, _target(request, "answers", annotator_id))


@runs_router.delete("/runs/{run_id}", response=RESPONSES, tags=["deletion"])
def delete_run(request: HttpRequest, run_id: int) -> Any:
    """Cancel a run if it is active, and delete it; its answers are kept."""
    return _delete(request, _target(request, "run", run_id))


@snapshots_router.delete("/snapshots/{snapshot_id}", response=RESPONSES, tags=["deletion"])
def delete_snapshot(request: HttpRequest, snapshot_id: int) -> Any:
    """Delete a snapshot with its files, its training runs and its evaluations."""
    return _delete(request, _target(request, "snapshot", snapshot_id))


@router.delete("/rerankers/{reranker_id}", response=RESPONSES)
def delete_reranker(request: HttpRequest, reranker_id: int) -> Any:
    """Delete a reranker with its files and evaluations; judges that ask it are retired."""
    return _delete(request, _target(request, "reranker", reranker_id))


@router.post("/annotators/{annotator_id}/retire", response=RetiredOut)
def post_retire(request: HttpRequest, annotator_id: int) -> Any:
    """Retire a judge: new runs cannot use it, and its answers remain."""
    return _moved(request, annotator_id, retire_judge)


@router.post("/annotators/{annotator_id}/restore", response=RetiredOut)
def post_restore(request: HttpRequest, annotator_id: int) -> Any:
    """Bring a retired judge back."""
    return _moved(request, annotator_id, restore_judge)


def _moved(request: HttpRequest, annotator_id: int, move: Any) -> dict[str, Any]:
    judge = Annotator.objects.judges().visible_to(request.user).filter(pk=annotator_id).first()
    if judge is None:
        raise HttpError(404, f"no judge {annotator_id} is visible to you; check the id")
    if not owns(request.user, judge.project):
        raise HttpError(403, f"changing project {judge.project.slug!r} needs the role owner; ask one of its owners")
    if not move(judge, by=request.user):
        raise HttpError(409, f"judge {judge.name!r} is {'retired already' if judge.retired_at else 'not retired'}")
    return {"annotator_id": judge.pk, "retired": judge.retired_at is not None}
