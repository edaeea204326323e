"""Caps of a project and budgets of its runs while they are worked on: enforced, raised, and gone on with to the last call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Sum
from django.test import Client
from django.urls import reverse

from labeling import plugins
from labeling.models import AuditEntry, Judgment
from labeling.records import Failure, FailureKind, Usage, Verdict
from tests.factories.api import Api
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts, work_off
from tests.factories.rows import make_judges, make_member, make_probe, make_project, make_run, make_tasks, make_user
from tests.factories.working import COST, TOKENS, PaidJudge, paid_run, work_until_over
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.budgets import changes
from workers.budgets.changes import RunIsOver, change_budgets, change_caps
from workers.budgets.limits import BadBudget, CapReached, check_caps, read_caps
from workers.budgets.spend import totals_of_project
from workers.judging import queue
from workers.models import Attempt, JudgingTask, Run
from workers.runs import transitions
from workers.runs.ordering import start_run
from zelo_site.management.commands import configure

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins", "paid")]


class VotingJudge(PaidJudge):
    """Takes five calls a question."""

    name = "test-voting"
    calls_per_comparison = 5


@pytest.fixture
def paid(monkeypatch: pytest.MonkeyPatch) -> None:
    for judge in (PaidJudge, VotingJudge):
        monkeypatch.setitem(plugins._registry, ("judge", judge.name), judge)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("caps") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "3", "--api-key", KEY) as judge:
        yield judge


@pytest.mark.parametrize(
    ("caps", "calls", "reason"),
    [
        ({"calls": 13}, 13, "the project's cap of 13 calls is spent"),
        ({"tokens": 9 * TOKENS + 5}, 9, "the project's cap of 995 tokens is spent"),
        ({"cost_micros": 6 * COST, "calls": 100}, 6, "the project's cap of $0.00 is spent"),
    ],
)
def test_caps_bound_all_runs_of_a_project_together(caps: dict[str, int], calls: int, reason: str) -> None:
    project = make_project(queries=2, documents=8)
    work_until_over(paid_run(project, pair_budget=4, planned=False))
    change_caps(project, caps)
    run = work_until_over(paid_run(project, planned=False))
    assert (run.state, run.reason, run.is_spent) == (Run.State.FINISHED, reason, True)
    assert Attempt.objects.filter(run__project=project).count() == calls


def test_caps_hold_under_workers_of_several_runs_that_claim_at_the_same_time() -> None:
    project = make_project(queries=1, documents=14)
    runs = [paid_run(project, sampler="all", pair_budget=30), paid_run(project, judges=2, sampler="all")]
    judges = sorted({task.annotator_id for task in JudgingTask.objects.filter(run__in=runs)})
    change_caps(project, {"calls": 47})

    def claims(worker: int) -> int:
        taken = [
            queue.claim(annotator_id=judges[(worker + turn) % len(judges)], worker=f"w@host:{worker}", limit=5)
            for turn in range(8)
        ]
        connection.close()
        return sum(map(len, taken))

    with ThreadPoolExecutor(4) as workers:
        assert sum(workers.map(claims, range(4))) == 47


def test_another_project_is_not_held_up() -> None:
    (task,) = make_tasks()
    change_caps(make_project(), {"calls": 1})
    assert len(queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=5)) == 1


def test_question_of_several_calls_is_reckoned_with_all_of_them() -> None:
    project = make_project(queries=1, documents=8)
    run = make_run(project, judges=make_judges(project, plugin="test-voting"), sampler="all", call_budget=17)
    judge = run.judges.get()
    assert len(queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=100)) == 3
    assert queue.claim(annotator_id=judge.pk, worker="w@host:2", limit=100) == []


def test_run_that_had_spent_its_budget_goes_on_when_it_is_raised_and_asks_nothing_twice() -> None:
    project = make_project(queries=2, documents=8)
    run = work_until_over(paid_run(project, call_budget=10, planned=False))
    assert (run.state, run.is_spent) == (Run.State.FINISHED, True)
    run = change_budgets(run, {"call_budget": 14}, by=make_user("olga"))
    assert (run.state, run.reason) == (Run.State.JUDGING, "")
    run = work_until_over(run)
    assert (run.reason, Attempt.objects.count()) == ("the budget of 14 calls is spent", 14)
    run = work_until_over(change_budgets(run, {"call_budget": None}))
    assert (run.state, run.reason, run.is_spent) == (Run.State.FINISHED, "the design is complete", False)
    whole = work_until_over(paid_run(make_project(queries=2, documents=8), planned=False))
    assert run.pairs_planned == whole.pairs_planned, "the same design as if no budget had been there"
    assert Judgment.objects.filter(annotator__project=project).count() == run.tasks_planned
    entry = AuditEntry.objects.filter(action="run.budget").order_by("id").first()
    assert entry is not None
    assert (entry.action, entry.actor_name, entry.details) == ("run.budget", "olga", {"call_budget": "10 → 14"})


def test_asking_the_dead_again_spends_no_budget_that_is_used_up_and_goes_on_when_it_is_raised() -> None:
    project = make_project(queries=2, documents=8)
    run = paid_run(project, call_budget=10)
    (task,) = queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=1)
    queue.fail([(task, Failure(FailureKind.REFUSAL, "no", retryable=False))])
    run = work_until_over(run)
    assert run.is_spent and Attempt.objects.count() == 10
    assert queue.retry_dead(run_ids=[run.pk]) == {run.pk: 1}
    run.refresh_from_db()
    assert (run.state, run.is_spent) == (Run.State.JUDGING, False), "whether it is spent is asked anew"
    run = work_until_over(run)
    assert (run.state, run.is_spent, Attempt.objects.count()) == (Run.State.FINISHED, True, 10)
    assert JudgingTask.objects.get(pk=task.id).state == "open"
    run = work_until_over(change_budgets(run, {"call_budget": None}))
    assert (run.reason, run.is_spent) == ("the design is complete", False)
    assert Judgment.objects.count() == run.tasks_planned
    assert Attempt.objects.count() == run.tasks_planned + 1, "the one that failed was asked twice"


def test_run_that_a_cap_ended_goes_on_when_the_cap_is_raised() -> None:
    project = make_project(queries=2, documents=8)
    change_caps(project, {"calls": 5})
    run = work_until_over(paid_run(project, planned=False))
    assert run.reason == "the project's cap of 5 calls is spent"
    change_caps(project, {"calls": 5, "tokens": 10**6})
    run.refresh_from_db()
    assert run.state == Run.State.FINISHED, "nothing was raised"
    change_caps(project, {"calls": None})
    run.refresh_from_db()
    assert run.state == Run.State.JUDGING
    assert work_until_over(run).reason == "the design is complete"


def test_budget_of_pairs_is_raised_too() -> None:
    run = work_until_over(paid_run(make_project(queries=1, documents=8), sampler="all", pair_budget=5, planned=False))
    run = work_until_over(change_budgets(run, {"pair_budget": 9}))
    assert (run.reason, run.pairs_planned) == ("the budget of 9 pairs is spent", 9)


def test_run_that_ended_otherwise_does_not_come_back() -> None:
    project = make_project(queries=1, documents=4)
    run = work_until_over(paid_run(project, call_budget=1000, planned=False))
    assert (run.reason, change_budgets(run, {"call_budget": 2000}).state) == ("the design is complete", "finished")
    other = paid_run(make_project(queries=1, documents=8))
    transitions.cancel_run(other)
    with pytest.raises(RunIsOver):
        change_budgets(other, {"call_budget": 2000})


@pytest.mark.parametrize("value", [0, -1, 2**63])
def test_cap_that_allows_nothing_is_refused(value: int) -> None:
    project = make_project()
    with pytest.raises(BadBudget):
        change_caps(project, {"calls": value})
    assert read_caps(project.pk).calls is None
    with pytest.raises(TypeError):
        changes.change_caps(project, {"pairs": 3})


def test_pausing_and_cancelling_at_any_time_loses_no_answer_and_no_booking() -> None:
    project = make_project(queries=1, documents=8)
    run = paid_run(project, sampler="all")
    judge = run.judges.get()
    first = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=5)
    assert transitions.pause_run(run)
    assert queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=5) == []
    queue.finish([(each, Verdict(0.6, usage=Usage(100, 10, COST))) for each in first[:2]])
    assert transitions.resume_run(run)
    second = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=5)
    assert transitions.cancel_run(run)
    queue.finish([(each, Verdict(0.6, usage=Usage(100, 10, COST))) for each in [*first[2:], *second]])
    assert Judgment.objects.count() == Attempt.objects.exclude(outcome="").count() == 10
    assert totals_of_project(project.pk).cost_micros == 10 * COST
    assert not JudgingTask.objects.exists()


def test_probe_asks_nothing_beyond_the_caps() -> None:
    (task,) = make_tasks()
    project = task.run.project
    change_caps(project, {"calls": 12})
    make_probe(task.annotator, calls=7)
    check_caps(project.pk, task.annotator_id, 5)
    with pytest.raises(CapReached, match="6 more questions are too many, 5 can be asked"):
        check_caps(project.pk, task.annotator_id, 6)


def test_cap_reached_raised_and_finished_with_the_ledger_equal_to_our_books(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"input_price": 2.0, "output_price": 8.0})
    project = make_texts(queries=2, documents=12)
    judge = make_judge(project, "capped")
    paid_before = fake.summary()["paid"]
    change_caps(project, {"calls": 20})
    run = work_off(start_run(project, judges=[judge], seed=1), [judge])
    assert run.reason == "the project's cap of 20 calls is spent"
    assert fake.summary()["paid"] - paid_before == Attempt.objects.count() == 20
    change_caps(project, {"calls": None, "cost_micros": 10**9})
    run.refresh_from_db()
    run = work_off(run, [judge])
    assert (run.state, run.reason) == (Run.State.FINISHED, "the design is complete")
    books, paid = totals_of_project(project.pk), fake.summary()["paid"] - paid_before
    assert books.calls == paid == Judgment.objects.count() == run.tasks_planned
    assert books.cost_micros == Attempt.objects.aggregate(paid=Sum("cost_micros"))["paid"] > 0


def test_caps_and_budgets_over_rest() -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=2, documents=8)
    run = work_until_over(paid_run(project, call_budget=3, planned=False))
    path, api = f"/projects/{project.slug}/caps", Api(owner)
    assert api.get(path).json()["spent_calls"] == 3
    assert api.patch(path, {"calls": 5, "cost_micros": 9}).json()["calls"] == 5
    assert api.patch(path, {"cost_micros": None}).json() == {
        "calls": 5, "tokens": None, "cost_micros": None,
        "spent_calls": 3, "spent_tokens": 3 * TOKENS, "spent_cost_micros": 3 * COST,
    }  # fmt: skip
    assert api.patch(path, {"calls": 0}).status_code == 422
    assert api.patch(f"/runs/{run.pk}", {"call_budget": 4}).json()["state"] == "judging"
    viewer = Api(make_member(project))
    assert viewer.get(path).status_code == 200
    assert viewer.patch(path, {"calls": 6}).status_code == 403
    assert viewer.patch(f"/runs/{run.pk}", {"call_budget": 6}).status_code == 403
    stranger = Api(make_user())
    assert stranger.get(path).status_code == stranger.patch(f"/runs/{run.pk}", {}).status_code == 404
    transitions.cancel_run(run)
    assert api.patch(f"/runs/{run.pk}", {"call_budget": 6}).status_code == 409


def test_budget_page_shows_what_is_spent_and_lets_the_run_go_on(client: Client) -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=2, documents=8)
    run = work_until_over(paid_run(project, call_budget=3, planned=False))
    client.force_login(owner)
    address = reverse("budget", args=[project.slug, run.pk])
    assert address in client.get(reverse("project", args=[project.slug])).content.decode()
    html = client.get(address).content.decode()
    assert "the budget of 3 calls is spent" in html and "Estimate and spend" in html
    assert (
        '<th scope="row">Calls</th><td class="number">–</td><td class="number">3</td><td class="number">3</td>' in html
    )
    refused = client.post(address, {"call_budget": "-4", "cost_budget_micros": "2.5"})
    assert refused.status_code == 422 and 'value="-4"' in refused.content.decode()
    assert client.post(address, {"call_budget": "6", "cost_budget_micros": "2.5"}).status_code == 302
    run.refresh_from_db()
    assert (run.state, run.call_budget, run.cost_budget_micros) == ("judging", 6, 2_500_000)
    client.force_login(make_member(project))
    assert client.get(address).status_code == 403


def test_caps_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(configure, "database", contextlib.nullcontext)
    project = make_project()
    call_command("configure", project.slug, "--calls", "5000", "--dollars", "12.5")
    assert "5,000 calls, $12.50" in capsys.readouterr().out
    call_command("configure", project.slug, "--calls", "none")
    assert read_caps(project.pk).calls is None
    assert read_caps(project.pk).cost_micros == 12_500_000
    for wrong in ("0", "-3", "2.5", "many"):
        with pytest.raises(CommandError, match="pass a number above 0"):
            call_command("configure", project.slug, "--calls", wrong)
