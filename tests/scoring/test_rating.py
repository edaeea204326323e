"""Rating of stale queries: one consistent read, versions that never go back, queries that cannot be fitted."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from labeling.models import Judgment, Project, Query
from labeling.records import AnswerKind
from scoring import rating
from scoring.columns import read_columns
from scoring.models import QueryFit, Score
from scoring.rating import rate_queries, rate_stale, stale_project_ids, stale_query_ids
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
)

# The rater reads in a transaction of its own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def judge_chain(query: Query, preference: float = 0.2, *, number: int = 0) -> None:
    """One judge's answers on 0-1, 1-2, ..: by default the later candidate is the better one."""
    judge = make_judges(query.project, number + 1)[number]
    for place in range(query.candidates.count() - 1):
        judge_pair(make_pair(query, place, place + 1), judge, preference)


def ranked(query: Query) -> list[int]:
    """Places of the candidates, best Elo first."""
    return [rank - 1 for rank in query.candidates.order_by("-score__elo").values_list("first_stage_rank", flat=True)]


def test_scores_follow_judgments() -> None:
    query = make_query_with_documents(make_project(), 5)
    judge_chain(query)
    assert stale_query_ids(query.project_id) == [query.pk]
    assert stale_project_ids() == [query.project_id]
    assert rate_stale(query.project_id).judgments == 4
    assert stale_query_ids(query.project_id) == []
    assert ranked(query) == [4, 3, 2, 1, 0]
    scores = Score.objects.filter(candidate__query=query)
    assert sum(score.theta for score in scores) == pytest.approx(0.0, abs=1e-9)
    assert np.mean([score.elo for score in scores]) == pytest.approx(1500.0)
    assert {score.judged_version for score in scores} == {4}
    assert all(score.stderr > 0.0 and 0.0 < score.relevance < 1.0 for score in scores)
    fit = QueryFit.objects.get(query=query)
    assert (fit.judged_version, fit.pairs, fit.judgments, fit.islands, fit.error) == (4, 4, 4, 1, "")


def test_later_judgments_replace_the_scores() -> None:
    query = make_query_with_documents(make_project(), 3)
    judge_chain(query)
    rate_stale(query.project_id)
    for number in range(1, 6):
        judge_chain(query, 0.9, number=number)
    rate_stale(query.project_id)
    assert ranked(query) == [0, 1, 2]
    assert Score.objects.count() == 3
    assert QueryFit.objects.get().judgments == 12


def test_only_live_preferences_enter_a_fit() -> None:
    query = make_query_with_documents(make_project(), 4)
    judge_chain(query)
    judge = make_judges(query.project)[0]
    judge_pair(make_pair(query, 0, 3), judge, None, kind=AnswerKind.CANNOT_JUDGE)
    judge_pair(make_pair(query, 0, 2), judge, 0.99)
    Judgment.objects.filter(preference=0.99).update(superseded_at="2026-01-01T00:00Z")
    rate_stale(query.project_id)
    assert (QueryFit.objects.get().pairs, QueryFit.objects.get().judgments) == (3, 3)


def test_candidates_without_any_answer_get_the_mean_and_no_comparisons() -> None:
    query = make_query_with_documents(make_project(), 3)
    judge_pair(make_pair(query, 0, 1), make_judges(query.project)[0])
    rate_stale(query.project_id)
    alone = Score.objects.get(candidate_id=candidate_ids(query)[2])
    assert (alone.theta, alone.comparisons) == (pytest.approx(0.0), 0)
    assert QueryFit.objects.get().islands == 2


def test_columns_name_candidates_annotators_and_versions_as_the_tables_do() -> None:
    project = make_project()
    queries = [make_query_with_documents(project, 3) for _ in range(3)]
    judge_chain(queries[2])
    judge_chain(queries[0], 0.7, number=1)
    read = read_columns([query.pk for query in queries])
    columns = read.columns
    assert read.query_ids.tolist() == [query.pk for query in queries]
    assert read.judged_versions.tolist() == [2, 0, 2]
    assert (columns.offsets.tolist(), columns.sizes.tolist()) == ([0, 2, 2, 4], [3, 3, 3])
    starts = np.concatenate([[0], np.cumsum(columns.sizes)])
    owner = np.repeat(np.arange(3), np.diff(columns.offsets))
    found = {
        (
            int(read.candidate_ids[starts[q] + a]),
            int(read.candidate_ids[starts[q] + b]),
            int(read.annotator_ids[judge]),
            float(p),
            bool(swapped),
        )
        for q, a, b, judge, p, swapped in zip(
            owner, columns.a, columns.b, columns.judge, columns.preference, columns.swapped, strict=True
        )
    }
    rows = Judgment.objects.values_list("pair__a_id", "pair__b_id", "annotator_id", "preference", "swapped")
    assert found == set(rows)


