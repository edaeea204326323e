"""Queries of run files and of a student's gains: those of the project itself, whatever other projects name theirs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Candidate, Membership, Project, Query
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from tests.factories.frozen import a_run, make_frozen, make_scored
from tests.factories.rows import make_user
from trainer.evaluation import entries
from trainer.evaluation.entries import enter_run_file
from trainer.evaluation.leaderboard import evaluation_queries, leaderboard, record_evaluation
from trainer.evaluation.metrics import NothingToMeasure
from trainer.evaluation.rank_changes import student_gains
from trainer.evaluation.rankers import Elo, FirstStage
from trainer.models import Evaluation, Reranker, TrainingRun
from workers.jobs.evaluation import evaluate, order_evaluation
from workers.models import Job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"


def evaluated(project: Project, snapshot: Snapshot, split: str = "test", *, rerankers: list[Reranker]) -> Job:
    job = order_evaluation(project, snapshot, split, rerankers=rerankers)
    evaluate(job.pk)
    job.refresh_from_db()
    return job


def test_a_run_ranks_no_query_of_another_project_that_has_the_id_of_its_own() -> None:
    """Both projects have q0, q1 ..., and the other's are alone in their split, where their ids need no project."""
    project, other = make_scored(), make_scored(domains=("elsewhere",))
    for query in other.queries.all():
        Query.objects.filter(pk=query.pk).update(text=f"other {query.text}")
    Query.objects.filter(project=other, external_id="q3").update(external_id="only-there")
    options = SnapshotOptions(test_share=0.0, heldout_domains=["elsewhere"], shared_documents="keep")
    snapshot = freeze([project, other], name="mixed", options=options)
    assert {query.id for query in evaluation_queries(snapshot, "heldout")} >= {"q0", "q1"}
    run = b"".join(b"q%d Q0 d%d-%d 1 %d today\n" % (n, n, d, d) for n in range(12) for d in range(8))
    own = enter_run_file(project, "own ids", io.BytesIO(run))
    assert "scored no query" in evaluated(project, snapshot, "heldout", rerankers=[own]).error
    named = b"q0 Q0 d0-1 1 1 today\nonly-there Q0 d3-1 1 1 today\n%s/q1 Q0 d1-1 1 1 today\n" % other.slug.encode()
    both = enter_run_file(project, "named", io.BytesIO(named))
    evaluated(project, snapshot, "heldout", rerankers=[both])
    values = Evaluation.objects.get(reranker=both, reference="grades").metrics["values"]
    assert values["query_ids"] == ["only-there", "q1"]


def test_a_run_finds_ids_that_begin_with_the_name_of_the_project() -> None:
    project = make_scored()
    for query in project.queries.all():
        Query.objects.filter(pk=query.pk).update(external_id=f"{project.slug}/{query.external_id}")
    snapshot = make_frozen(project)
    entered = enter_run_file(project, "today", io.BytesIO(a_run(snapshot)))
    evaluated(project, snapshot, rerankers=[entered])
    matched = leaderboard(project, snapshot, "test", "grades").rows[0].matched
    assert matched is not None and matched.queries == matched.of_queries > 0


