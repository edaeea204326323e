"""Imports of large data files in a worker: the upload waits in the storage, and the web process is free meanwhile.

Files up to ZELO_IMPORT_INLINE_MB are imported where they arrive (`labeling.importing.dataset`), by the same function. A job
imports all of its files or none.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

from labeling import audit
from labeling.importing.dataset import import_dataset
from labeling.models import Project
from labeling.retrieval.candidates import rank_candidates
from scoring.storage.files import BLOCK, storage
from workers.broker.hints import leave_hint
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    carry_out,
    hold,
    report_progress,
    unfinished_jobs,
    waiting_job_ids,
)
from workers.models import Job

STAGE = "import"
FOLDER = "uploads/data"
GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times while importing; see its log, then import smaller files, or give the worker more memory"


class AlreadyImporting(ValueError):
    """Another import of the project is unfinished."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file to import: an open stream, its name, its importer and the importer's options."""

    stream: IO[bytes]
    name: str
    importer: str
    options: Mapping[str, Any]


def order_data_import(
    project: Project,
    files: Sequence[DataFile],
    *,
    leave_out_bad_rows: bool = False,
    replaces: bool = False,
    by: Any = None,
) -> Job:
    """Store the files and order their import by a worker. Raises AlreadyImporting, and StorageFull of the storage."""
    if unfinished_jobs(project, STAGE).exists():
        raise AlreadyImporting(_already(project))
    stored = [_store(each) for each in files]
    payload = {
        "files": stored,
        "leave_out_bad_rows": leave_out_bad_rows,
        "replaces": replaces,
        "by": getattr(by, "pk", None),
    }
    try:
        with transaction.atomic():
            job = Job.objects.create(project=project, stage=STAGE, payload=payload)
            audit.note("data.import_ordered", project=project, actor=by, subject=files[0].name[:200], job=job.pk)
            transaction.on_commit(lambda: leave_hint("load", job.pk))
    except BaseException as error:
        _remove(stored)
        if isinstance(error, IntegrityError):
            raise AlreadyImporting(_already(project)) from None
        raise
    return job


def waiting_import_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


def load(job_id: int, *, worker: str = "") -> None:
    """Carry an import out unless another worker does; an error is stored in the job. The uploads go with its end."""
    carry_out(job_id, STAGE, _load, worker=worker, given_up=GIVEN_UP)
    ended = Job.objects.filter(pk=job_id, stage=STAGE).exclude(state__in=[Job.State.OPEN, Job.State.LEASED]).first()
    if ended is not None:
        _remove(ended.payload["files"])


def _load(claim: JobClaim) -> str:
    project = Project.objects.get(pk=claim.project_id)
    by = get_user_model().objects.filter(pk=claim.payload["by"]).first()
    summaries = []
    with transaction.atomic():
        for number, each in enumerate(claim.payload["files"]):
            report_progress(claim, number, len(claim.payload["files"]))
            with storage().opened(each["file"]) as stream:
                summary = import_dataset(
                    project,
                    cast("IO[bytes]", stream),
                    importer=each["importer"],
                    options=each["options"],
                    filename=each["name"],
                    leave_out_bad_rows=claim.payload["leave_out_bad_rows"],
                    replaces=claim.payload["replaces"],
                    by=by,
                )
            summaries.append(str(summary))
        rank_candidates(project)
        hold(claim)  # nothing is stored where another worker has taken over
    return " ".join(summaries)


def _store(file: DataFile) -> dict[str, Any]:
    path = f"{FOLDER}/{secrets.token_hex(12)}"
    file.stream.seek(0)
    with storage().writing(path) as upload:
        shutil.copyfileobj(file.stream, cast(Any, upload), BLOCK)
    return {"file": path, "name": file.name, "importer": file.importer, "options": dict(file.options)}


def _remove(stored: Sequence[Mapping[str, Any]]) -> None:
    for each in stored:
        storage().remove(each["file"])


def _already(project: Project) -> str:
    return f"another import of project {project.slug!r} is in progress; wait for its end on the page Jobs"
