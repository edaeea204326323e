"""The orders of rerankers against human grades, Elo and LLM grades: pairs of references, models, and what is missing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from labeling.models import Annotator, Candidate, ModelGrade, Project, RaterGrade, UnmatchedGrade, config_hash
from scoring.models import Score, Snapshot
from tests.factories.frozen import make_frozen, make_scored
from tests.factories.rows import make_judges
from trainer.evaluation.entries import BASE, enter_baselines, enter_run_file
from trainer.evaluation.leaderboard import evaluation_queries, snapshot_queries
from trainer.evaluation.llm_grades import grading_models, values_by_llm_grades
from trainer.evaluation.system_orders import PAIRS, NoSystemOrders, SystemOrders, all_system_orders, system_orders
from trainer.models import Reranker
from workers.jobs.evaluation import evaluate, order_evaluation

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

GRADES_AND_LLM = PAIRS[1]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"


@pytest.fixture
def project() -> Project:
    return make_scored(queries=18, documents=6)


def evaluated(project: Project, *, runs: int, seed: int = 0) -> Snapshot:
    """A snapshot on which the first stage, BM25, Elo and `runs` random runs are measured."""
    snapshot = make_frozen(project)
    rng = np.random.default_rng(seed)
    entered: list[Reranker] = []
    for number in range(runs):
        lines = [
            f"{query.id} Q0 {document} 1 {place * number / runs + rng.normal(0.0, 2.0):.4f} run\n"
            for query in evaluation_queries(snapshot, "test")
            for place, document in enumerate(query.document_ids)
        ]
        entered.append(enter_run_file(project, f"run {number}", io.BytesIO("".join(lines).encode())))
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=[*entered, *chosen]).pk)
    return snapshot


def grade_like_people(judge: Annotator, *, share: float = 1 / 3) -> None:
    """The judge gives each candidate `share` of the person's grade."""
    rows = Candidate.objects.filter(query__project=judge.project_id).values_list("pk", "grade")
    ModelGrade.objects.bulk_create(
        ModelGrade(annotator=judge, candidate_id=pk, value=grade * share) for pk, grade in rows if grade is not None
    )


@pytest.mark.parametrize(
    ("seed", "measure"), [(0, "ndcg@10"), (1, "recall@10"), (2, "map"), (3, "mrr"), (4, "ndcg_exp@3")]
)
def test_llm_grades_equal_to_peoples_grades_order_the_rerankers_alike(
    project: Project, seed: int, measure: str
) -> None:
    snapshot = evaluated(project, runs=5, seed=seed)
    grade_like_people(make_judges(project)[0])
    if measure == "recall@10":  # six candidates, so that every reranker finds all
        with pytest.raises(NoSystemOrders, match="the same Recall@10 against human grades, which orders nothing"):
            system_orders(project, snapshot, "test", pair=GRADES_AND_LLM, measure=measure)
        return
    found = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM, measure=measure)
    tau, r = found.agreement.kendall, found.agreement.pearson
    assert (tau.estimate, tau.low, tau.high) == (1.0, 1.0, 1.0)
    assert (r.estimate, r.low) == pytest.approx((1.0, 1.0))
    assert found.documents == (found.candidates, found.candidates)
    assert found.candidates == 6 * found.queries


def test_reversed_grades_reverse_the_order_and_elo_is_compared_too(project: Project) -> None:
    snapshot = evaluated(project, runs=5)
    judge = make_judges(project)[0]
    grade_like_people(judge)
    ModelGrade.objects.update(value=1.0 - F("value"))
    none, reversed_, with_elo = all_system_orders(project, snapshot, "test")
    assert isinstance(none, SystemOrders) and isinstance(reversed_, SystemOrders) and isinstance(with_elo, SystemOrders)
    assert [each.pair for each in (none, reversed_, with_elo)] == list(PAIRS)
    assert reversed_.agreement.kendall.estimate < 0.0 < none.agreement.kendall.estimate
    assert with_elo.agreement.kendall.estimate < 0.0
    assert (none.models, with_elo.models) == ((), (judge.name,))
    assert none.systems == reversed_.systems and not {"Elo", f"judge {judge.name}"} & set(none.systems)