def test_gains_of_a_student_are_those_to_its_own_base(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    run = TrainingRun.objects.create(
        project=project, snapshot=snapshot, trainer="pointwise", state="finished", options={"base": "own"}
    )
    student = Reranker.objects.create(project=project, kind="trained", name="student", training_run=run)
    bases = [
        Reranker.objects.create(project=project, kind=entries.BASE, name=name, location=name)
        for name in ("own", "another")
    ]
    orders = {student.name: Elo(), "own": FirstStage(), "another": Elo()}
    monkeypatch.setattr("workers.jobs.evaluation.order_of", lambda reranker, queries: orders[reranker.name])
    for each in (student, *bases):
        evaluated(project, snapshot, rerankers=[each])
    gains = student_gains(project)
    assert len(gains) == len(evaluation_queries(snapshot, "test")) and max(gains.values()) > 0.1


def test_gains_of_a_student_are_those_on_queries_of_its_project(monkeypatch: pytest.MonkeyPatch) -> None:
    project, other = make_scored(), make_scored(domains=("elsewhere",))
    for query in other.queries.all():
        Query.objects.filter(pk=query.pk).update(text=f"other {query.text}")
    options = SnapshotOptions(test_share=0.0, heldout_domains=["elsewhere"], shared_documents="keep")
    snapshot = freeze([project, other], name="mixed", options=options)
    student = Reranker.objects.create(project=project, kind="trained", name="student")
    base = Reranker.objects.create(project=project, kind=entries.BASE, name="base", location="minilm")
    orders = {student.name: Elo(), base.name: FirstStage()}
    monkeypatch.setattr("workers.jobs.evaluation.order_of", lambda reranker, queries: orders[reranker.name])
    evaluated(project, snapshot, "heldout", rerankers=[student, base])
    assert student_gains(project) == {}


def test_gains_and_texts_are_those_of_the_query_whatever_its_id_reads_like(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    """Ids that two projects share, and one that reads like such an id with its project before it."""
    project, other, owner = make_scored(), make_scored(), make_user("owner")
    for own in (project, other):
        Membership.objects.create(project=own, user=owner, role="owner")
        for query in own.queries.all():
            Query.objects.filter(pk=query.pk).update(text=f"{own.slug} {query.text}")
    first, second, *_ = other.queries.order_by("pk")
    Query.objects.filter(pk=second.pk).update(external_id=f"{project.slug}/{first.external_id}")
    options = SnapshotOptions(test_share=0.0, dev_share=0.0, shared_documents="keep", heldout_domains=["d"])
    for own in (project, other):
        own.queries.exclude(external_id="q11").update(domain="d")
    snapshot = freeze([project, other], name="mixed", options=options)
    queries = evaluation_queries(snapshot, "heldout")
    assert len({query.id for query in queries}) == len(queries) == 22
    student = Reranker.objects.create(project=project, kind="trained", name="student")
    base = Reranker.objects.create(project=project, kind=entries.BASE, name="base", location="minilm")
    orders = {student.name: Elo(), base.name: FirstStage()}
    monkeypatch.setattr("workers.jobs.evaluation.order_of", lambda reranker, queries: orders[reranker.name])
    evaluated(project, snapshot, "heldout", rerankers=[student, base])
    gains = student_gains(project)
    assert set(gains) <= set(project.queries.values_list("external_id", flat=True)) and len(gains) > 5
    client.force_login(owner)
    address = reverse("moved", args=[project.slug])
    shown = client.get(
        f"{address}?from={base.pk}&to={student.pk}&snapshot={snapshot.pk}&split=heldout&reference=grades"
    ).context["parts"]
    texts = {query.id: query.text for query in queries}
    rows = [row for part in shown for row in part["rows"]]
    assert len(rows) > 10 and all(texts[row["moved"].query_id] == row["text"] for row in rows)


def test_gains_of_ids_that_begin_with_the_name_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_scored()
    for query in project.queries.all():
        Query.objects.filter(pk=query.pk).update(external_id=f"{project.slug}/{query.external_id}")
    snapshot = make_frozen(project)
    student = Reranker.objects.create(project=project, kind="trained", name="student")
    base = Reranker.objects.create(project=project, kind=entries.BASE, name="base", location="minilm")
    orders = {student.name: Elo(), base.name: FirstStage()}
    monkeypatch.setattr("workers.jobs.evaluation.order_of", lambda reranker, queries: orders[reranker.name])
    evaluated(project, snapshot, rerankers=[student, base])
    gains = student_gains(project)
    assert gains and set(gains) <= set(project.queries.values_list("external_id", flat=True))


def test_no_figures_of_earlier_scores_stay_beside_new_ones() -> None:
    """Such as those of a judge whose answers about graded queries were withdrawn."""
    project = make_scored()
    Candidate.objects.filter(query__external_id__in=["q8", "q9"]).update(grade=None)
    snapshot = make_frozen(project)
    queries = evaluation_queries(snapshot, "test")
    reranker = Reranker.objects.create(project=project, kind="judge", name="judge")
    record_evaluation(reranker, snapshot, "test", queries=queries, scores=[query.elo for query in queries])
    assert {each.reference for each in reranker.evaluations.all()} == {"grades", "elo"}
    fewer = [np.full_like(query.elo, np.nan) if query.says("grades") else query.elo for query in queries]
    record_evaluation(reranker, snapshot, "test", queries=queries, scores=fewer)
    assert [each.reference for each in reranker.evaluations.all()] == ["elo"]
    with pytest.raises(NothingToMeasure):
        record_evaluation(reranker, snapshot, "test", queries=queries, scores=[own * np.nan for own in fewer])
    assert not reranker.evaluations.exists()
