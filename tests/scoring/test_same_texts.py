"""Candidates of one query with one text: no question between them, and one score for all."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.access.annotators import get_person
from labeling.models import Candidate, Document, Project
from labeling.plugins import get_plugin
from labeling.records import AnswerKind
from scoring.annotators.known_answers import draw_known_pairs, judge_answers
from scoring.columns import in_name_order, read_columns
from scoring.elo_orders import elo_of, judge_aware_elo
from scoring.models import Score
from scoring.project_fits import choose_project_fit
from scoring.quality import judge_strengths
from scoring.rating import rate_stale
from scoring.same_texts import distinct, merged, same_texts
from scoring.sampling.draw import query_states, sample_pairs
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_query_with_documents, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    """A query of five documents, of which the second and the fifth have one text but for blanks; another of three."""
    project = make_project()
    for size in (5, 3):
        make_query_with_documents(project, size)
    candidates = list(Candidate.objects.filter(query=project.queries.earliest("id")).order_by("id"))
    for place, text in ((1, "twice"), (4, "  twice\n")):
        Document.objects.filter(pk=candidates[place].document_id).update(text=text)
    return project


def test_samplers_see_one_of_them_and_draw_no_pair_with_the_other(project: Project) -> None:
    query = project.queries.earliest("id")
    first, *_, last = (list(Candidate.objects.filter(query=query).order_by("id"))[i] for i in (1, 4))
    drawn = sample_pairs([query.pk], get_plugin("sampler", "all")(), budgets={query.pk: 100}, seed=1, round_number=1)
    assert len(drawn[query.pk]) == 6
    assert first.pk in drawn[query.pk] and last.pk not in drawn[query.pk]


def test_earlier_answers_about_the_other_count_for_the_first(project: Project) -> None:
    query = project.queries.earliest("id")
    judge = make_judges(project, 1)[0]
    for a, b, preference in ((1, 4, 0.9), (0, 4, 0.8), (0, 1, 0.6), (2, 4, 0.3)):
        judge_pair(make_pair(query, a, b), judge, preference)
    known = query_states([query.pk])[query.pk]
    state, place = known.state, np.argsort(np.argsort(known.candidate_ids))
    assert state.size == 4 and state.preference is not None
    found = {}  # P(the earlier candidate is better), whatever the order of local indices
    for (a, b), preference in zip(place[state.pairs].tolist(), state.preference.tolist(), strict=True):
        found[min(a, b), max(a, b)] = preference if a < b else 1.0 - preference
    assert found == {(0, 1): pytest.approx(0.7), (1, 2): pytest.approx(0.7)}


def test_they_share_one_score_and_position_bias_between_them_is_no_vote(project: Project) -> None:
    query = project.queries.earliest("id")
    judge = make_judges(project, 1)[0]
    judge_pair(make_pair(query, 1, 4), judge, 1.0)
    for a, b, preference in ((0, 1, 0.2), (1, 2, 0.7), (2, 3, 0.6), (3, 4, 0.1)):
        judge_pair(make_pair(query, a, b), judge, preference)
    rate_stale(project.pk)
    scores = list(Score.objects.filter(candidate__query=query).order_by("candidate_id"))
    assert scores[1].elo == scores[4].elo and scores[1].comparisons == scores[4].comparisons == 3
    assert sum(each.theta for each in scores) == pytest.approx(0.0, abs=1e-9)
    read = read_columns([query.pk])
    alone = merged(read, same_texts([query.pk])).read
    assert len(alone.columns.a) == 4 and alone.columns.sizes.tolist() == [4]


def test_the_order_of_one_judge_names_each_of_them(project: Project) -> None:
    """A judge is asked about the first of them alone; the second is as good, as in the Elo order beside it."""
    query = project.queries.earliest("id")
    judge = make_judges(project, 1)[0]
    for a, b, preference in ((0, 1, 0.2), (1, 2, 0.7), (2, 3, 0.6)):
        judge_pair(make_pair(query, a, b), judge, preference)
    first, *_, last = (list(Candidate.objects.filter(query=query).order_by("id"))[i].pk for i in (1, 4))
    alone = judge_strengths(project, [query.pk])[judge.pk]
    for order in (alone, elo_of(project, [query.pk]), judge_aware_elo(project, [query.pk])):
        assert len(order) == 5 and order[first] == order[last]


def test_folds_of_pairs_do_not_depend_on_which_of_them_was_imported_first(project: Project) -> None:
    query = project.queries.earliest("id")
    judge = make_judges(project, 1)[0]
    for a, b, preference in ((0, 1, 0.2), (1, 2, 0.7), (2, 3, 0.6), (3, 4, 0.1)):
        judge_pair(make_pair(query, a, b), judge, preference)
    before = in_name_order(distinct(read_columns([query.pk])).read)
    one, other = (list(Candidate.objects.filter(query=query).order_by("id"))[i].document for i in (1, 4))
    one.text, other.text = other.text, one.text
    for each in (one, other):
        each.save()
    after = in_name_order(distinct(read_columns([query.pk])).read)
    assert before.sizes.tolist() == after.sizes.tolist() == [4]
    for name in ("a", "b", "preference", "swapped"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name


def test_a_query_of_votes_between_equal_texts_alone_leaves_the_prior_to_others(project: Project) -> None:
    first, second = project.queries.order_by("id")
    judge = make_judges(project, 1)[0]
    judge_pair(make_pair(first, 1, 4), judge, 0.9)
    judge_pair(make_pair(second, 0, 2), judge, 0.9)
    rate_stale(project.pk)
    columns = in_name_order(distinct(read_columns([first.pk, second.pk])).read)
    assert (columns.sizes.tolist(), columns.offsets.tolist()) == ([2], [0, 1])
    assert not choose_project_fit(project.pk).cross_validated


def test_neither_about_one_of_them_counts_no_comparison_for_the_other(project: Project) -> None:
    query = project.queries.earliest("id")
    judge = make_judges(project, 1)[0]
    for a, b, preference in ((0, 1, 0.2), (1, 2, 0.7)):
        judge_pair(make_pair(query, a, b), judge, preference)
    judge_pair(make_pair(query, 1, 3), judge, None, kind=AnswerKind.BOTH_IRRELEVANT)
    rate_stale(project.pk)
    first, last = (Score.objects.filter(candidate__query=query).order_by("candidate_id")[place] for place in (1, 4))
    assert first.comparisons == last.comparisons == 2
    assert first.elo == last.elo


def test_queries_without_repeated_texts_are_read_as_before(project: Project) -> None:
    read = read_columns([project.queries.latest("id").pk])
    one = merged(read, same_texts(read.query_ids.tolist()))
    assert one.read is read and np.array_equal(one.item, np.arange(3))


def test_no_known_answer_is_between_them(project: Project) -> None:
    """Grades of equal texts may differ; neither gold questions nor a judge's accuracy rest on that."""
    query = project.queries.earliest("id")
    first, *_, last = (list(Candidate.objects.filter(query=query).order_by("id"))[i] for i in (1, 4))
    Candidate.objects.filter(query=query).update(grade=1)
    Candidate.objects.filter(pk=first.pk).update(grade=3)
    judge = make_judges(project, 1)[0]
    pair = make_pair(query, 1, 4)
    judge_pair(pair, judge, 0.9)
    judge_pair(pair, get_person(project, make_user()), 0.9)
    drawn = {(a, b) for a, b, _ in draw_known_pairs([query.pk], 10, np.random.default_rng(0))}
    assert drawn and (first.pk, last.pk) not in drawn
    assert np.isnan(judge_answers(judge).gold).all()
