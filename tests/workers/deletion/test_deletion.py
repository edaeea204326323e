"""Deletion of queries, documents, candidates, answers, runs, snapshots and rerankers: what goes, and what follows."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db.models.functions import Now
from django.utils import timezone

from labeling.access.annotators import get_person
from labeling.models import (
    Annotator,
    AuditEntry,
    Candidate,
    Document,
    Judgment,
    Pair,
    Project,
    Query,
    RaterGrade,
    SpotCheck,
    UnmatchedGrade,
)
from scoring.models import QueryFit, Score, Snapshot
from scoring.rating import rate_stale
from scoring.storage.files import storage
from tests.factories.frozen import make_scored
from tests.factories.rows import judge_pair as judge
from tests.factories.rows import (
    make_judges,
    make_member,
    make_pair,
    make_project,
    make_query_with_documents,
    make_run,
    make_user,
)
from tests.factories.scored import stored_snapshot
from trainer.models import Evaluation, Reranker, TrainingRun
from workers.budgets.spend import totals_of_project
from workers.deletion import job as jobs
from workers.deletion.orders import delete, delete_answers
from workers.deletion.targets import COUNT_LABELS, DeletionRefused, UnknownTarget, find_target
from workers.deletion.walk import Slices, Walk, clears, relations
from workers.judging.provider_batches.following import due_batches
from workers.models import Attempt, Job, JudgingTask, ProviderBatch, Run, Spend

# Fits read in transactions of their own.
REAL = pytest.mark.django_db(transaction=True)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def owner() -> Any:
    return make_user()


def judged(owner: Any, *, queries: int = 2, skipped: int | None = None) -> tuple[Project, list[Annotator]]:
    """A fitted project: two judges and both neighbours of each candidate; the candidate at `skipped` was never there."""
    project = make_project(owner=owner)
    judges = make_judges(project, 2)
    for number in range(queries):
        query = Query.objects.create(project=project, external_id=f"q{number}", text=f"question {number}")
        rows = []
        for place in range(5):
            if (number, place) == (0, skipped):
                rows.append(None)
                continue
            document = Document.objects.create(
                project=project, external_id=f"q{number}-d{place}", text="w " * (place + 1)
            )
            rows.append(
                Candidate.objects.create(query=query, document=document, first_stage_rank=place + 1, grade=place % 3)
            )
        for a in range(5):
            for b in range(a + 1, 5):
                if rows[a] is None or rows[b] is None:
                    continue
                pair = Pair.objects.create(a=rows[a], b=rows[b], query=query)
                for each, annotator in enumerate(judges):
                    judge(pair, annotator, 0.3 + 0.05 * (b - a) + 0.1 * each)
    rate_stale(project.pk)
    return project, judges


def scores(
    project: Project, *, fields: tuple[str, ...] = ("theta", "stderr", "comparisons")
) -> dict[tuple[str, str], Any]:
    rows = Score.objects.filter(candidate__query__project=project)
    keys = ("candidate__query__external_id", "candidate__document__external_id")
    return {row[:2]: row[2:] for row in rows.values_list(*keys, *fields)}


def test_every_foreign_key_is_followed_or_cleared() -> None:
    """A walk deletes PROTECT and RESTRICT too, so no key may do something else, and each cleared one may be empty."""
    known = {"CASCADE", "PROTECT", "RESTRICT", "SET_NULL"}
    for model in apps.get_models():
        for relation in relations(model):
            assert relation.on_delete.__name__ in known, relation
            assert relation.field.null or not clears(relation), relation
            assert relation.field.target_field.primary_key, relation


@REAL
def test_a_deleted_query_takes_all_that_hangs_on_it_and_nothing_else(owner: Any) -> None:
    project, _ = judged(owner)
    other, _ = judged(owner)
    UnmatchedGrade.objects.create(project=project, query_external_id="q0", document_external_id="elsewhere", grade=2)
    before, elsewhere = scores(project), scores(other)
    target = find_target(project, "query", "q0")
    assert target.counted() == {
        "queries": 1, "candidates": 5, "pairs": 10, "judgments_of_judges": 20, "grades": 6,
    }  # fmt: skip
    job = delete(target, by=owner)
    assert (job.state, job.error) == (Job.State.FINISHED, "")
    assert str(job.message).startswith("q0 deleted: ")
    assert not QueryFit.objects.filter(query__external_id="q0", query__project=project).exists()
    assert not UnmatchedGrade.objects.filter(project=project).exists()
    rate_stale(project.pk)
    assert scores(project) == {key: row for key, row in before.items() if key[0] == "q1"}
    assert scores(other) == elsewhere
    assert Document.objects.filter(project=project).count() == 10, "documents are a corpus of their own"
    entry = AuditEntry.objects.get(action="query.deleted")
    assert (entry.actor, entry.subject, entry.details["judgments_of_judges"]) == (owner, "q0", 20)


@REAL
@pytest.mark.parametrize("kind", ["candidate", "document"])
def test_scores_are_those_of_a_project_that_never_had_the_document(owner: Any, kind: str) -> None:
    project, _ = judged(owner)
    fresh, _ = judged(owner, skipped=2)
    document = Document.objects.get(project=project, external_id="q0-d2")
    wanted = document.pk if kind == "document" else document.candidates.get().pk
    delete(find_target(project, kind, wanted), by=owner)
    rate_stale(project.pk)
    assert scores(project) == scores(fresh)
    assert Document.objects.filter(pk=document.pk).exists() == (kind == "candidate")


@REAL
def test_scores_are_those_of_a_project_without_the_judge(owner: Any) -> None:
    project, judges = judged(owner)
    delete_answers(judges[1], by=owner)
    rate_stale(project.pk)
    pairs = {row[1] for row in scores(project).values()}
    assert Judgment.objects.filter(annotator=judges[1]).count() == 0
    assert {row[2] for row in scores(project).values()} == {4} and len(pairs) >= 1
    assert Annotator.objects.filter(pk=judges[1].pk).exists()
    delete_answers(judges[0], by=owner)
    rate_stale(project.pk)
    assert {row[2] for row in scores(project).values()} == {0}, "no answers, no comparisons"
    assert all(math.isfinite(row[0]) for row in scores(project).values())


@REAL
def test_a_persons_assignments_are_free_again(owner: Any) -> None:
    project, _ = judged(owner, queries=1)
    member = make_member(project, "annotator")
    person = get_person(project, member)
    pair = Pair.objects.filter(query__project=project).first()
    assert pair is not None
    judge(pair, person, 0.9)
    check = SpotCheck.objects.create(
        pair=pair, holder=person, judgment=Judgment.objects.get(annotator=person), seconds=3.0
    )
    delete_answers(person, by=owner)
    check.refresh_from_db()
    assert (check.holder, check.judgment, check.seconds) == (None, None, None)


def test_a_deleted_run_leaves_answers_and_spend(owner: Any) -> None:
    project = make_project(owner=owner, queries=1, documents=4)
    run = make_run(project, sampler="all")
    for task in JudgingTask.objects.filter(run=run)[:3]:
        Attempt.objects.create(
            task_id=task.pk, fence=1, run=run, annotator_id=task.annotator_id, outcome="preference", input_tokens=7,
            output_tokens=2, cost_micros=5,
        )  # fmt: skip
        judge(task.pair, task.annotator)
    before = totals_of_project(project.pk)
    assert before.calls == 3
    delete(find_target(project, "run", run.pk), by=owner)
    assert not Run.objects.filter(pk=run.pk).exists()
    assert not Spend.objects.filter(run=run.pk).exists()
    assert totals_of_project(project.pk) == before
    assert Judgment.objects.filter(annotator__project=project).count() == 3
    actions = list(AuditEntry.objects.filter(project=project).values_list("action", flat=True)[:2])
    assert actions == ["run.deleted", "run.cancelled"]


def test_a_deleted_snapshot_takes_trainings_evaluations_and_files(owner: Any) -> None:
    project = make_scored()
    snapshot, kept = stored_snapshot(project), stored_snapshot(project)
    training = TrainingRun.objects.create(project=project, snapshot=snapshot, trainer="x")
    reranker = Reranker.objects.create(project=project, name="r", kind="trained", training_run=training)
    Evaluation.objects.create(project=project, snapshot=snapshot, reranker=reranker, split="test", reference="grades")
    target = find_target(project, "snapshot", snapshot.pk)
    assert target.counted() == {"snapshots": 1, "training_runs": 1, "evaluations": 1}
    delete(target, by=owner)
    assert not storage().names(snapshot.location) and storage().names(kept.location)
    reranker.refresh_from_db()
    assert reranker.training_run is None
    Reranker.objects.filter(pk=reranker.pk).update(name="Winter · listwise 2")
    for name in ("Winter · listwise 2", "winter-listwise-2", f"{project.slug}/winter-listwise-2"):
        assert find_target(project, "reranker", name).ids == (reranker.pk,)
    delete(find_target(project, "reranker", reranker.pk), by=owner)
    assert not Reranker.objects.filter(project=project).exists()


def test_a_frozen_snapshot_stays_as_it_is(owner: Any) -> None:
    project = make_scored()
    snapshot = stored_snapshot(project)
    rows = storage().read_bytes(f"{snapshot.location}/{storage().names(snapshot.location)[0]}")
    delete(find_target(project, "query", "q1"), by=owner)
    again = Snapshot.objects.get(pk=snapshot.pk)
    assert (again.checksum, again.rows) == (snapshot.checksum, snapshot.rows)
    assert storage().read_bytes(f"{snapshot.location}/{storage().names(snapshot.location)[0]}") == rows


def test_a_shared_snapshot_and_an_unknown_target_are_refused(owner: Any) -> None:
    project, other = make_scored(), make_project(owner=owner)
    snapshot = stored_snapshot(project)
    snapshot.projects.add(other)
    with pytest.raises(DeletionRefused, match="several projects"):
        delete(find_target(other, "snapshot", snapshot.pk), by=owner)
    for kind, wanted in (("query", "q\x00"), ("query", "no such"), ("query", 10**9), ("nothing", 1), ("run", "9" * 30)):
        with pytest.raises(UnknownTarget):
            find_target(other, kind, wanted)


@REAL
def test_a_large_target_waits_for_a_worker_which_may_die(owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project, _ = judged(owner)
    monkeypatch.setattr("workers.deletion.orders.AT_ONCE", 3)
    monkeypatch.setattr("workers.deletion.walk.SLICE", 7)
    job = delete(find_target(project, "query", "q0"), by=owner)
    assert job.state == Job.State.OPEN and jobs.waiting_deletion_ids() == [job.pk]

    class Killed(BaseException):
        pass

    def die(self: Walk, *args: Any) -> None:
        if self.done > 10:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "_clear_way", lambda self, *args: (die(self), clear_way(self, *args))[1])
        with pytest.raises(Killed):
            jobs.carry_out_deletion(job.pk, worker="dies")
    assert Query.objects.filter(project=project, external_id="q0").exists()
    assert Judgment.objects.filter(pair__query__external_id="q0", pair__query__project=project).count() < 20
    Job.objects.filter(pk=job.pk).update(lease_until="2020-01-01T00:00Z")
    jobs.carry_out_deletion(job.pk, worker="next")
    job.refresh_from_db()
    assert job.state == Job.State.FINISHED, job.error
    assert not Query.objects.filter(project=project, external_id="q0").exists()
    assert job.done <= job.total


clear_way = Walk._clear_way


def test_each_count_has_a_label() -> None:
    assert all(label for label in COUNT_LABELS.values())


def test_a_query_that_a_run_asks_about_is_left_out_of_it(owner: Any) -> None:
    project = make_project(owner=owner)
    first, second = (make_query_with_documents(project) for _ in range(2))
    run = make_run(project, sampler="all", query_ids=[first.pk, second.pk])
    delete(find_target(project, "query", first.pk), by=owner)
    run.refresh_from_db()
    assert run.state == Run.State.JUDGING
    assert set(JudgingTask.objects.filter(run=run).values_list("pair__query", flat=True)) == {second.pk}
    assert make_pair(second).pk


def test_grades_follow_from_the_raters_that_stay(owner: Any) -> None:
    project = make_project(owner=owner, queries=1)
    query = project.queries.get()
    candidate = query.candidates.order_by("pk").first()
    assert candidate is not None
    raters = [get_person(project, make_user()) for _ in range(3)]
    places = (candidate.document.external_id, "elsewhere")
    for rater, grade in zip(raters, (3, 1, 2), strict=True):
        for place in places:
            RaterGrade.objects.create(
                annotator=rater, query_external_id=query.external_id, document_external_id=place, grade=grade
            )
    Candidate.objects.filter(pk=candidate.pk).update(grade=2)
    UnmatchedGrade.objects.create(
        project=project, query_external_id=query.external_id, document_external_id="elsewhere", grade=2
    )
    for rater, expected in zip(raters, (1, 2, None), strict=True):
        assert find_target(project, "answers", rater.pk).counted() == {"rater_grades": 2}
        delete_answers(rater, by=owner)
        candidate.refresh_from_db()
        unmatched = UnmatchedGrade.objects.filter(project=project).values_list("grade", flat=True).first()
        assert (candidate.grade, unmatched) == (expected, expected)


def batch_of(run: Run, annotator: Annotator, **values: Any) -> ProviderBatch:
    """A batch that is at its provider."""
    given = {"endpoint": "e", "model": "m", "requests": 3, "state": "running", "batch_id": f"b-{run.pk}", **values}
    return ProviderBatch.objects.create(run=run, annotator=annotator, **given)


def ended(batch: ProviderBatch) -> None:
    ProviderBatch.objects.filter(pk=batch.pk).update(state="cancelled", finished_at=Now())


def test_a_run_is_deleted_once_its_batches_have_come_back(owner: Any) -> None:
    project = make_project(owner=owner, queries=1, documents=4)
    run = make_run(project, sampler="all")
    batch = batch_of(run, run.judges.all()[0])
    target = find_target(project, "run", run.pk)
    assert target.counted()["batches"] == 1
    job = delete(target, by=owner, wait=True)
    assert (job.state, str(job.message)) == (
        Job.State.OPEN, "waits until its batches at the provider are cancelled: 1 left",
    )  # fmt: skip
    assert list(due_batches()) == [batch], "a worker cancels it at its provider, since the run is cancelled"
    assert jobs.waiting_deletion_ids() == []
    jobs.carry_out_deletion(job.pk, worker="too early")
    job.refresh_from_db()
    assert job.state == Job.State.OPEN and Run.objects.get(pk=run.pk).state == Run.State.CANCELLED
    ended(batch)
    assert jobs.waiting_deletion_ids() == [job.pk]
    jobs.carry_out_deletion(job.pk, worker="next")
    assert not Run.objects.filter(pk=run.pk).exists()


def test_a_batch_that_nobody_reports_any_more_keeps_no_deletion_waiting(owner: Any) -> None:
    project = make_project(owner=owner, queries=1, documents=4)
    run = make_run(project, sampler="all")
    batch_of(run, run.judges.all()[0], created_at=timezone.now() - timedelta(days=3))
    assert delete(find_target(project, "run", run.pk), by=owner).state == Job.State.FINISHED


def test_a_distilled_run_is_cancelled_with_its_run_or_snapshot_alone(owner: Any) -> None:
    project = make_scored()
    snapshot, other = stored_snapshot(project), stored_snapshot(project)
    panel, another = make_run(project, sampler="all"), make_run(project, sampler="all")
    for kind, spared, part in (("run", another, panel), ("snapshot", other, snapshot)):
        payload = {"stage": "train", "runs": {"panel": panel.pk}, "snapshot": snapshot.pk}
        distilled = Job.objects.create(project=project, stage="distill", payload=payload)
        assert delete(find_target(project, kind, spared.pk), by=owner).state == Job.State.FINISHED
        distilled.refresh_from_db()
        assert distilled.state == Job.State.OPEN
        assert find_target(project, kind, part.pk).counted()["distilled_runs"] == 1
        assert delete(find_target(project, kind, part.pk), by=owner).state == Job.State.FINISHED
        distilled.refresh_from_db()
        assert distilled.state == Job.State.CANCELLED
    assert AuditEntry.objects.filter(action="distillation.cancelled").count() == 2


def test_slices_shrink_where_a_table_is_slow_and_grow_where_it_is_fast() -> None:
    slices = Slices()
    sizes = []
    for seconds in (0.5, 0.5, 5.0, 0.001, 0.001, 0.02):
        slices.took(Query, slices.size(Query), seconds)
        sizes.append(slices.size(Query))
    assert sizes == [20, 10, 10, 20, 40, 80] and slices.longest_s == 5.0
    slices.took(Query, 3, 0.001)
    assert slices.size(Query) == 80, "a slice that was not full shows nothing"
    assert slices.size(Document) == 200, "each table has a size of its own"
