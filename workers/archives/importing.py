"""Imports a project archive as a new project: all or nothing, as a job of a worker, or at once for a command.

The upload waits in the storage until its job has ended. A failed import leaves an empty project, whose job says why.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

from django.core.exceptions import ValidationError
from django.db import Error, connection, transaction

from labeling import audit
from labeling.models import Membership, Project, Role
from labeling.projects import BadProject, change_project, create_project
from labeling.stored_texts import stored_text
from scoring.models import ProjectFit
from scoring.storage.files import BLOCK, storage
from workers.archives.format import SETTINGS
from workers.archives.reading import BadArchive, Header, check, read_header
from workers.archives.storing import store_rows
from workers.broker.hints import leave_hint
from workers.jobs.leasing import MOST_ATTEMPTS, JobClaim, carry_out, hold, waiting_job_ids
from workers.models import Job

STAGE = "archive"
FOLDER = "uploads/archives"
REPORT_S = 1.0
IMPORTED = stored_text("%(rows)s rows imported from the archive", one="%(rows)s row imported from the archive")
GIVEN_UP = (
    f"the worker crashed {MOST_ATTEMPTS} times while importing the archive; see its log, then delete this project and import "
    "the archive again"
)


def order_import(stream: IO[bytes], *, name: str = "", owner: Any = None, by: Any = None) -> Job:
    """Store the upload, create an empty project and order the import into it. Raises BadArchive or BadProject.

    Without `name`, the project keeps the archive's.
    """
    header = read_header(stream)
    stream.seek(0)
    path = f"{FOLDER}/{secrets.token_hex(12)}"
    with storage().writing(path) as upload:
        shutil.copyfileobj(stream, cast(Any, upload), BLOCK)
    try:
        with transaction.atomic():
            project = _new_project(header, name, owner, by)
            job = Job.objects.create(project=project, stage=STAGE, payload={"file": path}, total=header.total)
            audit.note("project.import_ordered", project=project, actor=by, subject=project.slug, job=job.pk)
    except BaseException:
        storage().remove(path)
        raise
    transaction.on_commit(lambda: leave_hint("unpack", job.pk))
    return job


def import_archive(stream: IO[bytes], *, name: str = "", owner: Any = None, by: Any = None) -> Project:
    """Import the archive in this process, all or nothing. `stream` can seek. Raises BadArchive or BadProject."""
    header = check(stream)
    stream.seek(0)
    with transaction.atomic():
        project = _new_project(header, name, owner, by)
        _store(project, header, stream, by=by)
    return project


def waiting_archive_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


def unpack(job_id: int, *, worker: str = "") -> None:
    """Carry an import out unless another worker does; an error is stored in the job. The upload goes with its end."""
    carry_out(job_id, STAGE, _unpack, worker=worker, given_up=GIVEN_UP)
    ended = Job.objects.filter(pk=job_id, stage=STAGE).exclude(state__in=[Job.State.OPEN, Job.State.LEASED]).first()
    if ended is not None:
        storage().remove(ended.payload["file"])


def _unpack(claim: JobClaim) -> str:
    project = Project.objects.get(pk=claim.project_id)
    with storage().opened(claim.payload["file"]) as stream:
        header = check(stream)
    with (
        storage().opened(claim.payload["file"]) as stream,
        _reported(claim, header.total) as progress,
        transaction.atomic(),
    ):
        rows = _store(project, header, stream, progress=progress)
        hold(claim)  # nothing is stored where another worker has taken over
    return str(IMPORTED % {"rows": f"{rows:,}"})


def _new_project(header: Header, name: str, owner: Any, by: Any) -> Project:
    """A project with the archive's settings and no rows. Raises BadArchive or BadProject."""
    settings = header.project
    if missing := [each for each in SETTINGS if each not in settings]:
        raise BadArchive(f"line 1: the settings lack {', '.join(missing)}")
    wanted = name or settings["name"]
    if not isinstance(wanted, str) or not isinstance(settings["instruction"], str):
        raise BadArchive("line 1: name and instruction must be texts")
    project = create_project(wanted, owner=owner, instruction=settings["instruction"], by=by)
    try:
        change_project(
            project,
            rubric=settings["rubric"],
            rater=settings["rater"],
            rater_options=settings["rater_options"],
            by=by,
        )
        _set_rules(project, settings)
    except BadProject:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, ValidationError, Error) as error:
        raise BadArchive(f"line 1: the settings cannot be used: {error}") from error
    return project


_RULES = (
    "gold_every", "gold_feedback", "gold_answers", "gold_accuracy", "gold_tolerance", "show_others_after",
    "hidden_metadata", "lease_s",
)  # fmt: skip


def _set_rules(project: Project, settings: Mapping[str, Any]) -> None:
    for each in (*_RULES, "calibration_version"):
        setattr(project, each, settings[each])
    project.full_clean(exclude=["slug", "rubric", "rater_options", "hidden_metadata"])
    project.save(update_fields=[*_RULES, "calibration_version"])


def _store(
    project: Project, header: Header, stream: IO[bytes], *, progress: Any = lambda done: None, by: Any = None
) -> int:
    owners = (
        Membership.objects.filter(project=project, role=Role.OWNER).order_by("id").values_list("user_id", flat=True)
    )
    ProjectFit.objects.filter(
        project=project
    ).delete()  # made by the settings' own rater; the archive holds the right one
    rows = store_rows(project, stream, progress, owner=owners.first())
    audit.note("project.imported", project=project, actor=by, subject=project.slug, people=header.people, rows=rows)
    return rows


@contextlib.contextmanager
def _reported(claim: JobClaim, total: int) -> Iterator[Any]:
    """Store progress once a second by a connection of its own: the import's transaction shows nothing before its end."""
    done, stop = [0], threading.Event()

    def report() -> None:
        while not stop.wait(REPORT_S):
            with contextlib.suppress(Error):
                Job.objects.filter(claim.held).update(done=done[0], total=total)
        connection.close()

    thread = threading.Thread(target=report, name=f"archive-{claim.job_id}", daemon=True)
    thread.start()
    try:
        yield lambda rows: done.__setitem__(0, rows)
    finally:
        stop.set()
        thread.join()
