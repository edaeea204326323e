"""Answers "neither is relevant" in scores, thresholds and calibration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from labeling.access.annotators import get_person
from labeling.models import Annotator, Candidate, Document, Judgment, Project, Query
from labeling.records import AnswerKind
from scoring.calibration.calibrate import calibrate_project, project_calibration
from scoring.models import ProjectFit, QueryFit, Score
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_stale
from tests.factories.rows import (
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_user,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def say_neither(query: Query, person: Annotator, a: int, b: int, **fields: Any) -> None:
    judge_pair(make_pair(query, a, b), person, None, kind=AnswerKind.BOTH_IRRELEVANT, **fields)


def elo_by_place(query: Query) -> dict[int, float]:
    rows = query.candidates.filter(score__comparisons__gt=0).values_list("first_stage_rank", "score__elo")
    return {rank - 1: elo for rank, elo in rows}


def test_neither_alone_gives_an_elo_below_every_loser() -> None:
    query = make_query_with_documents(make_project(), 6)
    judge, person = make_judges(query.project)[0], get_person(query.project, make_user())
    for a, b in ((0, 1), (1, 2), (0, 2)):
        judge_pair(make_pair(query, a, b), judge, 0.7)
        judge_pair(make_pair(query, a, b), person, 0.75)
    say_neither(query, person, 3, 4)
    rate_stale(query.project_id)
    elo = elo_by_place(query)
    assert set(elo) == {0, 1, 2, 3, 4}, "nothing was compared with the last one"
    assert elo[3] == pytest.approx(elo[4]) and elo[3] < elo[2] < elo[1] < elo[0]
    fit = QueryFit.objects.get()
    assert fit.threshold is not None and (fit.pairs, fit.judgments, fit.islands) == (3, 6, 2)
    Judgment.objects.filter(kind=AnswerKind.BOTH_IRRELEVANT).update(kind=AnswerKind.CANNOT_JUDGE)
    Query.objects.update(judged_version=9)
    rate_stale(query.project_id)
    assert set(elo_by_place(query)) == {0, 1, 2} and QueryFit.objects.get().threshold is None


def test_equal_texts_share_what_was_said_of_one_of_them() -> None:
    query = make_query_with_documents(make_project(), 4)
    candidates = list(Candidate.objects.filter(query=query).order_by("id"))
    Document.objects.filter(pk__in=[candidates[i].document_id for i in (2, 3)]).update(text="twice")
    judge, person = make_judges(query.project)[0], get_person(query.project, make_user())
    judge_pair(make_pair(query, 0, 1), judge, 0.8)
    say_neither(query, person, 1, 3)
    rate_stale(query.project_id)
    elo = elo_by_place(query)
    assert elo[2] == elo[3] < elo[0]


def test_who_said_neither_once_gives_evidence_everywhere() -> None:
    project = make_project()
    first, second = make_query_with_documents(project, 4), make_query_with_documents(project, 4)
    judge, person = make_judges(project)[0], get_person(project, make_user())
    for query in (first, second):
        judge_pair(make_pair(query, 0, 1), judge, 0.9)
        judge_pair(make_pair(query, 0, 1), person, 0.75)
    say_neither(first, person, 2, 3)
    rate_stale(project.pk)
    thresholds = dict(QueryFit.objects.values_list("query_id", "threshold"))
    assert thresholds[first.pk] is not None and thresholds[second.pk] is None
    before = choose_project_fit(project.pk)
    assert before.changed and ProjectFit.objects.get().says_neither == [person.pk]
    rate_stale(project.pk)
    thresholds = dict(QueryFit.objects.values_list("query_id", "threshold"))
    assert thresholds[second.pk] < thresholds[first.pk], "nobody found the documents of the second wanting"
    assert not choose_project_fit(project.pk).changed


def test_a_judge_that_does_not_count_says_nothing() -> None:
    project = make_project()
    query = make_query_with_documents(project, 4)
    counted, other = make_judges(project, 2)
    judge_pair(make_pair(query, 0, 1), counted, 0.9)
    say_neither(query, other, 2, 3)
    Project.objects.update(rater_options={"judges": str(counted.pk)})
    rate_stale(project.pk)
    assert QueryFit.objects.get().threshold is None and set(elo_by_place(query)) == {0, 1}


def test_thresholds_put_queries_on_one_scale_where_that_predicts_grades_better() -> None:
    """Half of the queries have only irrelevant documents: their order says nothing of their level, "neither" does."""
    project = make_project()
    person = get_person(project, make_user())
    for number in range(12):
        query = make_query_with_documents(project, 4)
        good = number % 2
        for a, b in ((0, 1), (1, 2), (2, 3), (0, 3)):
            if good or a == 0:
                judge_pair(make_pair(query, a, b), person, 0.75)
            else:
                say_neither(query, person, a, b)
        query.candidates.update(grade=good)
    rate_stale(project.pk)
    choose_project_fit(project.pk)
    rate_stale(project.pk)
    calibrate_project(project.pk)
    shown = project_calibration(project)
    assert shown.calibrated and shown.thresholds == 12 and shown.brier is not None and shown.brier < 0.1
    graded = np.array(Score.objects.values_list("candidate__grade", "relevance"))
    assert graded[graded[:, 0] == 1, 1].min() > graded[graded[:, 0] == 0, 1].max()
    assert set(Score.objects.values_list("calibrated", flat=True)) == {True}
    stored = dict(Score.objects.values_list("candidate", "relevance"))
    Query.objects.update(judged_version=99)
    rate_stale(project.pk)
    assert dict(Score.objects.values_list("candidate", "relevance")) == pytest.approx(stored, abs=1e-9)


def test_a_preference_is_divided_without_the_position_bias_that_scores_leave_out() -> None:
    """Two documents that a judge finds equal but for its bias stand equal, although one was always shown first."""
    query = make_query_with_documents(make_project(), 4)
    judge = make_judges(query.project)[0]
    shown_first = 1.0 / (1.0 + math.exp(-1.0))
    for other in (2, 3):
        for first in (0, 1):
            judge_pair(make_pair(query, first, other), judge, 0.9)
    judge_pair(make_pair(query, 0, 1), judge, shown_first)
    say_neither(query, judge, 2, 3)
    Project.objects.filter(pk=query.project_id).update(rater="bradley-terry")
    ProjectFit.objects.update_or_create(
        project=query.project,
        defaults={"rater": "bradley-terry", "judge_terms": {str(judge.pk): [1.0, 1.0, 1.0]}, "version": 1},
    )
    rate_stale(query.project_id)
    elo = elo_by_place(query)
    assert elo[0] == pytest.approx(elo[1], abs=1e-6)
