"""Stage 2 as a background job: candidates for the queries of a project that were imported without documents.

Pages, REST and `manage.py candidates` order it. A worker carries it out under a lease of `workers.jobs.leasing`, since it
may embed a whole corpus. `labeling.retrieval.candidates` does the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists

from labeling import audit
from labeling.models import Project, Query
from labeling.plugins import get_plugin
from labeling.retrieval.candidates import fill_candidates, rank_candidates
from labeling.stored_texts import stored_text
from workers.broker.hints import leave_hint
from workers.jobs.leasing import MOST_ATTEMPTS, JobClaim, carry_out, report_progress, unfinished_jobs, waiting_job_ids
from workers.models import Job

STAGE = "candidates"
MOST_CANDIDATES = 10_000
GIVEN_UP = (
    f"the worker crashed {MOST_ATTEMPTS} times while retrieving candidates; see its log, choose the retriever bm25 where "
    "memory is short, then retrieve the candidates again"
)

# The message of a finished job: by whether candidates were ranked, and whether queries are left without any.
REPORTS = {
    (False, False): stored_text("%(added)s candidates retrieved", one="%(added)s candidate retrieved"),
    (True, False): stored_text(
        "%(added)s candidates retrieved, %(ranked)s ranked", one="%(added)s candidate retrieved, %(ranked)s ranked"
    ),
    (False, True): stored_text(
        "%(added)s candidates retrieved; queries that found none in the project's documents: %(left)s",
        one="%(added)s candidate retrieved; queries that found none in the project's documents: %(left)s",
    ),
    (True, True): stored_text(
        "%(added)s candidates retrieved, %(ranked)s ranked; queries that found none in the project's documents: %(left)s",
        one="%(added)s candidate retrieved, %(ranked)s ranked; queries that found none in the project's documents: %(left)s",
    ),
}


class FillRefused(ValueError):
    """The candidates that were ordered cannot be retrieved; the message says what to change."""


class AlreadyFilling(FillRefused):
    """The job `job_id` retrieves the project's candidates already."""

    def __init__(self, project: Project, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(
            f"candidates of project {project.slug!r} are being retrieved already (job {job_id}); "
            "wait for its end, then retrieve those that are still missing"
        )


# --- orders ------------------------------------------------------------------------------


def bare_queries(project: Project) -> int:
    """The number of queries without candidates."""
    return Query.objects.filter(project=project, candidates__isnull=True).count()


def needs_filling(project: Project) -> bool:
    """Whether a query has no candidates, or a job that retrieves some is unfinished; one statement, for pages."""
    bare = Query.objects.filter(project=project, candidates__isnull=True)
    return Project.objects.filter(Exists(bare) | Exists(unfinished_jobs(project, STAGE)), pk=project.pk).exists()


def unfinished_fill(project: Project) -> Job | None:
    """The unfinished job that retrieves the project's candidates, if any."""
    return unfinished_jobs(project, STAGE).first()


def order_candidates(
    project: Project,
    retriever: str = "hybrid",
    options: Mapping[str, Any] | None = None,
    k: int = 100,
    *,
    by: Any = None,
) -> Job:
    """Order up to `k` candidates for each query that has none, and send the hint that starts it.

    Raises UnknownPlugin, pydantic.ValidationError, FillRefused or AlreadyFilling; nothing is stored then.
    """
    if not 1 <= k <= MOST_CANDIDATES:
        raise FillRefused(f"k is {k}; expected how many candidates a query gets, 1 to {MOST_CANDIDATES} (100 is usual)")
    plugin = get_plugin("retriever", retriever).from_dict(dict(options or {}))
    payload = {"retriever": retriever, "options": plugin.options.model_dump(mode="json"), "k": k}
    try:
        with transaction.atomic():
            job = Job.objects.create(project=project, stage=STAGE, payload=payload)
            audit.note("candidates.ordered", project=project, actor=by, subject=retriever, k=k, job=job.pk)
    except IntegrityError:
        present = unfinished_fill(project)
        raise AlreadyFilling(project, present.pk if present else 0) from None
    transaction.on_commit(lambda: leave_hint("fill", job.pk))
    return job


def waiting_fill_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


# --- work --------------------------------------------------------------------------------


def fill(job_id: int, *, worker: str = "") -> None:
    """Carry a job out unless another worker does; an error is stored in the job."""
    carry_out(job_id, STAGE, _retrieve, worker=worker, given_up=GIVEN_UP)


def _retrieve(claim: JobClaim) -> str:
    """Retrieve candidates, then rank those without ranks; returns what was done."""
    project = Project.objects.get(pk=claim.project_id)

    def report(done: int, total: int) -> None:
        report_progress(claim, done, total)

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
    figures = {"added": f"{added:,}", "ranked": f"{ranked:,}", "left": f"{left:,}"}
    return REPORTS[bool(ranked), bool(left)] % figures
