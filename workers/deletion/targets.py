"""Targets of deletion, and counts of the rows deleted with them.

A `Target` names rows of one kind in one project. `counted` says what would go, before anything is deleted: pages, REST and
the command show it. Accounts are in `workers.deletion.accounts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_noop

from labeling.models import (
    Annotator,
    Candidate,
    Document,
    GoldAnswer,
    Judgment,
    Membership,
    ModelGrade,
    Pair,
    Project,
    Query,
    RaterGrade,
    SpotCheck,
    UnmatchedGrade,
)
from scoring.models import Snapshot
from trainer.models import Evaluation, Reranker, TrainingRun
from trainer.serving.registry import rerankers_called
from workers.deletion.grades import rater_grades
from workers.jobs.distillation import STAGE as DISTILLATION
from workers.jobs.leasing import unfinished_jobs
from workers.models import Attempt, Job, JudgingTask, ProviderBatch, Run

Counts = dict[str, int]

# Providers end a batch after a day; one that its endpoint does not report any more keeps no deletion waiting.
LONGEST_BATCH = timedelta(days=2)

# The counted kinds, in the words of the pages, in the order in which they are shown.
COUNT_LABELS: Mapping[str, str] = {
    "queries": gettext_noop("queries"),
    "documents": gettext_noop("documents"),
    "candidates": gettext_noop("candidates"),
    "pairs": gettext_noop("pairs"),
    "judgments_of_judges": gettext_noop("judgments of judges"),
    "judgments_of_people": gettext_noop("judgments of people"),
    "model_grades": gettext_noop("grades of judges"),
    "grades": gettext_noop("grades of people"),
    "rater_grades": gettext_noop("grades of single raters"),
    "gold": gettext_noop("gold answers"),
    "spot_checks": gettext_noop("assignments of people"),
    "open_questions": gettext_noop("unfinished questions to judges"),
    "calls": gettext_noop("records of calls"),
    "runs": gettext_noop("runs"),
    "batches": gettext_noop("batches at a provider, which are cancelled"),
    "distilled_runs": gettext_noop("distilled runs that are cancelled, because they use it"),
    "snapshots": gettext_noop("snapshots"),
    "training_runs": gettext_noop("training runs"),
    "evaluations": gettext_noop("evaluations"),
    "rerankers": gettext_noop("rerankers"),
    "judges_retired": gettext_noop("judges that are retired, because they use it"),
    "annotators": gettext_noop("judges and people"),
    "members": gettext_noop("members"),
}


class DeletionRefused(ValueError):
    """The target cannot be deleted; the message says why and what to do."""


class UnknownTarget(LookupError):
    """The project has nothing of that kind and id."""


@dataclass(frozen=True, slots=True)
class Target:
    """Rows of one kind: `kind` is a key of `KINDS`, `name` says to people what they are."""

    kind: str
    project: Project
    ids: tuple[int, ...]
    name: str

    @property
    def rows(self) -> QuerySet[Any]:
        return KINDS[self.kind].model._base_manager.filter(pk__in=self.ids)

    def counted(self) -> Counts:
        """Counts of the rows to delete, by the keys of `COUNT_LABELS`; kinds without rows are left out."""
        found = KINDS[self.kind].counts(self)
        return {key: found[key] for key in COUNT_LABELS if found.get(key)}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of target. `rows` are those of a project; `name` names one to people; `external` is an id that people know."""

    label: str
    model: Any
    rows: Callable[[Project], QuerySet[Any]]
    name: Callable[[Any], str]
    counts: Callable[[Target], Counts]
    external: str = ""


def find_target(project: Project, kind: str, ids: int | str | list[int]) -> Target:
    """The rows with these ids; text is the imported id, or a name (of a reranker also that for programs). Raises UnknownTarget."""
    if kind not in KINDS:
        raise UnknownTarget(f"{kind!r} cannot be deleted; expected one of {', '.join(KINDS)}")
    rows = KINDS[kind].rows(project)
    if isinstance(ids, str):
        found = (
            list(rows.filter(**{KINDS[kind].external: ids})[:2]) if KINDS[kind].external and "\x00" not in ids else []
        )
        if not found and kind == "reranker":
            found = rerankers_called(list(rows.select_related("project").defer("manifest")), ids)[:2]
        if not found and ids.isdecimal() and len(ids) < 19:
            found = list(rows.filter(pk=int(ids)))
    else:
        wanted = [ids] if isinstance(ids, int) else ids
        found = list(rows.filter(pk__in=wanted))
        if len(found) < len(set(wanted)):
            found = []
    if not found:
        raise UnknownTarget(f"project {project.slug!r} has no {kind} {ids!r}; check the id")
    name = KINDS[kind].name(found[0]) + (f" +{len(found) - 1}" if len(found) > 1 else "")
    return Target(kind, project, tuple(row.pk for row in found), name)


