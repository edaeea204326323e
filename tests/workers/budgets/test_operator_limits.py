"""Limits of the operator: exact over projects, days and concurrent claims; shown to owners, who cannot lift them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F, Sum
from django.test import Client

from labeling import plugins
from labeling.access.annotators import get_judge
from labeling.models import Annotator, Project
from tests.factories.api import Api
from tests.factories.rows import make_project, make_run, make_user
from tests.factories.stubs.plugins import NumberedOptions
from tests.factories.working import COST, TOKENS, PaidJudge, work_until_over
from workers.budgets.changes import change_caps
from workers.budgets.limits import CapReached, standing
from workers.budgets.operator_changes import (
    LimitRefused,
    allow_projects,
    list_limits,
    remove_limit,
    set_limit,
)
from workers.budgets.spend import totals_of_project
from workers.jobs.paid_calls import count_calls, reserve_calls
from workers.judging import queue
from workers.models import Attempt, EndpointSpend, Job, JudgeTrial, Run
from workers.runs import advancing
from workers.runs.ordering import RunRefused
from workers.runs.progress import run_progress

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins", "paid")]


class EndpointOptions(NumberedOptions):
    endpoint: str = ""


class PaidAtEndpoint(PaidJudge):
    """A paid judge that names an endpoint, as language models do."""

    name = "test-paid-at"
    Options = EndpointOptions
    options: EndpointOptions


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins._registry, ("judge", PaidAtEndpoint.name), PaidAtEndpoint)


def judge_at(project: Project, endpoint: str = "gpu", number: int = 0) -> Annotator:
    return get_judge(project, PaidAtEndpoint.name, {"endpoint": endpoint, "number": number})


def run_at(project: Project, endpoint: str = "gpu", **order: Any) -> Run:
    return make_run(project, judges=[judge_at(project, endpoint)], **order)


def yesterday() -> None:
    """Move all that was spent to the day before."""
    EndpointSpend.objects.update(day=F("day") - timedelta(days=1))


@pytest.mark.parametrize(
    ("limit", "calls", "reason"),
    [
        ({"calls": 13}, 13, "the operator's limit of 13 calls at endpoint gpu is reached"),
        ({"tokens": 9 * TOKENS + 5}, 9, "the operator's limit of 995 tokens at endpoint gpu is reached"),
        ({"cost_micros": 6 * COST}, 6, "the operator's limit of $0.00 at endpoint gpu is reached"),
    ],
)
def test_a_limit_in_total_bounds_all_projects_and_owners_cannot_lift_it(
    limit: dict[str, int], calls: int, reason: str
) -> None:
    first, second = make_project(queries=1, documents=8), make_project(queries=2, documents=8)
    set_limit(endpoint="gpu", period="total", **limit)
    work_until_over(run_at(first, pair_budget=4, planned=False))
    run = work_until_over(run_at(second, planned=False))
    assert (run.state, run.reason, run.is_spent) == (Run.State.FINISHED, reason, True)
    assert Attempt.objects.count() == calls
    change_caps(second, {"calls": 1_000_000})
    run.refresh_from_db()
    assert run.state == Run.State.FINISHED
    other = work_until_over(run_at(second, "elsewhere", pair_budget=3, planned=False))
    assert other.reason == "the budget of 3 pairs is spent"


def test_no_call_is_made_beyond_a_limit_by_workers_of_several_projects_at_the_same_time() -> None:
    runs = [run_at(make_project(queries=1, documents=14), sampler="all") for _ in range(3)]
    set_limit(endpoint="gpu", calls=47)
    judges = [run.judges.get().pk for run in runs]

    def claims(worker: int) -> int:
        taken = [
            queue.claim(annotator_id=judges[(worker + turn) % len(judges)], worker=f"w@host:{worker}", limit=5)
            for turn in range(8)
        ]
        connection.close()
        return sum(map(len, taken))

    with ThreadPoolExecutor(4) as workers:
        assert sum(workers.map(claims, range(4))) == 47
    assert list_limits()[0].calls == Attempt.objects.count() == 47


def test_a_day_that_is_spent_keeps_the_run_waiting_and_the_next_day_goes_on() -> None:
    project = make_project(queries=1, documents=8)
    run = run_at(project, planned=False)
    limit = set_limit(endpoint="gpu", calls=5)
    with pytest.raises(AssertionError, match="still judging"):
        work_until_over(run, rounds=3)
    reason = "the operator's limit of 5 calls a day at endpoint gpu is reached"
    assert Attempt.objects.count() == 5
    assert standing(run).waits_for == run_progress(run).reason == reason
    yesterday()
    with pytest.raises(AssertionError, match="still judging"):
        work_until_over(run, rounds=3)
    assert Attempt.objects.count() == 10
    remove_limit(limit.pk)
    assert work_until_over(run).reason == "the design is complete"


def test_owners_see_the_limit_that_keeps_their_run_waiting() -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1, documents=8)
    run = run_at(project)
    set_limit(calls=1)
    queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=9)
    assert Api(owner).get(f"/runs/{run.pk}").json()["reason"] == "the operator's limit of 1 call a day is reached"
    api = Api(owner)
    client = api.client
    client.force_login(owner)
    assert "limit of 1 call a day is reached" in client.get(f"/p/{project.slug}/live/").content.decode()


def test_the_estimate_names_the_limits_that_a_run_would_reach() -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1, documents=8)
    work_until_over(run_at(make_project(queries=1, documents=8), pair_budget=3, planned=False))
    judge = {"plugin": PaidAtEndpoint.name, "options": {"endpoint": "gpu"}}
    order = {"judges": [judge], "sampler": "cycles", "sampler_options": {"degree": 4}}
    api = Api(owner)

    def limits(**changes: Any) -> list[dict[str, Any]]:
        answer = api.post(f"/projects/{project.slug}/runs/estimate", {**order, **changes})
        found: list[dict[str, Any]] = answer.json()["limits"]
        return found

    assert limits() == []
    set_limit(endpoint="gpu", calls=10)
    set_limit(endpoint="elsewhere", calls=1)
    set_limit(endpoint="gpu", project=make_project(), calls=1)
    [ahead] = limits()
    assert ahead["reason"] == "the operator's limit of 10 calls a day at endpoint gpu is reached"
    assert (ahead["limit"], ahead["left"], ahead["expected"], ahead["waits"]) == (10, 7, 16, True)
    assert limits(call_budget=7) == []
    assert [each["is_expected"] for each in limits(call_budget=7, orders="both")] == []
    change_caps(project, {"calls": 4})
    set_limit(calls=10, period="total")
    set_limit(calls=1_000, project=project, period="total")
    assert [(each["limit"], each["waits"]) for each in limits()] == [(4, False), (10, False), (10, True)]
    allow_projects("gpu", [])
    assert limits()[0]["reason"] == "the operator has not allowed this project to use endpoint gpu"


def test_the_page_of_a_new_run_shows_the_limit_before_its_start() -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1, documents=8)
    client = Client()
    client.force_login(owner)
    sent = {"judge": ["bm25"], "sampler": "cycles", "allocation": "all", "orders": "one"}

    def shown() -> str:
        return str(client.post(f"/p/{project.slug}/run/estimate/", sent).content.decode())

    assert "stop early" not in shown()
    change_caps(project, {"calls": 5})
    page = shown()
    assert "Run will stop early" in page and "the project&#x27;s cap of 5 calls is spent" in page
    assert "5 calls are left; the run needs about" in page


def test_raising_a_limit_lets_runs_go_on_that_had_ended_because_of_it() -> None:
    run = run_at(make_project(queries=1, documents=8), planned=False)
    set_limit(period="total", calls=5)
    assert work_until_over(run).is_spent
    set_limit(period="total", calls=9)
    assert (work_until_over(Run.objects.get(pk=run.pk)).is_spent, Attempt.objects.count()) == (True, 9)


def test_limit_of_a_project_leaves_other_projects_alone() -> None:
    first, second = (run_at(make_project(queries=1, documents=8)) for _ in range(2))
    set_limit(project=first.project, calls=2)
    claimed = [
        len(queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=6)) for run in (first, second)
    ]
    assert claimed == [2, 6]


def test_what_a_deleted_run_has_spent_stays_spent_and_what_was_never_asked_does_not_count() -> None:
    run = run_at(make_project(queries=1, documents=8), pair_budget=4, planned=False)
    work_until_over(run)
    set_limit(calls=100)
    Attempt.objects.all().delete()
    assert list_limits()[0].calls == 4
    again = run_at(make_project(queries=1, documents=8))
    claimed = queue.claim(annotator_id=again.judges.get().pk, worker="w@host:1", limit=6)
    assert list_limits()[0].calls == 10
    queue.release(claimed)
    assert list_limits()[0].calls == 4


def test_trials_count_and_are_refused_beyond_the_limit() -> None:
    project = make_project()
    judge = judge_at(project)
    job = Job.objects.create(project=project, stage="trial")
    trial = JudgeTrial.objects.create(project=project, annotator=judge, job=job)
    set_limit(endpoint="gpu", calls=5)
    reserved = reserve_calls(trial, 4)
    with pytest.raises(CapReached, match="the operator's limit of 5 calls a day at endpoint gpu"):
        reserve_calls(trial, 2)
    count_calls(trial, [], reserved=reserved)
    assert list_limits()[0].calls == 0
    reserve_calls(trial, 5)
    assert list_limits()[0].calls == totals_of_project(project.pk).calls == 5


def test_totals_by_endpoint_equal_those_by_run() -> None:
    for endpoint in ("gpu", "elsewhere"):
        work_until_over(run_at(make_project(queries=1, documents=6), endpoint, planned=False))
    names = ("calls", "answers", "input_tokens", "output_tokens", "cost_micros", "in_flight", "unreached")
    sums = {name: Sum(name) for name in names}
    for endpoint in ("gpu", "elsewhere"):
        runs = Run.objects.filter(judges__options__endpoint=endpoint)
        assert EndpointSpend.objects.filter(endpoint=endpoint).aggregate(**sums) == {
            name: sum(getattr(spend, name) for run in runs for spend in run.spends.all()) for name in names
        }


def test_an_endpoint_is_for_the_projects_that_the_operator_allows() -> None:
    allowed, other = make_project(queries=1, documents=8), make_project(queries=1, documents=8)
    runs = {project: run_at(project) for project in (allowed, other)}
    allow_projects("gpu", [allowed])
    claimed = [len(queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=3)) for run in runs.values()]
    assert claimed == [3, 0]
    refused = "the operator has not allowed this project to use endpoint gpu"
    advancing.advance(runs[other].pk)
    ended = Run.objects.get(pk=runs[other].pk)
    assert (ended.reason, ended.is_spent) == (refused, True)
    with pytest.raises(RunRefused, match=refused):
        run_at(other)
    trial = JudgeTrial.objects.create(
        project=other, annotator=judge_at(other), job=Job.objects.create(project=other, stage="trial")
    )
    with pytest.raises(CapReached, match=refused):
        reserve_calls(trial, 1)
    allow_projects("gpu", None)
    assert Run.objects.get(pk=ended.pk).state == Run.State.JUDGING


@pytest.mark.parametrize("wrong", [{}, {"period": "week", "calls": 5}, {"endpoint": "a" * 90, "calls": 1}])
def test_a_limit_that_says_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(LimitRefused):
        set_limit(**wrong)


def test_owners_cannot_see_or_change_limits() -> None:
    owner = make_user()
    make_project(owner=owner)
    api = Api(owner)
    assert api.get("/limits").status_code == 403
    assert api.client.get("/limits/").status_code in (302, 403)
    root = Api(make_user(is_superuser=True))
    body = '{"endpoint": "gpu", "calls": 7}'
    made = root.client.put("/api/v1/limits", body, content_type="application/json", headers=root.headers)
    assert (made.status_code, made.json()["calls"]) == (200, 7)