def test_columns_of_queries_without_answers_are_empty() -> None:
    read = read_columns([make_query_with_documents(make_project(), 2).pk])
    assert (len(read.columns.a), read.columns.offsets.tolist()) == (0, [0, 0])
    assert len(read_columns([]).query_ids) == 0


def test_a_fit_of_an_older_version_never_replaces_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query_with_documents(make_project(), 3)
    judge_chain(query)
    old = read_columns([query.pk])
    judge_chain(query, 0.9, number=1)
    judge_chain(query, 0.9, number=2)
    rate_stale(query.project_id)
    before = list(Score.objects.order_by("candidate_id").values_list("theta", "judged_version"))
    monkeypatch.setattr(rating, "read_columns", lambda query_ids: old)
    rate_queries(query.project_id, [query.pk])
    assert list(Score.objects.order_by("candidate_id").values_list("theta", "judged_version")) == before
    assert QueryFit.objects.get().judged_version == 6


def test_answers_that_arrive_during_the_fit_leave_the_query_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    query = make_query_with_documents(make_project(), 3)
    judge_chain(query)
    store = rating.store_fit

    def meanwhile(*args: Any, **options: Any) -> None:
        judge_chain(query, 0.9, number=1)
        store(*args, **options)

    monkeypatch.setattr(rating, "store_fit", meanwhile)
    rate_queries(query.project_id, [query.pk])
    assert stale_query_ids(query.project_id) == [query.pk]


class TestQueriesThatCannotBeFitted:
    @pytest.fixture
    def project(self) -> Project:
        """Five queries of 4 candidates and, in the middle, one of 3, which the project's rater refuses."""
        project = make_project()
        for documents in (4, 4, 3, 4, 4, 4):
            judge_chain(make_query_with_documents(project, documents))
        Project.objects.filter(pk=project.pk).update(rater="test-picky")
        return project

    def test_they_say_why_and_hold_up_no_other(self, project: Project) -> None:
        rated = rate_stale(project.pk)
        assert (rated.queries, rated.failed) == (5, 1)
        assert stale_query_ids(project.pk) == [], "it is not tried again and again"
        assert QueryFit.objects.filter(error="").count() == 5
        refused = QueryFit.objects.exclude(error="").get()
        assert refused.error == "ArithmeticError: an odd number of candidates"
        assert not Score.objects.filter(candidate__query=refused.query).exists()

    def test_the_next_judgment_tries_again_and_keeps_what_was_there(self, project: Project) -> None:
        rate_stale(project.pk)
        query = QueryFit.objects.exclude(error="").get().query
        Project.objects.filter(pk=project.pk).update(rater="thurstone")
        judge_chain(query, number=1)
        rate_stale(project.pk)
        assert QueryFit.objects.get(query=query).error == ""
        scores = list(Score.objects.filter(candidate__query=query).values_list("theta", flat=True))
        Project.objects.filter(pk=project.pk).update(rater="test-picky")
        judge_chain(query, number=2)
        rate_stale(project.pk)
        fit = QueryFit.objects.get(query=query)
        assert fit.error
        assert fit.judgments == 4, "the last good fit's figures stand"
        assert list(Score.objects.filter(candidate__query=query).values_list("theta", flat=True)) == scores

    @pytest.mark.parametrize(
        "change", [{"rater": "test-broken"}, {"rater": "uninstalled"}, {"rater_options": {"prior_precision": -1}}]
    )
    def test_a_rater_that_never_works_ends_too(self, project: Project, change: dict[str, Any]) -> None:
        Project.objects.filter(pk=project.pk).update(**{"rater": "thurstone", **change})
        assert rate_stale(project.pk).failed == 6
        assert stale_project_ids() == []
        assert all(QueryFit.objects.values_list("error", flat=True))


def test_rating_stops_between_chunks_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    for _ in range(5):
        judge_chain(make_query_with_documents(project, 3))
    monkeypatch.setattr(rating, "QUERIES_AT_ONCE", 2)
    moments = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(moments)))
    first = rate_stale(project.pk, slice_s=5.0)
    assert (first.queries, first.unfinished) == (2, True)
    rest = rate_stale(project.pk, slice_s=1e9)
    assert (rest.queries, rest.unfinished) == (3, False)


def test_stale_queries_can_be_limited_to_some() -> None:
    project = make_project()
    queries = [make_query_with_documents(project, 3) for _ in range(3)]
    for query in queries:
        judge_chain(query)
    assert stale_query_ids(project.pk, among=[queries[1].pk]) == [queries[1].pk]
    assert stale_query_ids(project.pk, among=[]) == []
