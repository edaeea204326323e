"""What a sampler sees of a query, and that a draw depends on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from labeling.access.annotators import get_person
from labeling.models import Query
from labeling.plugins import get_plugin
from labeling.records import AnswerKind
from scoring.models import ProjectFit
from scoring.project_fits import NEVER
from scoring.rating import rate_stale
from scoring.sampling.draw import comparable_query_ids, query_states, sample_pairs, sampled_queries
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_user,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def query() -> Query:
    return make_query_with_documents(make_project(), 5)


def test_a_new_query_is_its_candidates_and_their_ranks(query: Query) -> None:
    known = query_states([query.pk])[query.pk]
    order = np.argsort(known.candidate_ids)  # texts decide the order of local indices
    assert known.candidate_ids[order].tolist() == candidate_ids(query)
    assert known.state.size == 5
    assert known.state.pairs.shape == (0, 2)
    assert known.state.theta is None
    assert known.state.first_stage_rank[order].tolist() == [1, 2, 3, 4, 5]


def test_pairs_carry_their_votes(query: Query) -> None:
    first, second = make_judges(query.project, 2)
    person = get_person(query.project, make_user())
    judge_pair(make_pair(query, 0, 2), first, 0.9)
    judge_pair(make_pair(query, 0, 2), second, 0.6)
    judge_pair(make_pair(query, 1, 4), person, None, kind=AnswerKind.CANNOT_JUDGE)
    known = query_states([query.pk])[query.pk]
    state, ids = known.state, candidate_ids(query)
    assert state.weight is not None and state.preference is not None
    judged, unjudged = int(np.argmax(state.weight)), int(np.argmin(state.weight))
    assert state.weight[[judged, unjudged]].tolist() == [2.0, 0.0]
    assert set(known.candidate_ids[state.pairs[judged]].tolist()) == {ids[0], ids[2]}
    assert set(known.candidate_ids[state.pairs[unjudged]].tolist()) == {ids[1], ids[4]}
    turned = known.candidate_ids[state.pairs[judged, 0]] == ids[2]
    assert state.preference[judged] == pytest.approx(0.25 if turned else 0.75)
    assert np.isnan(state.preference[unjudged])


def test_pairs_carry_their_votes_without_the_biases_that_scores_leave_out(query: Query) -> None:
    biased, plain = make_judges(query.project, 2)
    ProjectFit.objects.create(
        project=query.project, version=1, rater=query.project.rater, chosen_at=NEVER,
        judge_terms={str(biased.pk): [1.0, 0.3, 1.0], str(plain.pk): [1.0, 0.0, 1.0]},
    )  # fmt: skip
    judge_pair(make_pair(query, 0, 1), biased, 0.7)
    judge_pair(make_pair(query, 0, 2), biased, 0.7, swapped=True)
    judge_pair(make_pair(query, 0, 3), biased, 1.0)
    judge_pair(make_pair(query, 0, 4), plain, 0.7)
    ids = candidate_ids(query)
    odds = np.log(0.7 / 0.3)
    shift = 0.3 * 2.41
    expected = dict(zip(ids[1:], [expit(odds - shift), expit(odds + shift), 1.0, 0.7], strict=True))
    for guides in (None, {biased.pk: 0.5}):
        known = query_states([query.pk], guides=guides)[query.pk]
        state = known.state
        assert state.preference is not None
        for (a, b), preference in zip(known.candidate_ids[state.pairs].tolist(), state.preference, strict=True):
            assert preference == pytest.approx(expected[b] if a == ids[0] else 1.0 - expected[a], abs=1e-8)


def test_answers_without_a_preference_stay_without_one_where_their_judge_has_a_bias(query: Query) -> None:
    biased, plain = make_judges(query.project, 2)
    ProjectFit.objects.create(
        project=query.project, version=1, rater="thurstone", chosen_at=NEVER,
        judge_terms={str(biased.pk): [1.0, 0.3, 1.0]},
    )  # fmt: skip
    judge_pair(make_pair(query, 0, 1), biased, None, kind=AnswerKind.BOTH_IRRELEVANT)
    judge_pair(make_pair(query, 0, 2), biased, None, kind=AnswerKind.BOTH_IRRELEVANT)
    judge_pair(make_pair(query, 0, 2), plain, 0.5)
    for guides in (None, {plain.pk: 0.5}):
        state = query_states([query.pk], guides=guides)[query.pk].state
        assert state.preference is not None and state.weight is not None
        assert np.sort(state.weight).tolist() == [0.0, 0.5 if guides else 1.0]
        assert np.isnan(state.preference[np.argmin(state.weight)])
        assert state.preference[np.argmax(state.weight)] == 0.5


@pytest.mark.parametrize(("rater", "bias"), [("test-picky", 0.3), ("test-broken", 0.0), ("uninstalled", 0.0)])
def test_biases_are_left_out_where_the_rater_of_the_scores_leaves_them_out(
    query: Query, rater: str, bias: float
) -> None:
    """A third-party rater that is Thurstone's, one of its own that takes no terms, and one that is gone."""
    judge = make_judges(query.project)[0]
    ProjectFit.objects.create(
        project=query.project, version=1, rater=rater, chosen_at=NEVER, judge_terms={str(judge.pk): [1.0, 0.3, 1.0]}
    )
    judge_pair(make_pair(query, 0, 1), judge, 0.5)
    state = query_states([query.pk])[query.pk].state
    assert state.preference is not None
    assert abs(state.preference[0] - 0.5) == pytest.approx(expit(2.41 * bias) - 0.5)


