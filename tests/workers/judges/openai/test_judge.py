"""The judge over HTTP against the fake judge: a real server in another process, no database."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydantic
import pytest

from labeling.plugins import get_plugin
from labeling.records import Failure, FailureKind, Verdict
from tests.factories.http_panel import KEY
from tests.factories.questions import comparison, failure, only, verdict
from tests.fake_judge.modes import EVERY_MODE, ONE_MODE
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.fake_judge.quality import quality_key
from workers.endpoints.failures import NotAsked
from workers.endpoints.gates import Pace
from workers.judges.openai.judge import OpenAIHttpJudge

pytestmark = pytest.mark.usefixtures("no_faults_left")


def know(fake: FakeJudge, **qualities: float) -> None:
    fake.control("settings", {"quality": {quality_key(text): value for text, value in qualities.items()}})


def expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# --- answers -----------------------------------------------------------------------------


def test_judge_comes_by_the_registry() -> None:
    assert get_plugin("judge", "openai-http") is OpenAIHttpJudge


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("mode", ["logprob", "reasoned"])
def test_preference_is_that_of_a_in_either_order(
    fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge], mode: str, swapped: bool
) -> None:
    know(fake, carp=1.5, crow=0.5)
    answer = verdict(judge_with(mode=mode).judge([comparison("carp", "crow", swapped=swapped)]))
    assert answer.preference == pytest.approx(expit(1.0), abs=1e-6)
    shown = fake.ledger()[-1]
    query = "what is a goldfish"
    expected = [quality_key(text, query)[:12] for text in (("crow", "carp") if swapped else ("carp", "crow"))]
    assert [shown["first"], shown["second"]] == expected


@pytest.mark.parametrize("in_one_call", [True, False])
def test_votes_are_counted(fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge], in_one_call: bool) -> None:
    know(fake, carp=1.5, crow=0.5)
    judge = judge_with(mode="sampled", votes=10, votes_in_one_call=in_one_call)
    before = fake.summary()["calls"]
    answer = verdict(judge.judge([comparison("carp", "crow")]))
    assert answer.preference is not None
    assert answer.preference * 10 == pytest.approx(round(answer.preference * 10))
    assert 0.3 <= answer.preference <= 1.0
    assert fake.summary()["calls"] - before == judge.calls_per_comparison == (1 if in_one_call else 10)


def test_rationale_is_kept(judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    assert "serves its query better" in verdict(judge_with(mode="reasoned").judge([comparison()])).rationale


@pytest.mark.parametrize("qualities, expected", [((2.5, 0.0), 1.0), ((0.2, 0.0), 0.5), ((0.0, 2.5), 0.0)])
def test_clamping_rounds_to_win_tie_or_loss(
    fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge], qualities: tuple[float, float], expected: float
) -> None:
    know(fake, carp=qualities[0], crow=qualities[1])
    assert verdict(judge_with(clamp=True).judge([comparison("carp", "crow")])).preference == expected


def test_cross_query_pair_shows_each_document_with_its_query(
    fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    fake.control(
        "settings",
        {"quality": {quality_key("pike", "what is a goldfish"): 0.0, quality_key("oak", "which trees grow old"): 2.0}},
    )
    for swapped in (False, True):
        question = comparison("pike", "oak", query_b="which trees grow old", swapped=swapped)
        assert verdict(judge_with().judge([question])).preference == pytest.approx(expit(-2.0), abs=1e-6)


def test_answers_come_in_the_order_of_questions(fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    names = [f"species{i}" for i in range(60)]
    know(fake, **{name: i / 20 for i, name in enumerate(names)}, crow=1.0)
    answers = judge_with().judge([comparison(name, "crow", swapped=bool(i % 2)) for i, name in enumerate(names)])
    preferences = [answer.preference for answer in answers if isinstance(answer, Verdict)]
    assert preferences == pytest.approx([expit(i / 20 - 1.0) for i in range(60)], abs=1e-6)


def test_usage_and_cost_follow_the_endpoints_prices(
    fake: FakeJudge, define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    define(input_price=2.5, output_price=10.0)
    usage = verdict(judge_with(mode="reasoned").judge([comparison()])).usage
    line = fake.ledger()[-1]
    assert (usage.input_tokens, usage.output_tokens) == (line["input_tokens"], line["output_tokens"])
    assert usage.cost_micros == math.ceil(2.5 * usage.input_tokens + 10.0 * usage.output_tokens)
    assert usage.latency_s > 0


def test_documents_are_cut_by_one_rule_and_flagged(judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    short = judge_with(max_document_tokens=8)
    assert not verdict(short.judge([comparison("x" * 32, "y")])).truncated
    assert verdict(short.judge([comparison("x" * 33, "y")])).truncated
    assert verdict(short.judge([comparison("y", "x" * 33)])).truncated


def test_empty_batch_makes_no_call(fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    before = fake.summary()["calls"]
    assert judge_with().judge([]) == []
    assert fake.summary()["calls"] == before


# --- failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["logprob", "reasoned", "sampled"])
def test_every_fault_is_a_failure_of_its_own_kind(
    fake: FakeJudge, define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge], mode: str
) -> None:
    for model in EVERY_MODE:
        fake.set_judge(model, fault_rates={model: 1.0})
    found = {}
    for model in EVERY_MODE:
        define(timeout_s=0.3 if model in {"hang", "trickle"} else 5.0)
        answer = only(judge_with(mode=mode, model=model).judge([comparison()]))
        assert isinstance(answer, Failure), (model, answer)
        found[model] = (answer.kind, answer.retryable, answer.retry_after_s)
        assert KEY not in answer.message
    assert found == EVERY_MODE


@pytest.mark.parametrize("mode, fault, kind, retryable", ONE_MODE)
def test_unreadable_answer_is_no_vote(
    fake: FakeJudge,
    judge_with: Callable[..., OpenAIHttpJudge],
    mode: str,
    fault: str,
    kind: FailureKind,
    retryable: bool,
) -> None:
    fake.order_faults(fault)
    answer = failure(judge_with(mode=mode).judge([comparison()]))
    assert (answer.kind, answer.retryable) == (kind, retryable), answer
    assert answer.usage.input_tokens > 0  # it was paid for all the same


def test_date_in_retry_after_is_read(fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    fake.order_faults("rate_limited_date")
    answer = failure(judge_with().judge([comparison()]))
    assert answer.retry_after_s is not None and 0.0 <= answer.retry_after_s <= 2.0


def test_one_failure_leaves_the_rest_of_the_batch_alone(
    fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    fake.set_judge("flaky", fault_rates={"http_500": 0.3})
    answers = judge_with(model="flaky").judge([comparison(f"text {i}", "crow") for i in range(60)])
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    assert 5 < len(failed) < 35
    assert {answer.kind for answer in failed} == {FailureKind.UNAVAILABLE}
    assert fake.summary()["by_model"]["flaky"] == 60


def test_server_that_is_down_is_unavailable(
    define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge], tmp_path: Path
) -> None:
    with running_fake_judge(tmp_path / "ledger.jsonl") as gone:
        define(base_url=gone.base_url)
    answer = failure(judge_with().judge([comparison()]))
    assert (answer.kind, answer.retryable) == (FailureKind.UNAVAILABLE, True)
    assert answer.usage.input_tokens == 0


def test_call_without_a_reply_is_booked_as_possibly_paid(
    fake: FakeJudge, define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    define(timeout_s=0.2, input_price=1.0)
    fake.order_faults("hang")
    usage = failure(judge_with().judge([comparison()])).usage
    assert usage.cost_micros == usage.input_tokens > 0


@pytest.mark.parametrize(
    ("faults", "rows"),
    [
        (["", "", "hang"], 3),
        (["hang", "", "hang"], 3),
        (["bad_request", "", ""], 3),
        (["rate_limited", "", ""], 2),
        (["truncated_json", "http_500", "rate_limited"], 2),
    ],
)
def test_every_vote_that_was_paid_is_booked_when_another_fails(
    fake: FakeJudge,
    define: Callable[..., None],
    judge_with: Callable[..., OpenAIHttpJudge],
    faults: list[str],
    rows: int,
) -> None:
    define(timeout_s=1.0, input_price=1.0, output_price=1.0)
    before = fake.summary()["paid"]
    fake.order_faults(*faults)
    answer = failure(judge_with(mode="sampled", votes=3, votes_in_one_call=False).judge([comparison()]))
    paid = fake.summary()["paid"] - before
    assert len(answer.usage.calls) == rows
    booked = [call for call in answer.usage.calls if call.cost_micros > 0]
    assert len(booked) >= paid >= faults.count(""), "what may be charged for stands in the books"
    assert answer.usage.cost_micros == sum(call.cost_micros for call in booked)
    assert not isinstance(answer, NotAsked)


def test_votes_none_of_which_was_asked_cost_nothing(
    fake: FakeJudge, define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    define(rpm=1.0)
    judge = judge_with(mode="sampled", votes=2, votes_in_one_call=False, batch_deadline_s=0.5)
    judge.judge([comparison()])  # takes what the minute has
    before = fake.summary()["calls"]
    answer = failure(judge.judge([comparison()]))
    assert isinstance(answer, NotAsked) and answer.usage.calls == () and answer.usage.cost_micros == 0
    assert fake.summary()["calls"] == before


def test_deadline_of_a_call_counts_in_total_and_not_between_bytes(
    fake: FakeJudge, define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    define(timeout_s=0.3)
    fake.order_faults("trickle")
    assert failure(judge_with().judge([comparison()])).kind is FailureKind.TIMEOUT  # the whole reply would be an answer


def test_redirect_is_not_followed(fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    before = fake.summary()["calls"]
    fake.order_faults("redirect")
    assert "redirects are not followed" in failure(judge_with().judge([comparison()])).message
    assert fake.summary()["calls"] == before + 1


def test_label_outside_the_alternatives_can_take_their_floor(
    fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    fake.order_faults("one_label")
    answer = verdict(judge_with(missing_label="floor").judge([comparison()]))
    assert answer.preference == pytest.approx(1.0, abs=1e-4)


# --- limits ------------------------------------------------------------------------------


def test_no_more_calls_are_in_flight_than_allowed(
    define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge], tmp_path: Path
) -> None:
    with running_fake_judge(tmp_path / "ledger.jsonl", "--latency-ms", "30") as own:
        define(base_url=own.base_url, max_concurrency=4)
        judge = judge_with()
        with ThreadPoolExecutor(3) as threads:
            batches = [[comparison(f"{batch} {i}", "crow") for i in range(12)] for batch in range(3)]
            answers = [answer for batch in threads.map(judge.judge, batches) for answer in batch]
        assert all(isinstance(answer, Verdict) for answer in answers)
        assert own.summary()["most_in_flight"] == 4


def test_rate_limit_holds_back_what_cannot_be_asked_in_time(
    fake: FakeJudge, define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge]
) -> None:
    define(rpm=120)
    before = fake.summary()["calls"]
    answers = judge_with(batch_deadline_s=1.2).judge([comparison(f"text {i}", "crow") for i in range(12)])
    held_back = [answer for answer in answers if isinstance(answer, NotAsked)]
    assert len(held_back) + fake.summary()["calls"] - before == 12
    assert 1 <= len(held_back) <= 11
    assert all(answer.retryable and answer.kind is FailureKind.RATE_LIMITED for answer in held_back)


def test_call_that_begins_has_its_full_time(
    define: Callable[..., None], judge_with: Callable[..., OpenAIHttpJudge], tmp_path: Path
) -> None:
    with running_fake_judge(tmp_path / "ledger.jsonl", "--latency-ms", "400") as own:
        define(base_url=own.base_url, max_concurrency=1, timeout_s=3.0)
        answers = judge_with(batch_deadline_s=4.0).judge([comparison(f"text {i}", "crow") for i in range(10)])
        kinds = [type(answer) for answer in answers]
        assert set(kinds) == {Verdict, NotAsked}  # and no call was broken off in the middle
        assert own.summary()["calls"] == kinds.count(Verdict)


def test_retry_after_makes_the_others_wait(fake: FakeJudge, judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    fake.control("faults", {"retry_after_s": 30})
    fake.order_faults("rate_limited")
    judge = judge_with(batch_deadline_s=1.0, model="patient")
    try:
        assert failure(judge.judge([comparison()])).retry_after_s == 30
        before = fake.summary()["calls"]
        held_back = failure(judge.judge([comparison()]))
    finally:
        fake.control("faults", {"retry_after_s": 0.05})
        _forget_connections()
    assert isinstance(held_back, NotAsked)
    assert held_back.retry_after_s == pytest.approx(30, abs=2)
    assert fake.summary()["calls"] == before


def _forget_connections() -> None:
    from workers.judges.openai.http import client

    client._connections.clear()


def test_pace_spreads_calls_and_allows_the_burst_of_a_second() -> None:
    pace = Pace(per_minute=120)
    waits = []
    for _ in range(4):
        waits.append(pace.wait_s(now=100.0))
        pace.spend(1, now=100.0)
    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.5])


def test_child_of_a_fork_can_call(judge_with: Callable[..., OpenAIHttpJudge]) -> None:
    judge = judge_with()
    verdict(judge.judge([comparison()]))  # the loop runs in this process
    child = os.fork()
    if child == 0:
        os._exit(0 if isinstance(only(judge.judge([comparison("x", "y")])), Verdict) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- options -----------------------------------------------------------------------------


def test_fields_that_spend_or_route_need_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"endpoint": "x", "model": "y"}
    OpenAIHttpJudge.from_dict({**known, "extra_body": {"reasoning_effort": "none", "top_k": 1}})
    for name in (
        "service_tier",
        "provider",
        "models",
        "tools",
        "web_search_options",
        "plugins",
        "store",
        "chat_template",
    ):
        monkeypatch.delenv("ZELO_EXTRA_BODY", raising=False)
        with pytest.raises(pydantic.ValidationError, match=f"may not set {name}; the operator can allow"):
            OpenAIHttpJudge.from_dict({**known, "extra_body": {name: "priority"}})
        monkeypatch.setenv("ZELO_EXTRA_BODY", f"a, {name}")
        OpenAIHttpJudge.from_dict({**known, "extra_body": {name: "priority"}})
    monkeypatch.setenv("ZELO_EXTRA_BODY", "a,")
    for smuggled in ({"": 1}, {"chat_template_kwargs": {"enable_thinking": False, "chat_template": "{{ x }}"}}):
        with pytest.raises(pydantic.ValidationError, match="may not set"):
            OpenAIHttpJudge.from_dict({**known, "extra_body": smuggled})
    monkeypatch.setenv("ZELO_EXTRA_BODY", "chat_template")
    OpenAIHttpJudge.from_dict({**known, "extra_body": {"chat_template_kwargs": {"chat_template": "{{ x }}"}}})


def test_options_may_not_contradict_the_mode() -> None:
    with pytest.raises(pydantic.ValidationError, match="may not set logprobs"):
        OpenAIHttpJudge.from_dict({"endpoint": "x", "model": "y", "extra_body": {"logprobs": False}})
    with pytest.raises(pydantic.ValidationError, match="endpoint"):
        OpenAIHttpJudge.from_dict({})
