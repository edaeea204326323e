"""Judging claimed tasks: what a judge answers is stored, and whatever goes wrong with it is never a vote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from labeling import plugins
from labeling.models import Judgment, Query
from labeling.plugins import get_plugin
from labeling.records import Verdict
from tests.factories.rows import make_judges, make_project, make_run
from tests.factories.stubs.plugins import LongerJudge
from workers.judging import batches, questions
from workers.models import Attempt, JudgingTask

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def judged(plugin: str) -> int:
    """A run of two pairs and one judge, judged once; returns how many were answered."""
    project = make_project(queries=1, documents=3)
    (judge,) = make_judges(project, plugin=plugin)
    make_run(project, judges=[judge], sampler="all", pair_budget=2)
    return batches.judge_open(judge.pk, worker="w@host:1")


def test_open_tasks_are_answered_in_the_vocabulary_of_the_pair() -> None:
    assert judged("test-longer") == 2
    assert not JudgingTask.objects.exists()
    # Documents grow with their place, so b is always the longer one, whichever was presented first.
    assert list(Judgment.objects.values_list("preference", flat=True)) == pytest.approx([0.2, 0.2])
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"preference"}


@pytest.mark.parametrize("plugin", ["test-raising", "test-silent", "test-none"])
def test_a_judge_that_breaks_its_contract_has_failed_and_never_voted(plugin: str) -> None:
    assert judged(plugin) == 0
    assert not Judgment.objects.exists()
    assert set(JudgingTask.objects.values_list("state", "reason")) == {("open", "judge_error")}
    assert all(JudgingTask.objects.values_list("message", flat=True))
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"judge_error"}


def test_a_database_that_goes_away_before_a_question_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(questions, "comparisons_of", gone)
    assert judged("test-longer") == 0
    assert set(JudgingTask.objects.values_list("state", "attempts")) == {("open", 0)}


@pytest.mark.parametrize("places", [[0, 0, 1], [0, 2], [0, -1]])
def test_a_judge_that_tells_a_question_twice_or_one_it_was_not_asked_has_failed_the_rest(
    places: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class PlacesJudge(LongerJudge):
        name = "test-places"

        def judge_each(self, comparisons: Any, report: Callable[[int, Verdict], None]) -> None:
            for number, place in enumerate(places):
                report(place, Verdict(0.1 * (number + 1)))

    monkeypatch.setitem(plugins._registry, ("judge", PlacesJudge.name), PlacesJudge)
    assert judged("test-places") == 1
    assert Judgment.objects.get().preference == pytest.approx(0.1), "the first telling counts"
    assert JudgingTask.objects.get().reason == "judge_error"


def test_a_judge_that_is_no_longer_installed_fails_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(queries=1, documents=3)
    (judge,) = make_judges(project)
    make_run(project, judges=[judge])

    monkeypatch.delitem(plugins._registry, ("judge", "test-longer"))
    assert batches.judge_open(judge.pk, worker="w@host:1") == 0
    assert set(JudgingTask.objects.values_list("state", "reason")) == {("open", "judge_error")}
    assert "test-longer" in JudgingTask.objects.values_list("message", flat=True)[0]


def test_odd_text_in_an_answer_does_not_cost_the_batch() -> None:
    assert judged("test-odd-text") == 2


def test_a_person_is_not_asked_as_a_judge() -> None:
    assert batches.judge_open(10**9, worker="w@host:1") == 0


@pytest.mark.parametrize("name", ["bm25", "query-likelihood"])
def test_the_lexical_judges_read_a_project_and_no_grades(name: str) -> None:
    project = make_project(queries=1, documents=4)
    Query.objects.update(text="word")
    (judge,) = make_judges_of(project, name)
    make_run(project, judges=[judge], sampler="all")
    assert batches.judge_open(judge.pk, worker="w@host:1") == 6
    assert Judgment.objects.filter(preference__gt=0.0, preference__lt=1.0).count() == 6


def make_judges_of(project: object, name: str) -> list:
    from labeling.access.annotators import get_judge

    assert get_plugin("judge", name)
    return [get_judge(project, name)]  # type: ignore[arg-type]