def test_a_model_is_chosen_or_the_mean_of_those_that_graded_a_document(project: Project) -> None:
    snapshot = evaluated(project, runs=5)
    first, second = make_judges(project, 2)
    grade_like_people(first)
    grade_like_people(second)
    ModelGrade.objects.filter(annotator=second).update(value=1.0 - F("value"))
    one, two = (
        system_orders(project, snapshot, "test", pair=GRADES_AND_LLM, model=model) for model in (first.pk, second.pk)
    )
    assert one.agreement.kendall.estimate == 1.0 and two.agreement.kendall.estimate < 0.0
    with pytest.raises(NoSystemOrders, match="the same NDCG@10 against LLM grades"):
        system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)  # the mean of both is the same for all documents
    lone = ModelGrade.objects.filter(candidate__in=snapshot_queries(snapshot, "test")[0].candidate_ids[:1].tolist())
    lone.filter(annotator=second).delete()
    both = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
    assert both.documents == (both.candidates, both.candidates)
    names = tuple(f"{each.name} ({each.pk})" for each in (first, second))  # the two have one name
    assert (one.models, both.models) == (names[:1], names)
    lone.delete()
    found = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
    assert found.documents == (found.candidates, found.candidates - 1)


def test_imported_grades_of_models_count_beside_those_of_the_judge(project: Project) -> None:
    snapshot = evaluated(project, runs=5)
    model = Annotator.objects.create(project=project, name="gpt", plugin="imported", config_hash=config_hash(n=1))
    rows = Candidate.objects.filter(query__project=project, grade__isnull=False)
    names = ("query__external_id", "document__external_id", "grade")
    RaterGrade.objects.bulk_create(
        RaterGrade(annotator=model, query_external_id=query, document_external_id=document, grade=grade)
        for query, document, grade in rows.values_list(*names)
    )
    found = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
    assert (found.agreement.kendall.estimate, found.models) == (1.0, ("gpt",))
    assert found.agreement.pearson.estimate == pytest.approx(1.0)
    RaterGrade.objects.update(grade=25 * F("grade"))  # a scale of its own
    assert system_orders(project, snapshot, "test", pair=GRADES_AND_LLM).agreement.pearson.estimate > 0.99
    RaterGrade.objects.update(grade=F("grade") / 25)
    judge = make_judges(project)[0]
    grade_like_people(judge)
    ModelGrade.objects.update(value=1.0 - F("value"))
    with pytest.raises(NoSystemOrders, match="the same NDCG@10 against LLM grades"):
        system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)  # the mean of both is the same for all documents
    chosen = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM, model=model.pk)
    assert chosen.agreement.kendall.estimate == 1.0


def test_queries_without_llm_grades_do_not_count(project: Project) -> None:
    snapshot = evaluated(project, runs=3)
    grade_like_people(make_judges(project)[0])
    queries = snapshot_queries(snapshot, "test")
    ModelGrade.objects.filter(candidate__in=queries[0].candidate_ids.tolist()).delete()
    found = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
    assert found.queries == len(queries) - 1
    assert found.agreement.kendall.estimate == 1.0


def test_a_run_is_measured_by_its_ranks_on_the_queries_that_it_names(project: Project) -> None:
    """Documents that are not candidates take places of a run, and a missing candidate is not retrieved."""
    snapshot = make_frozen(project)
    queries = snapshot_queries(snapshot, "test")
    grade_like_people(make_judges(project)[0])
    lines = [
        f"{query.id} Q0 {name} 1 {score} t\n"
        for query in queries
        for name, score in (("elsewhere", 9), (query.document_ids[2], 8), ("nowhere", 7), (query.document_ids[4], 6))
    ]
    runs = {"all": lines, "none of the candidates": lines[::2], "the first": lines[1::4], "one query less": lines[:-4]}
    entered = [enter_run_file(project, name, io.BytesIO("".join(own).encode())) for name, own in runs.items()]
    evaluate(order_evaluation(project, snapshot, rerankers=entered).pk)
    found = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM, measure="ndcg@3")
    assert found.agreement.pearson.estimate == pytest.approx(1.0)
    assert found.systems == ("all", "none of the candidates", "the first")
    assert found.left_out == ("one query less",)


def test_imported_llm_grades_count_for_documents_of_runs_that_are_not_candidates(project: Project) -> None:
    """Otherwise a run that retrieves more than the candidates would seem worse to models than to people."""
    for number in range(18):
        UnmatchedGrade.objects.create(
            project=project, query_external_id=f"q{number}", document_external_id="elsewhere", grade=2
        )
    snapshot = make_frozen(project)
    queries = snapshot_queries(snapshot, "test")
    model = Annotator.objects.create(project=project, name="gpt", plugin="imported", config_hash=config_hash(n=1))
    lines = [f"{query.id} Q0 elsewhere 1 9 t\n" for query in queries]
    run = enter_run_file(project, "run", io.BytesIO("".join(lines).encode()))
    evaluate(order_evaluation(project, snapshot, rerankers=[run]).pk)
    for name, grade in (("elsewhere", 3), (queries[0].document_ids[0], 1)):
        RaterGrade.objects.create(
            annotator=model, query_external_id=queries[0].imported_id, document_external_id=name, grade=grade
        )
    measured = values_by_llm_grades(project, snapshot, "test", ["ndcg@10"]).values[run]
    assert measured.query_ids == (queries[0].id,)
    assert measured.values["ndcg@10"].tolist() == pytest.approx([3.0 / (3.0 + 1.0 / np.log2(3.0))])


