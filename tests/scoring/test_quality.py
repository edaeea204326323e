"""How orders agree with grades: first stage, each judge alone, Elo."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.access.annotators import get_person
from labeling.models import Project, UnmatchedGrade
from scoring.columns import only, read_columns
from scoring.quality import graded_queries, ranking_quality
from scoring.rating import rate_stale
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_query_with_documents, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def judge_all_pairs(project: Project, *, number: int, preference: float, documents: int = 4) -> None:
    judge = make_judges(project, number + 1)[number]
    for query in project.queries.all():
        for a in range(documents):
            for b in range(a + 1, documents):
                judge_pair(make_pair(query, a, b), judge, preference)


@pytest.fixture
def project() -> Project:
    """Two graded queries and an ungraded one; grades grow with the place, so the first stage has them backwards."""
    project = make_project()
    for grades in ((0, 1, 2, 3), (0, 0, 0, 1), ()):
        make_query_with_documents(project, 4, grades=grades)
    return project


def test_orders_are_measured_on_graded_queries(project: Project) -> None:
    judge_all_pairs(project, number=0, preference=0.1)
    judge_all_pairs(project, number=1, preference=0.6)
    rate_stale(project.pk)
    found = {each.order: each for each in ranking_quality(project)}
    assert list(found) == ["first stage", "judge Prefers the longer", "judge Prefers the longer (2)", "Elo"]
    assert {each.queries for each in found.values()} == {2}
    assert found["judge Prefers the longer"].ndcg.estimate == pytest.approx(1.0)
    assert found["Elo"].ndcg.estimate == pytest.approx(1.0), "the surer judge outweighs the other"
    assert found["first stage"].ndcg.estimate == pytest.approx(found["judge Prefers the longer (2)"].ndcg.estimate)
    # By hand: gains 0 1 2 3 in that order, and 0 0 0 1.
    discounts = 1.0 / np.log2(np.arange(2, 6))
    first = float(np.dot([0, 1, 2, 3], discounts) / np.dot([3, 2, 1, 0], discounts))
    assert found["first stage"].ndcg.estimate == pytest.approx((first + discounts[3]) / 2)


def test_a_relevant_document_that_is_no_candidate_lowers_the_measure(project: Project) -> None:
    before = ranking_quality(project)[0].ndcg.estimate
    query = project.queries.order_by("id")[0]
    UnmatchedGrade.objects.create(
        project=project, query_external_id=query.external_id, document_external_id="elsewhere", grade=3
    )
    gains, ideal = [0, 1, 2, 3], [3, 3, 2, 1]
    discounts = 1.0 / np.log2(np.arange(2, 6))
    with_it = float(np.dot(gains, discounts) / np.dot(ideal, discounts))
    without = float(np.dot(gains, discounts) / np.dot([3, 2, 1, 0], discounts))
    assert ranking_quality(project)[0].ndcg.estimate == pytest.approx(before - (without - with_it) / 2)


def test_a_run_of_some_queries_is_measured_on_these(project: Project) -> None:
    """Judged are the first query, and by one of the judges the second one too."""
    both = make_query_with_documents(project, 4, grades=(0, 0, 2, 0))
    first, second = make_judges(project, 2)
    queries = list(project.queries.order_by("id"))
    for query, judges in ((queries[0], (first, second)), (both, (second,))):
        for a in range(4):
            for b in range(a + 1, 4):
                for judge in judges:
                    judge_pair(make_pair(query, a, b), judge, 0.1)
    rate_stale(project.pk)
    found = {each.order: each for each in ranking_quality(project)}
    assert {name: each.queries for name, each in found.items()} == {
        "first stage": 2, "judge Prefers the longer": 1, "judge Prefers the longer (2)": 2, "Elo": 2
    }  # fmt: skip
    assert {each.of_queries for each in found.values()} == {3}
    assert found["judge Prefers the longer"].ndcg.estimate == pytest.approx(1.0)
    assert found["Elo"].ndcg.estimate == pytest.approx((1.0 + 1.0 / np.log2(3)) / 2)


def test_without_grades_there_is_nothing_to_show() -> None:
    assert ranking_quality(make_project(queries=2)) == []


def test_a_query_counts_where_a_grade_is_positive(project: Project) -> None:
    make_query_with_documents(project, 3, grades=(0, 0, 0))
    assert len(graded_queries(project.pk)) == 2


def test_before_the_first_answer_only_the_first_stage_is_known(project: Project) -> None:
    assert [each.order for each in ranking_quality(project)] == ["first stage"]


def test_a_judge_whose_answers_cannot_be_fitted_alone_is_left_out(project: Project) -> None:
    """Connected together, islands apart: with `rotate` that is the rule."""
    Project.objects.filter(pk=project.pk).update(rater_options={"require_connected": True})
    project.refresh_from_db()
    first, second = make_judges(project, 2)
    for query in project.queries.all():
        judge_pair(make_pair(query, 0, 1), first)
        judge_pair(make_pair(query, 2, 3), first)
        for b in (1, 2, 3):
            judge_pair(make_pair(query, 0, b), second)
    rate_stale(project.pk)
    assert [each.order for each in ranking_quality(project)] == ["first stage", "judge Prefers the longer", "Elo"]


def test_a_person_who_answered_a_few_pairs_is_no_order(project: Project) -> None:
    """Nearly all of their documents would be tied; with answers on most of them they stand there by name."""
    person = get_person(project, make_user("owner"))
    judge_all_pairs(project, number=0, preference=0.1)
    query = project.queries.earliest("id")
    judge_pair(make_pair(query, 0, 1), person, 0.1)
    rate_stale(project.pk)
    assert [each.order for each in ranking_quality(project)] == ["first stage", "judge Prefers the longer", "Elo"]
    for each in project.queries.all():
        for b in (1, 2):
            judge_pair(make_pair(each, b, b + 1), person, 0.1)
    rate_stale(project.pk)
    found = {each.order: each.is_person for each in ranking_quality(project)}
    assert found == {"first stage": False, "judge Prefers the longer": False, "owner": True, "Elo": False}


def test_columns_of_some_rows_keep_their_queries(project: Project) -> None:
    judge_all_pairs(project, number=0, preference=0.1)
    judge_all_pairs(project, number=1, preference=0.6)
    columns = read_columns(list(project.queries.values_list("id", flat=True))).columns
    mine = only(columns, columns.judge == 1)
    assert np.diff(mine.offsets).tolist() == [6, 6, 6]
    assert set(mine.preference) == {0.6}
    assert mine.sizes.tolist() == columns.sizes.tolist()
