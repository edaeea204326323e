"""Carries out background jobs under a lease, one worker at a time.

The `Job` row is the truth: a claim raises its fence, a thread extends the lease while the work continues, and only the
holder of the fence may report progress or end the job. The other modules of this folder do the work itself.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error, connection
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from labeling.database import is_lost
from labeling.models import Project
from scoring.storage.files import StoredFileUnusable
from workers.models import Job

log = logging.getLogger(__name__)

LEASE_S = 60.0
RENEW_S = 15.0
MOST_ATTEMPTS = 3
LONGEST_ERROR = 2000
INTERRUPTED = "the command was interrupted; start it again"


class LeaseLost(RuntimeError):
    """Another worker has taken the job over, or it was cancelled; discard the result."""


@dataclass(frozen=True, slots=True)
class JobClaim:
    """A leased job; only the holder of this fence may change it."""

    job_id: int
    project_id: int
    fence: int
    attempts: int
    payload: Mapping[str, Any]

    @property
    def held(self) -> Q:
        """Matches the job while this claim holds it."""
        return Q(pk=self.job_id, fence=self.fence, state=Job.State.LEASED)


def unfinished_jobs(project: Project, stage: str) -> QuerySet[Job]:
    """Jobs of the project that are open or leased."""
    return Job.objects.filter(project=project, stage=stage, state__in=[Job.State.OPEN, Job.State.LEASED])


def waiting_job_ids(stage: str) -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM workers_job WHERE stage = %s AND (state = 'open' "
            "OR state = 'leased' AND lease_until < clock_timestamp()) ORDER BY id",
            [stage],
        )
        return [row[0] for row in cursor.fetchall()]


def carry_out(
    job_id: int,
    stage: str,
    work: Callable[[JobClaim], str],
    *,
    worker: str,
    given_up: str,
    told: tuple[type[Exception], ...] = (),
) -> None:
    """Do a job unless another worker does. `work` returns the job's message; an exception becomes its error, with its class
    unless that is one of `told`, or the error of a stored file.

    `given_up` is the error of a job whose worker crashed `MOST_ATTEMPTS` times. Raises OperationalError where the database
    is unreachable: the lease runs out then, and the reconciler finds the job.
    """
    claim = claim_job(job_id, stage, worker=worker)
    if claim is not None:
        carry_out_claim(claim, work, given_up=given_up, told=told)


def carry_out_claim(
    claim: JobClaim, work: Callable[[JobClaim], str], *, given_up: str, told: tuple[type[Exception], ...] = ()
) -> None:
    """Do a job that this process has leased; otherwise as `carry_out`."""
    if claim.attempts > MOST_ATTEMPTS:
        end_job(claim, Job.State.FAILED, error=given_up)
        return
    try:
        with kept_lease(claim):
            message = work(claim)
        end_job(claim, Job.State.FINISHED, message=message)
    except LeaseLost:
        log.warning("job %d was taken over by another worker, or cancelled", claim.job_id)
    except Exception as error:  # a plugin may be anybody's
        if is_lost(error):
            raise
        log.exception("job %d failed", claim.job_id)
        name = "" if isinstance(error, (*told, StoredFileUnusable)) else f"{type(error).__name__}: "
        end_job(claim, Job.State.FAILED, error=f"{name}{error}")


def carry_out_here(claim: JobClaim, work: Callable[[JobClaim], str], *, given_up: str) -> None:
    """Do a job that a command has leased. If the command is interrupted, the job fails, so that no worker repeats it."""
    try:
        carry_out_claim(claim, work, given_up=given_up)
    except (KeyboardInterrupt, SystemExit):
        connection.close()  # the signal may have interrupted a query
        with contextlib.suppress(Error):  # the database may stop as well; then a worker finds the job
            end_job(claim, Job.State.FAILED, error=INTERRUPTED)
        raise


def carry_step(
    job_id: int,
    stage: str,
    step: Callable[[JobClaim], str | None],
    *,
    worker: str,
    given_up: str,
    stopped: type[Exception],
) -> None:
    """Do the next step of a job that waits for other work, unless another worker does.

    `step` returns the message of the whole once it has ended, and None while it continues: the job is then released. An error of
    the class `stopped` or of a stored file becomes the job's error as it is; any other with its class. Raises OperationalError as `carry_out`.
    """
    claim = claim_job(job_id, stage, worker=worker)
    if claim is None:
        return
    if claim.attempts > MOST_ATTEMPTS:
        end_job(claim, Job.State.FAILED, error=given_up)
        return
    try:
        with kept_lease(claim):
            message = step(claim)
        if message is not None:
            end_job(claim, Job.State.FINISHED, message=message)
        else:
            Job.objects.filter(claim.held).update(
                state=Job.State.OPEN, lease_until=None, leased_by="", attempts=claim.attempts - 1
            )
    except LeaseLost:
        log.warning("job %d was taken over by another worker, or cancelled", claim.job_id)
    except (stopped, StoredFileUnusable) as error:
        end_job(claim, Job.State.FAILED, error=str(error))
    except Exception as error:  # a plugin may be anybody's
        if is_lost(error):
            raise
        log.exception("job %d failed", claim.job_id)
        end_job(claim, Job.State.FAILED, error=f"{type(error).__name__}: {error}")


def claim_job(job_id: int, stage: str, *, worker: str) -> JobClaim | None:
    """Lease an open job, or one whose lease has run out; None where there is nothing to lease."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_job SET state = 'leased', fence = fence + 1, attempts = attempts + 1, leased_by = %s, "
            "lease_until = clock_timestamp() + make_interval(secs => %s) WHERE id = %s AND stage = %s "
            "AND (state = 'open' OR state = 'leased' AND lease_until < clock_timestamp()) "
            "RETURNING project_id, fence, attempts",
            [worker[:200], LEASE_S, job_id, stage],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    payload = Job.objects.values_list("payload", flat=True).get(pk=job_id)
    return JobClaim(job_id, project_id=row[0], fence=row[1], attempts=row[2], payload=payload)


