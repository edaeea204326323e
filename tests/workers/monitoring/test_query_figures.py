"""Figures of queries: what they measure, and which queries are measured again."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.functions import Now

from labeling.models import Candidate, DatasetImport, Project, Query
from scoring.models import QueryFit
from scoring.quality import graded_queries
from tests.factories.pages import candidates_of, judge, make_judge, make_pair, make_project, make_query, make_run, score
from workers.models import QueryFigures
from workers.monitoring.query_figures import measure_stale, refresh_some, stale_queries

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture
def query(project: Project) -> Query:
    """Three documents; two judges answer the first pair, one of them the second pair as well."""
    query = make_query(project)
    a, b, c = candidates_of(query)
    first, second = make_judge(project), make_judge(project, name="BM25", plugin="bm25")
    judge(make_pair(a, b), first, 0.9)
    judge(Query.objects.get(pk=query.pk).pairs.get(), second, 0.4)
    judge(make_pair(b, c), first, 0.7)
    score(query, [1.0, 0.0, -1.0])
    Candidate.objects.filter(pk=c.pk).update(grade=1)
    return query


def spend(query: Query, micros: int) -> None:
    run, annotator = make_run(query.project), query.project.annotators.order_by("id").first()
    assert annotator is not None
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workers_spend (run_id, annotator_id, shard, calls, in_flight, lost, answers, answer_tokens, "
            "answer_cost_micros, unreached, input_tokens, output_tokens, cost_micros) "
            "VALUES (%s, %s, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, %s)",
            [run.pk, annotator.pk, micros],
        )


def test_figures_of_a_query(query: Query) -> None:
    spend(query, 900)
    assert not measure_stale(query.project_id)
    figures = QueryFigures.objects.get(query=query)
    assert figures.ndcg == pytest.approx(0.5)  # the only relevant document is third: 1 / log2(4)
    assert figures.certainty == 1.0  # three documents are all among the top ten
    assert figures.disagreement == pytest.approx(0.5)
    assert figures.spend_micros == 900
    assert figures.gain is None


def test_a_query_without_answers_has_no_figures(project: Project) -> None:
    make_query(project)
    assert stale_queries(project.pk) == []


def test_only_changed_queries_are_measured_again(query: Query) -> None:
    measure_stale(query.project_id)
    assert stale_queries(query.project_id) == []
    QueryFit.objects.update(fitted_at=Now())
    assert stale_queries(query.project_id) == [query.pk]
    measure_stale(query.project_id)
    DatasetImport.objects.create(project=query.project, file="grades", importer="qrels", summary="")
    assert stale_queries(query.project_id) == [query.pk]


def test_few_queries_are_measured_at_once_and_many_by_a_worker(
    project: Project, query: Query, sent_hints: list[tuple[str, int]]
) -> None:
    assert refresh_some(project) == 0
    assert QueryFigures.objects.filter(query=query).exists()
    for _ in range(51):
        score(make_query(project, size=2), [1.0, 0.0])
    assert refresh_some(project) == 51
    assert sent_hints == [("measure", project.pk)]
    assert QueryFigures.objects.count() == 1
    measure_stale(project.pk)
    assert QueryFigures.objects.count() == 52


def test_grades_of_chosen_queries_are_those_of_all(query: Query) -> None:
    other = make_query(query.project)
    Candidate.objects.filter(query=other).update(grade=2)
    every = {each.query_id: each.grades.tolist() for each in graded_queries(query.project_id)}
    assert every == {query.pk: [0, 0, 1], other.pk: [2, 2, 2]}
    (chosen,) = graded_queries(query.project_id, among=[other.pk])
    assert (chosen.query_id, chosen.grades.tolist()) == (other.pk, [2, 2, 2])