# --- counts ------------------------------------------------------------------------------


def _of_candidates(candidates: QuerySet[Candidate]) -> Counts:
    """The rows deleted with candidates."""
    pairs = Pair.objects.filter(Q(a__in=candidates) | Q(b__in=candidates))
    return {
        "candidates": candidates.count(),
        "pairs": pairs.count(),
        **_of_judgments(Judgment.objects.filter(pair__in=pairs)),
        "model_grades": ModelGrade.objects.filter(candidate__in=candidates).count(),
        "grades": candidates.filter(grade__isnull=False).count(),
        "gold": GoldAnswer.objects.filter(pair__in=pairs).count(),
        "spot_checks": SpotCheck.objects.filter(pair__in=pairs).count(),
        "open_questions": JudgingTask.objects.filter(pair__in=pairs).count(),
    }


def _of_judgments(judgments: QuerySet[Judgment]) -> Counts:
    people = judgments.filter(by_person=True).count()
    return {"judgments_of_people": people, "judgments_of_judges": judgments.count() - people}


def _unmatched(target: Target, path: str) -> int:
    return unmatched_grades(target.project, path, target.rows.values("external_id")).count()


def _rated(target: Target, path: str) -> int:
    return rater_grades(target.project, path, target.rows.values("external_id")).count()


def unmatched_grades(project: Project, path: str, external_ids: Any) -> QuerySet[UnmatchedGrade]:
    """The grades of documents that are not candidates, of these queries or documents (`path`)."""
    return UnmatchedGrade.objects.filter(**{"project": project, f"{path}_external_id__in": external_ids})


def _of_queries(target: Target) -> Counts:
    found = _of_candidates(Candidate.objects.filter(query__in=target.ids))
    return {
        **found,
        "queries": len(target.ids),
        "grades": found["grades"] + _unmatched(target, "query"),
        "rater_grades": _rated(target, "query"),
    }


def _of_documents(target: Target) -> Counts:
    found = _of_candidates(Candidate.objects.filter(document__in=target.ids))
    return {
        **found,
        "documents": len(target.ids),
        "grades": found["grades"] + _unmatched(target, "document"),
        "rater_grades": _rated(target, "document"),
    }


def _of_answers(target: Target) -> Counts:
    grades = ModelGrade.objects.filter(annotator__in=target.ids).count()
    rated = RaterGrade.objects.filter(annotator__in=target.ids).count()
    judgments = _of_judgments(Judgment.objects.filter(annotator__in=target.ids))
    return {**judgments, "model_grades": grades, "rater_grades": rated}


def _of_runs(target: Target) -> Counts:
    return {
        "runs": len(target.ids),
        "open_questions": JudgingTask.objects.filter(run__in=target.ids).count(),
        "calls": Attempt.objects.filter(run__in=target.ids).count(),
        "batches": batches_out(target.rows).count(),
        "distilled_runs": len(distillations_of(target)),
    }


def _of_snapshots(target: Target) -> Counts:
    return {
        "snapshots": len(target.ids),
        "training_runs": TrainingRun.objects.filter(snapshot__in=target.ids).count(),
        "evaluations": Evaluation.objects.filter(snapshot__in=target.ids).count(),
        "distilled_runs": len(distillations_of(target)),
    }


def _of_rerankers(target: Target) -> Counts:
    return {
        "rerankers": len(target.ids),
        "evaluations": Evaluation.objects.filter(reranker__in=target.ids).count(),
        "judges_retired": judges_using(target).count(),
    }


def judges_using(target: Target) -> QuerySet[Annotator]:
    """The judges of any project that ask one of these rerankers: students that judge pairs, named by their checksum."""
    checksums = Reranker.objects.filter(pk__in=target.ids).exclude(checksum="").values_list("checksum", flat=True)
    return Annotator.objects.offered().filter(options__student__in=list(checksums))