def create_claimed(project: Project, stage: str, *, worker: str) -> JobClaim:
    """Create a job that this process holds from the start, so that no other worker takes it."""
    job = Job.objects.create(
        project=project, stage=stage, state=Job.State.LEASED, fence=1, attempts=1, leased_by=worker[:200],
        lease_until=Now() + timedelta(seconds=LEASE_S),
    )  # fmt: skip
    return JobClaim(job.pk, project_id=project.pk, fence=1, attempts=1, payload={})


def hold(claim: JobClaim) -> None:
    """Lock the job until the transaction ends. Raises LeaseLost where it is no longer ours."""
    if not Job.objects.select_for_update().filter(claim.held).exists():
        raise LeaseLost(f"job {claim.job_id} is no longer leased under fence {claim.fence}")


def report_progress(claim: JobClaim, done: int, total: int) -> None:
    """Store how much is done. Raises LeaseLost where the job is no longer ours."""
    if not Job.objects.filter(claim.held).update(done=done, total=total):
        raise LeaseLost(f"job {claim.job_id} is no longer leased under fence {claim.fence}")


def end_job(claim: JobClaim, state: str, *, message: str = "", error: str = "") -> bool:
    """End the job; False where it is no longer ours."""
    return bool(
        Job.objects.filter(claim.held).update(
            state=state,
            message=message,
            error=error.replace("\x00", " ")[:LONGEST_ERROR],
            lease_until=None,
            leased_by="",
            finished_at=Now(),
        )
    )


@contextlib.contextmanager
def kept_lease(claim: JobClaim) -> Iterator[None]:
    """Extend the lease in a thread while the block runs: some work reports nothing for minutes."""
    stop = threading.Event()

    def prolong() -> None:
        while not stop.wait(RENEW_S):
            try:
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE workers_job SET lease_until = clock_timestamp() + make_interval(secs => %s) "
                        "WHERE id = %s AND fence = %s AND state = 'leased'",
                        [LEASE_S, claim.job_id, claim.fence],
                    )
            except Error as error:
                log.warning("lease of job %d not extended: %s", claim.job_id, error)
                connection.close()
        connection.close()

    thread = threading.Thread(target=prolong, name=f"lease-{claim.job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
