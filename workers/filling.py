"""Stage 2 as work in the background: candidates for the queries of a project that came without documents.

Ordered by pages, REST and `manage.py candidates`; carried out by a worker, since it may embed a whole corpus.
The `Job` row is the truth, its lease is prolonged while the work goes on; `labeling.candidates` does the work.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import Error, IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.models import Exists, Q, QuerySet
from django.db.models.functions import Now

from labeling.candidates import fill_candidates, rank_candidates
from labeling.models import Project, Query
from labeling.plugins import get_plugin
from workers.hints import leave_hint
from workers.models import Job

log = logging.getLogger(__name__)

STAGE = "candidates"
LEASE_S = 60.0
RENEW_S = 15.0
MOST_ATTEMPTS = 3
MOST_CANDIDATES = 10_000
LONGEST_ERROR = 2000


class FillRefused(ValueError):
    """Candidates were ordered that cannot be retrieved; the message says what to change."""


class AlreadyFilling(FillRefused):
    """The project's candidates are being retrieved already, by the job `job_id`."""

    def __init__(self, project: Project, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(
            f"candidates of project {project.slug!r} are being retrieved already (job {job_id}); "
            "expected no other such job: wait for its end, then order what is still missing"
        )


class LeaseLost(RuntimeError):
    """Another worker has taken the job over; what this one finds out is of no use."""


@dataclass(frozen=True, slots=True)
class _Claim:
    job_id: int
    project_id: int
    fence: int
    attempts: int
    payload: Mapping[str, Any]


# --- orders ------------------------------------------------------------------------------


def bare_queries(project: Project) -> int:
    """How many queries of the project have no candidate."""
    return Query.objects.filter(project=project, candidates__isnull=True).count()


def needs_filling(project: Project) -> bool:
    """Whether some query has no candidate, or a job that retrieves some goes on; one statement, for pages."""
    bare = Query.objects.filter(project=project, candidates__isnull=True)
    return Project.objects.filter(Exists(bare) | Exists(_unfinished(project)), pk=project.pk).exists()


def _unfinished(project: Project) -> QuerySet[Job]:
    return Job.objects.filter(project=project, stage=STAGE, state__in=[Job.State.OPEN, Job.State.LEASED])


def unfinished_fill(project: Project) -> Job | None:
    """The job that retrieves the project's candidates, if one waits or works."""
    return _unfinished(project).first()


def order_candidates(
    project: Project, retriever: str = "hybrid", options: Mapping[str, Any] | None = None, k: int = 100
) -> Job:
    """Order up to `k` candidates for each query that has none, and leave the hint that starts it.

    Raises UnknownPlugin, pydantic.ValidationError, FillRefused or AlreadyFilling; nothing is stored then.
    """
    if not 1 <= k <= MOST_CANDIDATES:
        raise FillRefused(f"k is {k}; expected how many candidates a query gets, 1 to {MOST_CANDIDATES} (100 is usual)")
    plugin = get_plugin("retriever", retriever).from_dict(dict(options or {}))
    payload = {"retriever": retriever, "options": plugin.options.model_dump(mode="json"), "k": k}
    try:
        with transaction.atomic():
            job = Job.objects.create(project=project, stage=STAGE, payload=payload)
    except IntegrityError:
        present = unfinished_fill(project)
        raise AlreadyFilling(project, present.pk if present else 0) from None
    transaction.on_commit(lambda: leave_hint("fill", job.pk))
    return job


def waiting_fill_ids() -> list[int]:
    """Jobs that nobody works on: new ones, and those whose worker is silent."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM workers_job WHERE stage = %s AND (state = 'open' "
            "OR state = 'leased' AND lease_until < clock_timestamp()) ORDER BY id",
            [STAGE],
        )
        return [row[0] for row in cursor.fetchall()]


# --- work --------------------------------------------------------------------------------


def fill(job_id: int, *, worker: str = "") -> None:
    """Carry a job out unless somebody else does; a failure is written into it."""
    claim = _claim(job_id, worker)
    if claim is None:
        return
    if claim.attempts > MOST_ATTEMPTS:
        _end(claim, Job.State.FAILED, error=_given_up(claim))
        return
    try:
        with _kept_lease(claim):
            message = _carry_out(claim)
        _end(claim, Job.State.FINISHED, message=message)
    except LeaseLost:
        log.warning("job %d was taken over by another worker", job_id)
    except (OperationalError, InterfaceError):
        raise  # the database is away; the lease ends and the reconciler asks again
    except Exception as error:  # a retriever may be anybody's
        log.exception("job %d cannot retrieve candidates", job_id)
        _end(claim, Job.State.FAILED, error=f"{type(error).__name__}: {error}")


def _carry_out(claim: _Claim) -> str:
    """Retrieve, then rank what came without ranks; returns what was done."""
    project = Project.objects.get(pk=claim.project_id)

    def report(done: int, total: int) -> None:
        _progress(claim, done, total)

    report(0, bare_queries(project))
    added = fill_candidates(
        project,
        retriever=claim.payload["retriever"],
        options=claim.payload["options"],
        k=claim.payload["k"],
        progress=report,
    )
    ranked = rank_candidates(project, progress=report)
    left = bare_queries(project)
    message = f"{added:,} candidates retrieved" + (f", {ranked:,} ranked" if ranked else "")
    return message + (f"; {left:,} queries found none in the project's documents" if left else "")


def _claim(job_id: int, worker: str) -> _Claim | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_job SET state = 'leased', fence = fence + 1, attempts = attempts + 1, leased_by = %s, "
            "lease_until = clock_timestamp() + make_interval(secs => %s) WHERE id = %s AND stage = %s "
            "AND (state = 'open' OR state = 'leased' AND lease_until < clock_timestamp()) "
            "RETURNING project_id, fence, attempts",
            [worker[:200], LEASE_S, job_id, STAGE],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    payload = Job.objects.values_list("payload", flat=True).get(pk=job_id)
    return _Claim(job_id, project_id=row[0], fence=row[1], attempts=row[2], payload=payload)


def _held(claim: _Claim) -> Q:
    return Q(pk=claim.job_id, fence=claim.fence, state=Job.State.LEASED)


def _progress(claim: _Claim, done: int, total: int) -> None:
    """Say how many queries are done. Raises LeaseLost where somebody else has the job."""
    if not Job.objects.filter(_held(claim)).update(done=done, total=total):
        raise LeaseLost(f"job {claim.job_id} is no longer leased under fence {claim.fence}")


def _end(claim: _Claim, state: str, *, message: str = "", error: str = "") -> None:
    Job.objects.filter(_held(claim)).update(
        state=state,
        message=message,
        error=error.replace("\x00", " ")[:LONGEST_ERROR],
        lease_until=None,
        leased_by="",
        finished_at=Now(),
    )


def _given_up(claim: _Claim) -> str:
    return (
        f"the worker died {MOST_ATTEMPTS} times while retrieving; expected it to live: look into its log, "
        "choose the retriever bm25 where memory is short, and order the candidates again"
    )


@contextlib.contextmanager
def _kept_lease(claim: _Claim) -> Iterator[None]:
    """Prolong the lease from a thread of its own: embedding a corpus says nothing for minutes."""
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
                log.warning("lease of job %d not prolonged: %s", claim.job_id, error)
                connection.close()
        connection.close()

    thread = threading.Thread(target=prolong, name=f"lease-{claim.job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