def count_project(project: Project) -> Counts:
    """Counts of the rows deleted with a project."""
    snapshots = own_snapshots(project)
    found = {
        **_of_judgments(Judgment.objects.filter(annotator__project=project)),
        "queries": Query.objects.filter(project=project).count(),
        "documents": Document.objects.filter(project=project).count(),
        "candidates": Candidate.objects.filter(query__project=project).count(),
        "pairs": Pair.objects.filter(a__query__project=project).count(),
        "grades": Candidate.objects.filter(query__project=project, grade__isnull=False).count()
        + UnmatchedGrade.objects.filter(project=project).count(),
        "rater_grades": RaterGrade.objects.filter(annotator__project=project).count(),
        "gold": GoldAnswer.objects.filter(project=project).count(),
        "model_grades": ModelGrade.objects.filter(annotator__project=project).count(),
        "spot_checks": SpotCheck.objects.filter(project=project).count(),
        "open_questions": JudgingTask.objects.filter(run__project=project).count(),
        "runs": Run.objects.filter(project=project).count(),
        "batches": batches_out(Run.objects.filter(project=project)).count(),
        "snapshots": len(snapshots),
        "training_runs": TrainingRun.objects.filter(Q(project=project) | Q(snapshot__in=snapshots)).count(),
        "evaluations": Evaluation.objects.filter(project=project).count(),
        "rerankers": Reranker.objects.filter(project=project).count(),
        "annotators": Annotator.objects.filter(project=project).count(),
        "members": Membership.objects.filter(project=project).count(),
    }
    return {key: found[key] for key in COUNT_LABELS if found.get(key)}


def own_snapshots(project: Project) -> list[int]:
    """The snapshots that hold scores of this project alone; those of several projects stay with the others."""
    through = Snapshot.projects.through.objects
    shared = through.exclude(project=project).values("snapshot")
    return list(through.filter(project=project).exclude(snapshot__in=shared).values_list("snapshot", flat=True))


def batches_out(runs: QuerySet[Run]) -> QuerySet[ProviderBatch]:
    """The batches of these runs whose providers still work on them. Those of `LONGEST_BATCH` ago have ended there."""
    recent = {"created_at__gt": Now() - LONGEST_BATCH}
    return ProviderBatch.objects.filter(run__in=runs, state__in=ProviderBatch.OUT, **recent)


# Jobs that move through runs, snapshots and trainings of their project.
MOVING = {"refine": "a refinement", "recipe": "a recipe"}


def refuse_unfinished_orders(project: Project) -> None:
    """Raise DeletionRefused while an order moves through runs, snapshots and trainings of the project."""
    unfinished = Job.objects.filter(project=project, stage__in=MOVING, state__in=[Job.State.OPEN, Job.State.LEASED])
    if (found := unfinished.order_by("-stage").first()) is not None:
        raise DeletionRefused(f"{MOVING[found.stage]} is unfinished; cancel it, or wait for its end, then delete")


def distillations_of(target: Target) -> list[Job]:
    """The unfinished distilled runs of which the target, runs or snapshots, is a part."""
    ids = set(target.ids)
    return [
        job
        for job in unfinished_jobs(target.project, DISTILLATION)
        if ids & ({job.payload.get("snapshot")} if target.kind == "snapshot" else {*job.payload["runs"].values()})
    ]


KINDS: Mapping[str, Kind] = {
    "query": Kind(
        gettext_noop("query"), Query, lambda project: Query.objects.filter(project=project),
        lambda row: row.external_id, _of_queries, "external_id",
    ),
    "document": Kind(
        gettext_noop("document"), Document, lambda project: Document.objects.filter(project=project),
        lambda row: row.external_id, _of_documents, "external_id",
    ),
    "candidate": Kind(
        gettext_noop("candidate"), Candidate,
        lambda project: Candidate.objects.filter(query__project=project).select_related("query", "document"),
        lambda row: f"{row.query.external_id} / {row.document.external_id}",
        lambda target: _of_candidates(Candidate.objects.filter(pk__in=target.ids)),
    ),
    "answers": Kind(
        gettext_noop("answers"), Annotator, lambda project: Annotator.objects.filter(project=project),
        lambda row: row.name, _of_answers, "name",
    ),
    "run": Kind(
        gettext_noop("run"), Run, lambda project: Run.objects.filter(project=project),
        lambda row: f"run {row.pk}", _of_runs,
    ),
    "snapshot": Kind(
        gettext_noop("snapshot"), Snapshot, lambda project: Snapshot.objects.filter(projects=project),
        lambda row: row.name, _of_snapshots, "name",
    ),
    "reranker": Kind(
        gettext_noop("reranker"), Reranker, lambda project: Reranker.objects.filter(project=project),
        lambda row: row.name, _of_rerankers, "name",
    ),
}  # fmt: skip