def test_pair_that_nobody_answers_any_more_counts_as_drawn_only_while_pending(query: Query) -> None:
    pair = make_pair(query, 1, 3)
    assert query_states([query.pk])[query.pk].state.pairs.tolist() == []
    assert query_states([query.pk], pending=[pair.pk])[query.pk].state.pairs.shape == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_rated_query_shows_its_strengths_and_its_fit(query: Query) -> None:
    judge = make_judges(query.project)[0]
    for place in range(4):
        judge_pair(make_pair(query, place, place + 1), judge, 0.8)
    rate_stale(query.project_id)
    known = query_states([query.pk])[query.pk]
    state = known.state
    assert state.theta is not None
    assert (np.diff(state.theta[np.argsort(known.candidate_ids)]) < 0).all()
    assert state.prior_precision == pytest.approx(query.fit.prior_precision)
    assert state.logit_scale == pytest.approx(query.fit.logit_scale)


def test_draws_depend_on_query_seed_and_round_alone() -> None:
    project = make_project(queries=3, documents=8)
    ids = list(project.queries.values_list("id", flat=True))
    sampler = get_plugin("sampler", "cycles").from_dict({"degree": 2})
    budgets = dict.fromkeys(ids, 100)

    def draw(queries: list[int], seed: int = 1, round_number: int = 1) -> dict[int, list]:
        drawn = sample_pairs(queries, sampler, budgets=budgets, seed=seed, round_number=round_number)  # type: ignore[arg-type]
        return {query: pairs.tolist() for query, pairs in drawn.items()}

    whole = draw(ids)
    assert draw(ids) == whole
    assert draw(ids[1:2]) == {ids[1]: whole[ids[1]]}, "its company changes nothing"
    assert draw(ids, seed=2) != whole
    assert draw(ids, round_number=2) != whole
    candidates = {query: set(np.ravel(pairs).tolist()) for query, pairs in whole.items()}
    assert candidates == {q.pk: set(candidate_ids(q)) for q in project.queries.all()}
    assert all(a < b for pairs in whole.values() for a, b in pairs)


def test_budget_of_each_query_is_kept_and_a_query_that_gets_none_is_left_out() -> None:
    project = make_project(queries=2, documents=6)
    one, two = project.queries.order_by("id").values_list("id", flat=True)
    sampler = get_plugin("sampler", "all").from_dict({})
    drawn = sample_pairs([one, two], sampler, budgets={one: 4, two: 0}, seed=1, round_number=1)  # type: ignore[arg-type]
    assert {query: len(pairs) for query, pairs in drawn.items()} == {one: 4}


def test_only_queries_with_two_candidates_can_be_compared() -> None:
    project = make_project()
    sizes = [0, 1, 2, 5]
    queries = [make_query_with_documents(project, size) for size in sizes]
    make_query_with_documents(make_project(), 4)
    assert comparable_query_ids(project.pk) == [queries[2].pk, queries[3].pk]
    assert comparable_query_ids(project.pk, [queries[0].pk, queries[3].pk]) == [queries[3].pk]


def test_texts_decide_which_queries_a_sample_holds() -> None:
    texts = [f"question {number}" for number in range(12)]

    def sampled(order: list[str]) -> list[str]:
        project = make_project()
        rows = [Query.objects.create(project=project, external_id=text, text=text) for text in order]
        ids = sampled_queries([each.pk for each in rows], 4)
        assert ids == sorted(ids)
        return sorted(Query.objects.get(pk=each).text for each in ids)

    assert sampled(texts) == sampled(texts[::-1])
    assert len(sampled(texts)) == 4
