"""Budgets of a run: enforced before each call, planned against, moved to the queries that need them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from labeling import plugins
from labeling.models import Judgment, Query
from scoring.rating import rate_stale
from tests.factories.api import Api
from tests.factories.rows import make_judges, make_project, make_query_with_documents, make_run, make_tasks, make_user
from tests.factories.working import COST, TOKENS, PaidJudge, judge_all, paid_run, work_until_over
from workers.budgets.limits import FIRST_QUESTIONS, expected_calls_per_pair
from workers.judging import batches, queue
from workers.models import Attempt, JudgingTask, Run
from workers.runs import advancing, ordering
from workers.runs.ordering import RunRefused

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins", "paid")]


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins._registry, ("judge", "test-paid"), PaidJudge)


# --- before the call -----------------------------------------------------------------------


@pytest.mark.parametrize("judges", [1, 3])
@pytest.mark.parametrize("orders", ["one", "both"])
def test_no_call_is_made_beyond_the_budget_and_none_is_left_over(judges: int, orders: str) -> None:
    project = make_project(queries=2, documents=8)
    run = work_until_over(paid_run(project, judges=judges, orders=orders, call_budget=17, planned=False))
    assert (run.state, run.reason) == (Run.State.FINISHED, "the budget of 17 calls is spent")
    assert Attempt.objects.filter(run=run).count() == Judgment.objects.count() == 17


def test_two_claims_never_share_the_room_that_is_left() -> None:
    task = make_tasks(10)[0]
    Run.objects.filter(pk=task.run_id).update(call_budget=7)
    first = queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=4)
    second = queue.claim(annotator_id=task.annotator_id, worker="w@host:2", limit=4)
    assert (len(first), len(second)) == (4, 3)
    assert queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=4) == []
    advancing.advance(task.run_id)
    assert Run.objects.get().state == Run.State.JUDGING, "calls in flight are waited for"


def test_budget_holds_under_workers_that_claim_at_the_same_time() -> None:
    task = make_tasks(200)[0]
    Run.objects.filter(pk=task.run_id).update(call_budget=61)

    def claims(worker: int) -> int:
        taken = [queue.claim(annotator_id=task.annotator_id, worker=f"w@host:{worker}", limit=5) for _ in range(8)]
        connection.close()
        return sum(map(len, taken))

    with ThreadPoolExecutor(4) as workers:
        assert sum(workers.map(claims, range(4))) == 61
    assert Attempt.objects.count() == 61


def test_call_that_was_never_made_goes_back_into_the_budget() -> None:
    task = make_tasks(10)[0]
    Run.objects.filter(pk=task.run_id).update(call_budget=4)
    queue.release(queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=4))
    assert len(queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=9)) == 4


@pytest.mark.parametrize(
    ("budget", "calls", "reason"),
    [
        ({"token_budget": 10 * TOKENS + 50}, 10, "the budget of 1,150 tokens is spent"),
        ({"cost_budget_micros": 10 * COST}, 10, "the budget of $0.00 is spent"),
        ({"cost_budget_micros": 9 * COST, "call_budget": 12}, 9, "the budget of $0.00 is spent"),
        ({"token_budget": 90 * TOKENS, "call_budget": 12}, 12, "the budget of 12 calls is spent"),
    ],
)
def test_tokens_and_money_are_enforced_before_the_call(budget: dict[str, int], calls: int, reason: str) -> None:
    run = work_until_over(paid_run(make_project(queries=2, documents=8), planned=False, **budget))
    assert (run.state, run.reason) == (Run.State.FINISHED, reason)
    assert Attempt.objects.filter(run=run).count() == calls


def test_until_the_price_is_known_only_the_calls_in_flight_can_exceed_it() -> None:
    run = paid_run(make_project(queries=2, documents=8), cost_budget_micros=1)
    judge = run.judges.get()
    claimed = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=100)
    assert len(claimed) == FIRST_QUESTIONS
    assert queue.claim(annotator_id=judge.pk, worker="w@host:2", limit=100) == []
    batches.judge_claimed(judge, claimed)
    assert work_until_over(run).reason == "the budget of $0.00 is spent"
    assert Attempt.objects.count() == Judgment.objects.count() == FIRST_QUESTIONS


def test_price_of_earlier_runs_counts_from_the_first_call() -> None:
    project = make_project(queries=1, documents=8)
    work_until_over(paid_run(project, pair_budget=5))
    run = paid_run(project, sampler="all", cost_budget_micros=7 * COST)
    assert len(queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=100)) == 7


def test_free_judges_are_not_held_up_by_a_budget_of_money() -> None:
    project = make_project(queries=2, documents=8)
    run = work_until_over(make_run(project, cost_budget_micros=1, planned=False))
    assert (run.state, run.reason) == (Run.State.FINISHED, "the design is complete")


def test_nothing_is_lost_when_the_budget_ends_and_the_next_run_goes_on() -> None:
    project = make_project(queries=1, documents=8)
    first = paid_run(project, sampler="all")
    asked = JudgingTask.objects.filter(run=first).count()
    Run.objects.filter(pk=first.pk).update(call_budget=10)
    first = work_until_over(first)
    assert Judgment.objects.count() == 10
    assert JudgingTask.objects.filter(run=first, state=JudgingTask.State.OPEN).count() == asked - 10
    second = work_until_over(paid_run(project, sampler="all"))
    assert Judgment.objects.count() == asked == 28
    assert second.tasks_planned == asked - 10
    assert not JudgingTask.objects.exists()


# --- planned against -------------------------------------------------------------------------


def test_calls_are_planned_over_all_queries_rather_than_spent_on_the_first() -> None:
    project = make_project(queries=5, documents=8)
    run = paid_run(project, judges=2, call_budget=40)
    per_query = [JudgingTask.objects.filter(run=run, pair__query=query).count() for query in project.queries.all()]
    assert per_query == [8, 8, 8, 8, 8]


@pytest.mark.parametrize("wrong", [1.0, 3.0, 0.5])
def test_before_the_first_answer_the_plan_counts_calls_at_the_price_of_the_estimate(wrong: float) -> None:
    project = make_project(queries=5, documents=8)
    run = paid_run(project, cost_budget_micros=20 * COST, planned=False)
    expected = {"calls": 100, "tokens": 100 * TOKENS, "cost_micros": int(wrong * 100 * COST)}
    Run.objects.filter(pk=run.pk).update(estimate=expected)
    run.refresh_from_db()
    advancing.advance(run.pk)
    first = [query.pairs.count() for query in project.queries.order_by("id")]
    assert first == {1.0: [4, 4, 4, 4, 4], 3.0: [2, 1, 1, 1, 1], 0.5: [8, 8, 8, 8, 8]}[wrong]
    run = work_until_over(run)
    assert run.reason == "the budget of $0.00 is spent" and Attempt.objects.count() == 20, "spent all the same"


def test_budget_below_one_cycle_gives_paths_and_below_one_pair_a_query_the_first_queries() -> None:
    project = make_project(queries=2, documents=8)
    run = work_until_over(paid_run(project, pair_budget=6, planned=False))
    assert (run.pairs_planned, run.reason) == (6, "the budget of 6 pairs is spent")
    assert [query.pairs.count() for query in project.queries.order_by("id")] == [3, 3]
    few = make_project(queries=3, documents=8)
    work_until_over(paid_run(few, pair_budget=1, planned=False))
    assert [query.pairs.count() for query in few.queries.order_by("id")] == [1, 0, 0]


@pytest.mark.parametrize("budget", ["pair_budget", "call_budget", "token_budget", "cost_budget_micros"])
@pytest.mark.parametrize("value", [0, -5, 2**63])
def test_budget_that_allows_nothing_is_refused(budget: str, value: int) -> None:
    project = make_project(queries=1)
    order: dict[str, Any] = {budget: value}
    with pytest.raises(RunRefused, match=f"the budget is {value} "):
        ordering.start_run(project, judges=make_judges(project), **order)
    assert not Run.objects.exists()


def test_budgets_are_accepted_by_rest() -> None:
    owner = make_user()
    api = Api(owner)
    path = f"/projects/{make_project(owner=owner, queries=1).slug}/runs"
    body = {"judges": [{"plugin": "test-longer"}], "call_budget": 3, "token_budget": 4, "cost_budget_micros": 5}
    assert api.post(path, body).status_code == 201
    run = Run.objects.get()
    assert (run.call_budget, run.token_budget, run.cost_budget_micros) == (3, 4, 5)
    assert "token_budget" in api.post(path, {**body, "token_budget": 0}).content.decode()


@pytest.mark.parametrize(
    ("allocation", "orders", "calls"),
    [("all", "both", 6.0), ("rotate", "one", 1.0), ("informative", "one", 1.0), ("cascade", "one", 1.8)],
)
def test_calls_of_a_pair_follow_allocation_and_orders(allocation: str, orders: str, calls: float) -> None:
    assert expected_calls_per_pair(allocation, orders, judges=3, threshold=0.2) == pytest.approx(calls)


# --- moved to the queries that need it ---------------------------------------------------------


def pairs_of(query: Query) -> int:
    return query.pairs.count()


def test_what_a_small_query_does_not_need_goes_to_the_others() -> None:
    project = make_project(queries=1, documents=3)
    large = make_query_with_documents(project, 12)
    small = project.queries.order_by("id").first()
    assert small is not None
    run = work_until_over(paid_run(project, sampler="all", pair_budget=40, planned=False))
    assert (pairs_of(small), pairs_of(large)) == (3, 37)
    assert run.pairs_planned == 40


def test_certain_query_stops_and_its_share_is_spent_on_the_uncertain_one() -> None:
    project = make_project(queries=1, documents=10)
    certain = project.queries.get()  # ten documents are their own top ten
    uncertain = make_query_with_documents(project, 30)
    options = {"start_cycles": 1, "enough_recall": 0.99, "pairs_per_candidate": 8.0}
    run = work_until_over(
        paid_run(project, sampler="adaptive", sampler_options=options, pair_budget=100, planned=False), rounds=30
    )
    assert (run.pairs_planned, run.reason) == (100, "the budget of 100 pairs is spent")
    assert pairs_of(certain) == 10, "one cycle, then certain"
    assert pairs_of(uncertain) == 90, "an even share would have been 50"


def test_queries_that_gain_more_get_more_of_a_budget_that_cannot_serve_all() -> None:
    project = make_project(queries=1, documents=11)
    near_certain = project.queries.get()  # ten of eleven: little to learn
    open_question = make_query_with_documents(project, 40)
    options = {"start_cycles": 1, "pairs_per_candidate": 8.0}
    work_until_over(
        paid_run(project, sampler="adaptive", sampler_options=options, pair_budget=110, planned=False), rounds=30
    )
    assert pairs_of(near_certain) + pairs_of(open_question) == 110
    assert pairs_of(open_question) - 40 > pairs_of(near_certain) - 11, "each has had one cycle"


def test_each_round_of_a_sampler_that_shares_rounds_goes_to_the_queries_that_gain_more() -> None:
    project = make_project(queries=1, documents=11)
    near_certain = project.queries.get()
    open_question = make_query_with_documents(project, 40)
    judges = make_judges(project)
    work_until_over(make_run(project, judges=judges, sampler="cycles", sampler_options={"degree": 2}, planned=False))
    run = make_run(
        project, judges=judges, sampler="guided", sampler_options={"round_pairs": 4, "pairs_per_candidate": 90.0},
        pair_budget=60, planned=False,
    )  # fmt: skip
    work_until_over(run, rounds=30)
    shares = [given for job in run.jobs.order_by("id") if (given := job.payload.get("shares"))]
    assert [sum(each.values()) for each in shares] == [8] * 7 + [4], "four a query, also in the first round"
    assert shares[0][str(open_question.pk)] > shares[0].get(str(near_certain.pk), 0)
    assert (pairs_of(near_certain) - 11) + (pairs_of(open_question) - 40) == 60
    assert pairs_of(open_question) - 40 > pairs_of(near_certain) - 11


def test_round_that_is_interrupted_keeps_its_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(queries=2, documents=12)
    monkeypatch.setattr(advancing, "QUERIES_AT_ONCE", 1)
    options = {"start_cycles": 1, "pairs_per_candidate": 5.0}
    run = paid_run(project, sampler="adaptive", sampler_options=options, pair_budget=40)
    judge_all(run)
    rate_stale(project.pk)
    advancing.advance(run.pk)
    run.refresh_from_db()
    shares = run.jobs.order_by("-id").first().payload["shares"]  # type: ignore[union-attr]
    given = {str(query.pk): pairs_of(query) - 12 for query in project.queries.all()}
    assert given == shares