def test_a_reranker_with_more_queries_than_all_others_does_not_exclude_them(project: Project) -> None:
    """Otherwise the only one left would be compared with nothing."""
    snapshot = make_frozen(project)
    queries = snapshot_queries(snapshot, "test")
    grade_like_people(make_judges(project)[0])
    rng = np.random.default_rng(0)

    def run(number: int, asked: int) -> Reranker:
        lines = [
            f"{query.id} Q0 {document} 1 {place * number + rng.normal(0.0, 2.0):.4f} t\n"
            for query in queries[:asked]
            for place, document in enumerate(query.document_ids)
        ]
        return enter_run_file(project, f"run {number}", io.BytesIO("".join(lines).encode()))

    assert len(queries) == 6
    entered = [run(0, len(queries)), *(run(number, 5) for number in (1, 2, 3)), run(4, 2)]
    evaluate(order_evaluation(project, snapshot, rerankers=entered).pk)
    found = system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
    assert found.systems == ("run 0", "run 1", "run 2", "run 3")
    assert (found.queries, found.left_out) == (5, ("run 4",))


def test_what_is_missing_is_named(project: Project) -> None:
    snapshot = make_frozen(project)

    def missing(**chosen: int) -> list[str]:
        found = all_system_orders(project, snapshot, "test", **chosen)
        return [each.missing if isinstance(each, NoSystemOrders) else "" for each in found]

    assert missing() == ["evaluation"] * 3
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=chosen).pk)
    assert missing() == ["rerankers", "llm_grades", "llm_grades"]
    judge = make_judges(project)[0]
    with pytest.raises(NoSystemOrders, match="start a run with the judge 'grade'"):
        system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
    grade_like_people(judge)
    with pytest.raises(NoSystemOrders, match=rf"choose one of {judge.pk} \({judge.name}\)"):
        system_orders(project, snapshot, "test", pair=GRADES_AND_LLM, model=0)
    ModelGrade.objects.update(value=0.0)
    assert missing() == ["rerankers", "llm_grades", "llm_grades"]


def test_a_project_without_human_grades_compares_elo_with_llm_grades(project: Project) -> None:
    judge = make_judges(project)[0]
    grade_like_people(judge)
    Candidate.objects.update(grade=None)
    snapshot = evaluated(project, runs=3)
    none, also_none, found = all_system_orders(project, snapshot, "test")
    assert isinstance(none, NoSystemOrders) and isinstance(also_none, NoSystemOrders)
    assert (none.missing, also_none.missing) == ("grades", "grades") and "import grades" in str(none)
    assert isinstance(found, SystemOrders) and found.pair == ("elo", "llm_grades")


def test_the_number_of_grades_and_documents_costs_no_further_queries(project: Project) -> None:
    snapshot = evaluated(project, runs=3)
    judges = make_judges(project, 3)
    grade_like_people(judges[0])

    def asked() -> int:
        with CaptureQueriesContext(connection) as queries:
            all_system_orders(project, snapshot, "test")
        assert not any(
            "JOIN" in each["sql"] and "labeling_modelgrade" in each["sql"] for each in queries.captured_queries
        )
        return len(queries)

    few = asked()
    for judge in judges[1:]:
        grade_like_people(judge)
    assert [each.pk for each in grading_models(project)] == [each.pk for each in judges]
    assert asked() == few
    ModelGrade.objects.update(value=0.0)
    assert asked() < few, "that there is none is found out once"


def test_grades_of_another_projects_judge_do_not_count(project: Project) -> None:
    """A snapshot may hold queries of several projects; a reader of one need not see the other."""
    snapshot = evaluated(project, runs=3)
    grade_like_people(make_judges(project)[0])
    other = Project.objects.create(name="other", slug="other")
    Annotator.objects.update(project=other)
    assert Score.objects.filter(candidate__query__project=project).exists()
    with pytest.raises(NoSystemOrders, match="no LLM grades"):
        system_orders(project, snapshot, "test", pair=GRADES_AND_LLM)
