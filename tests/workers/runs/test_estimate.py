"""The estimate of a run holds: what is spent over HTTP stays below its bounds, in every mode, and near what is expected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.test import Client
from django.urls import reverse

from labeling.models import Candidate, Document, Project, Query
from labeling.plugins import get_plugin
from labeling.projects import create_project
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts, work_off
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.budgets.changes import change_budgets
from workers.budgets.limits import Budgets
from workers.budgets.spend import totals_of_run
from workers.judging.failures import retry_failures
from workers.models import Attempt, Run
from workers.runs.estimate import ChosenJudge, estimate_run
from workers.runs.ordering import start_run
from workers.runs.progress import run_progress

pytestmark = pytest.mark.django_db(transaction=True)

MODES: list[dict[str, Any]] = [
    {"mode": "logprob"},
    {"mode": "reasoned", "max_output_tokens": 200},
    {"mode": "sampled", "votes": 3},
    {"mode": "sampled", "votes": 3, "votes_in_one_call": False},
]


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("estimate") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "3", "--api-key", KEY) as judge:
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 32, "input_price": 0.4, "output_price": 1.6})


def make_uneven() -> Project:
    """A query whose documents differ in length by a factor of two hundred."""
    project = create_project("uneven")
    query = Query.objects.create(project=project, external_id="q", text="what is it about?")
    for place in range(10):
        text = f"Text {place}: " + "it speaks of carp, of 1,234 ponds and of Fischzucht; " * (1 + 20 * (place % 3))
        document = Document.objects.create(project=project, external_id=f"d{place}", text=text)
        Candidate.objects.create(query=query, document=document, first_stage_rank=place + 1)
    return project


@pytest.mark.parametrize("options", MODES, ids=lambda each: f"{each['mode']}{len(each)}")
@pytest.mark.parametrize("make", [make_texts, make_uneven])
def test_spend_is_near_the_estimate_and_below_its_bound(options: dict[str, Any], make: Any) -> None:
    project = make() if make is make_uneven else make_texts(documents=12)
    judge = make_judge(project, "priced", **options)
    run = work_off(start_run(project, judges=[judge], sampler="cycles", seed=1), [judge])
    spent, expected = totals_of_run(run.pk), run.estimate
    assert run.state == "finished" and spent.calls == expected["calls"]
    tokens = spent.input_tokens + spent.output_tokens
    # An endpoint may ignore `n`: until it has shown that it does not, the bound counts a call for each vote.
    unproven = options.get("votes", 1) if options.get("votes_in_one_call", True) else 1
    assert 0 < tokens <= expected["most_tokens"] < unproven * (8 * tokens + 600 * spent.calls)
    assert 0 < spent.cost_micros <= expected["most_cost_micros"]
    assert expected["tokens"] == pytest.approx(tokens, rel=0.45)
    assert run_progress(run).estimate == expected


def test_earlier_calls_replace_the_guess(fake: FakeJudge) -> None:
    project = make_uneven()
    judge = make_judge(project, "priced", mode="reasoned")
    first = work_off(start_run(project, judges=[judge], sampler="cycles", seed=1), [judge])
    again = make_judge(project, "priced", mode="reasoned", max_output_tokens=400)
    second = start_run(project, judges=[again], sampler="cycles", seed=2)
    spent = totals_of_run(first.pk)
    assert spent.calls >= 20
    assert second.estimate["tokens"] == pytest.approx(spent.input_tokens + spent.output_tokens, rel=0.01)
    assert second.estimate["tokens"] != first.estimate["tokens"]


def test_the_time_between_two_runs_does_not_slow_an_estimate() -> None:
    project = make_texts(documents=8)
    judge = make_judge(project, "priced", mode="logprob")
    work_off(start_run(project, judges=[judge], sampler="cycles", seed=1), [judge])
    ids = list(Attempt.objects.order_by("pk").values_list("pk", flat=True))
    day, earlier = timedelta(days=1), Attempt.objects.filter(pk__in=ids[: len(ids) // 2])
    earlier.update(started_at=F("started_at") - day, finished_at=F("finished_at") - day)
    chosen = [ChosenJudge(get_plugin("judge", judge.plugin), judge.options)]
    found = estimate_run(
        project, chosen, sampler="cycles", sampler_options={}, allocation="all", orders="one", budgets=Budgets()
    )
    assert found.is_measured and found.seconds is not None and found.seconds < 300


def test_a_tokenizer_that_is_not_on_this_machine_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_MODELS", "nobody/has-this")
    project = make_uneven()
    plain, named = (make_judge(project, "priced", tokenizer=name) for name in ("", "nobody/has-this"))
    assert plain.pk != named.pk
    first, second = (start_run(project, judges=[judge], sampler="cycles", seed=1) for judge in (plain, named))
    assert first.estimate == second.estimate != {}


def test_pages_show_the_estimate_beside_the_spend(admin_client: Client) -> None:
    project = make_texts(documents=6)
    judge = make_judge(project, "priced", mode="logprob")
    sent = {"judge": ["openai-http"], "judge-openai-http-endpoint": "fake", "judge-openai-http-model": "priced",
            "sampler": "cycles", "allocation": "all", "orders": "one"}  # fmt: skip
    before = admin_client.post(reverse("estimate", args=[project.slug]), sent).content.decode()
    assert "expected; at most $0.0" in before
    run = work_off(start_run(project, judges=[judge], seed=1), [judge])
    shown = admin_client.get(reverse("budget", args=[project.slug, run.pk])).content.decode()
    assert f"{run.estimate['most_tokens']:,}" in shown
    assert f"${run.estimate['most_cost_micros'] / 1e6:.4f}" in shown
    answer = admin_client.get(f"/api/v1/runs/{run.pk}").json()
    assert answer["estimate"] == run.estimate


def test_the_estimate_says_that_an_endpoint_has_no_prices(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, admin_client: Client
) -> None:
    project = make_texts(documents=6)
    sent = {"judge": ["openai-http"], "judge-openai-http-endpoint": "fake", "judge-openai-http-model": "free",
            "sampler": "cycles", "allocation": "all", "orders": "one", "cost_budget": "1"}  # fmt: skip
    said = "An endpoint has no prices, so a budget in dollars does not limit its judges."
    assert said not in admin_client.post(reverse("estimate", args=[project.slug]), sent).content.decode()
    define_endpoints(monkeypatch, fake, {"max_concurrency": 32})
    assert said in admin_client.post(reverse("estimate", args=[project.slug]), sent).content.decode()


def test_a_run_is_held_to_its_bound_however_many_calls_are_retried(fake: FakeJudge) -> None:
    project = make_texts(documents=24)
    sure, flaky = (make_judge(project, name, mode="logprob") for name in ("sure", "flaky"))
    fake.set_judge("flaky", fault_rates={"truncated_json": 0.2})  # so few that the judge is never paused for them
    needed = totals_of_run(work_off(start_run(project, judges=[sure], sampler="cycles", seed=1), [sure]).pk)
    run = start_run(project, judges=[flaky], sampler="cycles", seed=1)
    expected = run.estimate
    assert expected["most_calls"] >= 5 * expected["calls"]
    # As if the texts were as dense as a bound assumes: it has room for one retry in twenty.
    tight = {
        "most_tokens": (needed.input_tokens + needed.output_tokens) * 21 // 20,
        "most_cost_micros": needed.cost_micros * 21 // 20,
    }
    Run.objects.filter(pk=run.pk).update(estimate=expected | tight)
    run = work_off(run, [flaky])
    spent = totals_of_run(run.pk)
    assert run.is_spent and "the estimate's upper bound of" in run.reason and run.tasks.filter(state="open").exists()
    assert 0.9 * tight["most_cost_micros"] < spent.cost_micros <= tight["most_cost_micros"]
    assert spent.input_tokens + spent.output_tokens <= tight["most_tokens"]
    run = work_off(change_budgets(run, {}), [flaky])
    assert not run.is_spent and "question_tokens" not in run.estimate
    assert totals_of_run(run.pk).calls > 1.12 * expected["calls"]


def test_a_retry_that_a_person_orders_raises_the_bound(fake: FakeJudge) -> None:
    project = make_texts(documents=6)
    judge = make_judge(project, "mute", mode="logprob")
    fake.set_judge("mute", fault_rates={"null_logprobs": 1.0})
    run = work_off(start_run(project, judges=[judge], sampler="cycles", seed=1), [judge])
    before = run.estimate
    questions = retry_failures(project)
    run.refresh_from_db()
    assert questions > 0
    for name in ("tokens", "cost_micros"):
        assert run.estimate[f"most_{name}"] == before[f"most_{name}"] + questions * before[f"question_{name}"]


def test_every_pair_of_a_cascade_may_be_close(fake: FakeJudge) -> None:
    project = make_texts(documents=10)
    first, second = (make_judge(project, name, mode="logprob") for name in ("cheap", "dear"))
    run = start_run(
        project, judges=[first, second], sampler="cycles", allocation="cascade", cascade_threshold=0.1, seed=1
    )
    assert run.estimate["most_calls"] >= 5 * 2 * 40 > 5 * run.estimate["calls"]
