"""Stage 8 as a background job: measures rerankers on one split of a snapshot.

Pages, REST, `manage.py evaluate` and the end of a training order it. The worker for training carries it out under a lease
of `workers.jobs.leasing`, since it loads models. A failure of one reranker leaves the results of the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from django.db import Error, IntegrityError, transaction

from labeling import audit
from labeling.database import is_lost
from labeling.models import Project
from labeling.records import FloatArray
from labeling.stored_texts import counted, stored_text
from scoring.models import Snapshot
from scoring.snapshots.splits import fingerprint
from trainer.bases import MINILM
from trainer.evaluation.entries import BASE, OUTSIDE, enter_baselines, order_of
from trainer.evaluation.evaluation_files import store_proofs
from trainer.evaluation.leaderboard import SPLITS, evaluation_queries, learned_queries, record_evaluation
from trainer.evaluation.matching import is_all_equal
from trainer.evaluation.metrics import EvaluationQuery
from trainer.evaluation.rankers import RunFile
from trainer.models import Reranker, TrainingRun
from trainer.publishing.manifests import EVALUATION
from trainer.serving.registry import PAIRWISE_JUDGE, TRAINED
from workers.broker.hints import leave_hint
from workers.jobs.leasing import MOST_ATTEMPTS, JobClaim, carry_out, report_progress, unfinished_jobs, waiting_job_ids
from workers.models import Job

log = logging.getLogger(__name__)

STAGE = stored_text("evaluate")
AT_QUERY = stored_text("%(name)s: query %(done)s of %(total)s")
LOADING = stored_text("%(name)s: loading")
EQUAL = (
    "{name} gave all documents of {queries} the same score, so ties by id order them; check its prompt (query_template, "
    "document_template), that its texts arrive, and that its scores are not rounded"
)
# Kinds whose figures on a split cannot change, and that take long or cost money.
MODELS = (TRAINED, BASE, OUTSIDE)
GIVEN_UP = (
    f"the worker crashed {MOST_ATTEMPTS} times during the evaluation; see its log, evaluate fewer rerankers at once where "
    "memory is short, then start the evaluation again"
)


class EvaluationRefused(ValueError):
    """The evaluation that was ordered cannot be made; the message says what to change."""


class EvaluationBusy(EvaluationRefused):
    """Another evaluation of the project is waiting or running; that of a training is ordered by its worker at any time."""


class NoneEvaluated(RuntimeError):
    """Every reranker of the job failed."""


def order_evaluation(
    project: Project,
    snapshot: Snapshot,
    split: str = "test",
    *,
    rerankers: Sequence[Reranker] | None = None,
    models_again: bool = True,
    by: Any = None,
) -> Job:
    """Order that `rerankers` (None: the baselines and all that the project has) are measured. Raises EvaluationRefused, EvaluationBusy.

    Without `models_again`, models that have figures on this split keep them: neither they nor the snapshot change.
    """
    if split not in SPLITS:
        raise EvaluationRefused(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if not snapshot.projects.filter(pk=project.pk).exists():
        raise EvaluationRefused(f"snapshot {snapshot.name!r} holds nothing of project {project.slug!r}; choose another")
    chosen = None if rerankers is None else [reranker.pk for reranker in rerankers]
    if chosen == []:
        raise EvaluationRefused("no reranker was chosen; expected at least one")
    payload: dict[str, Any] = {"snapshot": snapshot.pk, "split": split, "rerankers": chosen}
    if not models_again:
        payload["models_again"] = False
    try:
        with transaction.atomic():
            job = Job.objects.create(project=project, stage=STAGE, payload=payload)
            audit.note("evaluation.ordered", project=project, actor=by, subject=snapshot.name, split=split, job=job.pk)
    except IntegrityError:
        raise EvaluationBusy(
            f"an evaluation of project {project.slug!r} is waiting or running already; wait for its end, then start another"
        ) from None
    transaction.on_commit(lambda: leave_hint("evaluate", job.pk))
    return job


def unfinished_evaluation(project: Project) -> Job | None:
    """The project's unfinished evaluation, if any."""
    return unfinished_jobs(project, STAGE).first()


def waiting_evaluation_ids() -> list[int]:
    """Evaluations that wait for a worker."""
    return waiting_job_ids(STAGE)


def evaluate(job_id: int, *, worker: str = "") -> None:
    """Carry an evaluation out unless another worker does; an error is stored in its job."""
    carry_out(job_id, STAGE, _evaluate, worker=worker, given_up=GIVEN_UP)


