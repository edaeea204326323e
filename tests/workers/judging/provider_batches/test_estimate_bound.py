"""A run in batches is held to its estimate: what would exceed the bound is not sent, and batches that are lost count."""

from __future__ import annotations

import pytest

from labeling.models import Judgment
from tests.factories.batches import batch_run, out, step, work_until
from tests.fake_judge.process import FakeJudge
from workers.budgets.changes import change_budgets
from workers.budgets.spend import totals_of_run
from workers.models import ProviderBatch, Run

pytestmark = pytest.mark.django_db(transaction=True)

DOCUMENTS = 6
QUESTIONS = DOCUMENTS * (DOCUMENTS - 1) // 2


def spent_of(run: Run) -> tuple[int, int]:
    totals = totals_of_run(run.pk)
    return totals.cost_micros, totals.input_tokens + totals.output_tokens


def assert_within(run: Run) -> None:
    money, tokens = spent_of(run)
    assert money <= run.estimate["most_cost_micros"] and tokens <= run.estimate["most_tokens"]


def test_all_questions_go_out_at_once_and_reserve_no_more_than_the_estimate_says(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judge = batch_run(monkeypatch, fake)
    assert run.estimate["question_cost_micros"] > 0
    step(run, judge)
    assert out().requests == QUESTIONS
    assert_within(run)
    run = work_until(run, judge)
    assert Judgment.objects.count() == QUESTIONS and not run.is_spent
    assert_within(run)


def test_a_lost_batch_counts_and_its_questions_fit_once_more(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    run, judge = batch_run(monkeypatch, fake)
    step(run, judge)
    ProviderBatch.objects.update(batch_id="batch-of-nobody")
    run = work_until(run, judge)
    assert Judgment.objects.count() == QUESTIONS and not run.is_spent
    assert_within(run)


def test_what_would_exceed_the_bound_is_not_sent(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    run, judge = batch_run(monkeypatch, fake)
    question = run.estimate["question_cost_micros"]
    Run.objects.filter(pk=run.pk).update(estimate=run.estimate | {"most_cost_micros": int(4.5 * question)})
    run.refresh_from_db()
    step(run, judge)
    assert out().requests == 4, "the fifth reservation does not fit"
    assert_within(run)
    ProviderBatch.objects.update(batch_id="batch-of-nobody")  # its money counts as spent
    run = work_until(run, judge)
    assert run.is_spent and "the estimate's upper bound of" in run.reason
    assert run.tasks.filter(state="open").count() == QUESTIONS and Judgment.objects.count() == 0
    assert_within(run)
    run = work_until(change_budgets(run, {}), judge)
    assert Judgment.objects.count() == QUESTIONS and run.state == "finished"


def test_the_rest_follows_where_a_batch_was_cheaper_than_reserved(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judge = batch_run(monkeypatch, fake)
    question = run.estimate["question_cost_micros"]
    Run.objects.filter(pk=run.pk).update(estimate=run.estimate | {"most_cost_micros": 6 * question})
    run = work_until(Run.objects.get(pk=run.pk), judge)
    sizes = list(ProviderBatch.objects.order_by("id").values_list("requests", flat=True))
    assert sizes[0] == 6 and sum(sizes) == Judgment.objects.count() > 6
    assert_within(run)
