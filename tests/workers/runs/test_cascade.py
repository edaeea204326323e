"""Cascades: who is asked about what, and that nothing is asked twice or too early."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from labeling import plugins
from labeling.models import Annotator, Judgment, Project
from labeling.records import Comparison, Failure, FailureKind, Verdict
from tests.factories.rows import make_judges, make_project, make_run
from tests.factories.stubs.plugins import TestJudge
from workers.judging import batches
from workers.judging.queue import retry_dead
from workers.models import JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import RunRefused, start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins", "doubting")]


class DoubtingJudge(TestJudge):
    """Sure in proportion to the difference in words: 0.1 for each; number 1 declines whatever is close."""

    name = "test-doubting"
    label = "Doubting"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        words = [len(each.a.text.split()) - len(each.b.text.split()) for each in comparisons]
        declined = Failure(FailureKind.REFUSAL, "too close for me", retryable=False)
        return [
            declined if self.options.number and abs(more) == 1 else Verdict(min(1.0, max(0.0, 0.5 + 0.1 * more)))
            for more in words
        ]


@pytest.fixture
def doubting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins._registry, ("judge", "test-doubting"), DoubtingJudge)


def make_panel(project: Project, *, number: int = 0) -> tuple[Annotator, Annotator, Annotator]:
    """A cheap judge that doubts, and two strong ones."""
    (cheap,) = make_judges(project, plugin="test-doubting", **({"seconds": 0.0} if not number else {}))
    if number:
        cheap = make_judges(project, number + 1, plugin="test-doubting")[number]
    strong = make_judges(project, 2)
    return cheap, strong[0], strong[1]


def ask(judge: Annotator) -> int:
    return batches.judge_open(judge.pk, worker="w@host:1")


def open_tasks(judge: Annotator) -> int:
    return JudgingTask.objects.filter(annotator=judge, state="open").count()


def test_strong_judges_are_asked_about_close_calls_alone() -> None:
    project = make_project(queries=2, documents=5)
    cheap, first, second = make_panel(project)
    run = make_run(project, judges=[cheap, first, second], sampler="all", allocation="cascade", cascade_threshold=0.15)
    assert (open_tasks(cheap), open_tasks(first), run.pairs_planned) == (20, 0, 20)
    assert ask(cheap) == 20
    advance(run.pk)
    # Neighbours in length differ by one word: 4 of the 10 pairs of each query.
    assert (open_tasks(first), open_tasks(second)) == (8, 8)
    assert ask(first) == ask(second) == 8
    close = set(Judgment.objects.filter(annotator=first).values_list("pair_id", flat=True))
    answers = Judgment.objects.filter(annotator=cheap).values_list("pair_id", "preference")
    assert close == {pair for pair, preference in answers if abs(preference - 0.5) < 0.15}
    run.refresh_from_db()
    assert (run.pairs_planned, run.tasks_planned) == (20, 36)


def test_strong_judges_wait_until_the_first_owes_nothing() -> None:
    project = make_project(queries=1, documents=4)
    cheap, first, second = make_panel(project)
    run = make_run(project, judges=[cheap, first, second], sampler="all", allocation="cascade")
    advance(run.pk)
    assert JudgingTask.objects.exclude(annotator=cheap).count() == 0


def test_a_cascade_ends_when_nothing_new_is_close_and_asks_nothing_twice() -> None:
    from scoring.rating import rate_stale

    project = make_project(queries=1, documents=4)
    cheap, first, second = make_panel(project)
    run = make_run(
        project,
        judges=[cheap, first, second],
        sampler="all",
        allocation="cascade",
        cascade_threshold=0.15,
        orders="both",
    )
    for _ in range(6):
        for judge in (cheap, first, second):
            ask(judge)
        rate_stale(project.pk)
        advance(run.pk)
    run.refresh_from_db()
    assert run.state == Run.State.FINISHED
    assert Judgment.objects.filter(annotator=cheap).count() == 12
    assert Judgment.objects.filter(annotator=first).count() == 6


def test_a_pair_that_the_first_judge_failed_on_is_put_to_nobody_else() -> None:
    project = make_project(queries=1, documents=4)
    cheap, first, second = make_panel(project, number=1)
    run = make_run(project, judges=[cheap, first, second], sampler="all", allocation="cascade", cascade_threshold=0.15)
    assert ask(cheap) == 3
    advance(run.pk)
    assert open_tasks(first) == 0
    assert JudgingTask.objects.filter(state="dead", reason="refusal").count() == 3
    assert retry_dead(run_ids=[run.pk]) == {run.pk: 3}


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"allocation": "cascade", "judges": 1}, "two judges"),
        ({"allocation": "cascade", "judges": 2, "cascade_threshold": 0.7}, "0.7"),
        ({"allocation": "cascade", "judges": 2, "cascade_threshold": 0.0}, "0.0"),
        ({"allocation": "all", "judges": 2, "cascade_threshold": 0.2}, "belongs to a cascade"),
    ],
)
def test_a_cascade_that_cannot_be_is_refused(order: dict, named: str) -> None:
    project = make_project(queries=1)
    judges = make_judges(project, order.pop("judges"))
    with pytest.raises(RunRefused, match=named):
        start_run(project, judges=judges, **order)
    assert not Run.objects.exists()