def _evaluate(claim: JobClaim) -> str:
    """Measure one reranker after the other; returns what was done and which failed."""
    project = Project.objects.get(pk=claim.project_id)
    snapshot = Snapshot.objects.get(pk=claim.payload["snapshot"])
    split = claim.payload["split"]
    queries = evaluation_queries(snapshot, split)
    chosen = _chosen(project, snapshot, claim.payload["rerankers"])
    if not claim.payload.get("models_again", True):
        chosen = _without_measured_models(chosen, snapshot, split)
    problems: list[str] = []
    equal: list[str] = []
    for done, reranker in enumerate(chosen):
        report_progress(claim, done, len(chosen))
        try:
            number = _evaluate_one(claim, reranker, snapshot, split, queries)
            equal += [EQUAL.format(name=reranker.name, queries=counted(number, "query", "queries"))] if number else []
        except Exception as error:  # a model or an endpoint of anybody's; the others are measured all the same
            if is_lost(error):
                raise
            log.exception("reranker %s cannot be evaluated", reranker.name)
            problems.append(f"{reranker.name}: {type(error).__name__}: {error}")
    report_progress(claim, len(chosen), len(chosen))
    if problems and len(problems) == len(chosen):
        raise NoneEvaluated("; ".join(problems))
    said = (
        f"{counted(len(chosen) - len(problems), 'reranker')} on {counted(len(queries), 'query', 'queries')} of {split}"
    )
    said += _proofs_stored(project, snapshot, split)
    said += "".join(f"; warning: {each}" for each in equal)
    return said + (f"; not evaluated: {'; '.join(problems)}" if problems else "")


def _proofs_stored(project: Project, snapshot: Snapshot, split: str) -> str:
    """Write the results beside the artefacts; returns the error, if any, which does not fail the job."""
    try:
        store_proofs(project, snapshot, split)
    except Error:
        raise
    except Exception as error:  # every kind of storage has errors of its own
        log.warning("the figures of project %s could not be stored with its artefacts: %s", project.slug, error)
        return f"; {EVALUATION} is not written: {error}"
    return ""


def _chosen(project: Project, snapshot: Snapshot, ids: list[int] | None) -> list[Reranker]:
    if ids is not None:
        return list(Reranker.objects.filter(project=project, pk__in=ids).order_by("pk"))
    runs = TrainingRun.objects.filter(
        project=project, state__in=(TrainingRun.State.FINISHED, TrainingRun.State.HELD_BACK)
    ).order_by("pk")
    enter_baselines(project, bases=[MINILM, *(run.options["base"] for run in runs if run.options.get("base"))])
    return list(Reranker.objects.filter(project=project).exclude(kind=PAIRWISE_JUDGE).order_by("pk"))


def _without_measured_models(chosen: Sequence[Reranker], snapshot: Snapshot, split: str) -> list[Reranker]:
    measured = set(snapshot.evaluations.filter(split=split, reranker__in=chosen).values_list("reranker", flat=True))
    return [each for each in chosen if each.kind not in MODELS or each.pk not in measured]


def _evaluate_one(
    claim: JobClaim, reranker: Reranker, snapshot: Snapshot, split: str, queries: Sequence[EvaluationQuery]
) -> int:
    """Measure and store; returns in how many queries a model gave all documents one score, which ranks nothing."""
    state = Job.objects.filter(claim.held)

    def progress(done: int, total: int) -> None:
        if done % 20 == 0:
            state.update(message=AT_QUERY % {"name": reranker.name, "done": done + 1, "total": total})

    state.update(message=LOADING % {"name": reranker.name})
    order = order_of(reranker, queries)
    scores = order.scores(queries, progress)
    scores = _without_what_was_learned(reranker, snapshot, queries, scores)
    run = order.beyond(queries) if isinstance(order, RunFile) else None
    record_evaluation(reranker, snapshot, split, queries=queries, scores=scores, run=run)
    return sum(map(is_all_equal, scores)) if reranker.kind in (OUTSIDE, BASE) else 0


def _without_what_was_learned(
    reranker: Reranker, snapshot: Snapshot, queries: Sequence[EvaluationQuery], scores: list[FloatArray]
) -> list[FloatArray]:
    """No scores for queries that a student of another snapshot has learned from: knowing them proves nothing."""
    learned: set[int] = set()
    for run in _trainings(reranker):
        if run.snapshot_id != snapshot.pk:
            learned |= learned_queries(run.snapshot)
    if not learned:
        return scores
    return [
        np.full_like(own, np.nan) if fingerprint(query.text) in learned else own
        for query, own in zip(queries, scores, strict=True)
    ]


def _trainings(reranker: Reranker) -> list[TrainingRun]:
    """The training of a student, and those of the students that it continued from."""
    found: list[TrainingRun] = []
    run = reranker.training_run
    while run is not None and run not in found:
        found.append(run)
        start = run.options.get("start")
        before = Reranker.objects.filter(project=run.project_id, checksum=start) if start else Reranker.objects.none()
        student = before.exclude(training_run=None).first()
        run = student.training_run if student is not None else None
    return found
