"""Questions go out in batches and come back: in any order, in part, late, or not at all."""

from __future__ import annotations

import io
import json
import socket
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from labeling.access.annotators import get_judge
from labeling.models import AuditEntry, Judgment
from labeling.records import FailureKind
from tests.factories.batches import FAST, batch_run, out, step, work_until
from tests.factories.http_panel import define_endpoints
from tests.fake_judge.process import FakeJudge
from tests.processes.elsewhere import dripping
from workers.budgets.changes import change_budgets
from workers.budgets.spend import totals_of_run
from workers.endpoints.batching import batch_status
from workers.endpoints.registry import get_endpoint
from workers.judges.openai.http import batch_client
from workers.judges.openai.http.batch_client import BatchCallFailed, BatchClient
from workers.judging import batches
from workers.judging.failures import resume_and_retry
from workers.judging.provider_batches.delivery import BatchIsOver, ask_to_cancel
from workers.models import Attempt, JudgingTask, ProviderBatch, Run
from workers.runs.ordering import start_run
from workers.runs.transitions import cancel_run

pytestmark = pytest.mark.django_db(transaction=True)

DOCUMENTS = 6
QUESTIONS = DOCUMENTS * (DOCUMENTS - 1) // 2


def test_a_run_in_batches_stores_every_answer_at_the_price_of_batches(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judge = batch_run(monkeypatch, fake)
    step(run, judge)
    batch = out()
    assert batch.requests == QUESTIONS
    reserved = totals_of_run(run.pk)
    assert reserved.cost_micros == batch.cost_micros > 0, "money is reserved while the batch is out"
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"reserved"}
    work_until(run, judge)
    batch.refresh_from_db()
    assert (run.state, batch.state, batch.answered) == ("finished", "completed", QUESTIONS)
    assert Judgment.objects.count() == QUESTIONS
    spent = totals_of_run(run.pk)
    full = 100 * spent.input_tokens + 400 * spent.output_tokens
    assert spent.calls == QUESTIONS
    assert full / 2 <= spent.cost_micros <= full / 2 + QUESTIONS
    assert spent.cost_micros < reserved.cost_micros


class Witness:
    """What the provider saw since the test began."""

    def __init__(self, fake: FakeJudge) -> None:
        self.fake, self.began = fake, len(fake.ledger())

    def paid(self) -> Counter[tuple[str, str]]:
        """How often each question was answered."""
        lines = self.fake.ledger()[self.began :]
        assert all(line["batch"] for line in lines), "nothing was asked live"
        return Counter((line["first"], line["second"]) for line in lines if line["paid"])

    def sent_twice(self) -> int:
        """Files uploaded, and batches created, more than once."""
        seen, ours = self.fake.batches(), {batch.file_name for batch in ProviderBatch.objects.all()}
        return sum(max(0, seen[kind].get(name, 0) - 1) for kind in ("uploads", "created") for name in ours)


@pytest.fixture
def witness(fake: FakeJudge) -> Witness:
    return Witness(fake)


def states() -> list[tuple[str, int, int, int, int]]:
    rows = ProviderBatch.objects.order_by("id")
    return list(rows.values_list("state", "requests", "answered", "unanswered", "returned"))


@pytest.mark.parametrize(
    ("fault", "batches", "paid_again"),
    [
        ("reordered+duplicated+unknown_ids", [("completed", 15, 15, 0, 0)], 0),
        ("partial", [("completed", 15, 10, 5, 0), ("completed", 5, 5, 0, 0)], 0),
        ("missing", [("completed", 15, 12, 3, 0), ("completed", 3, 3, 0, 0)], 3),
        ("late_file", [("completed", 15, 15, 0, 0)], 0),
        ("short_once+odd_status", [("completed", 15, 15, 0, 0)], 0),
        ("garbage+reordered", [("completed", 15, 12, 3, 0), ("completed", 3, 3, 0, 0)], 3),
        ("expired", [("expired", 15, 7, 0, 8), ("completed", 8, 8, 0, 0)], 0),
        ("expired+partial", [("expired", 15, 4, 3, 8), ("completed", 11, 11, 0, 0)], 0),
        ("token_limit", [("failed", 15, 0, 0, 15), ("completed", 7, 7, 0, 0), ("completed", 8, 8, 0, 0)], 0),
    ],
)
def test_what_a_batch_leaves_unanswered_is_asked_in_the_next_one(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch, fault: str, batches: list[Any], paid_again: int
) -> None:
    fake.order_batch_faults(fault)
    run, judge = batch_run(monkeypatch, fake)
    work_until(run, judge)
    assert states() == batches
    assert Judgment.objects.count() == QUESTIONS
    paid = witness.paid()
    assert paid.total() - len(paid) == paid_again
    assert witness.sent_twice() == 0
    assert not JudgingTask.objects.exists()
    assert not Attempt.objects.filter(outcome="reserved").exists(), "all reservations are settled"
    # A question that the provider did not process costs no attempt; one that it may have processed costs its bound.
    assert Attempt.objects.count() == QUESTIONS + sum(unanswered for _, _, _, unanswered, _ in batches)
    may_be_paid = Attempt.objects.filter(outcome="unavailable", cost_micros__gt=0).count()
    assert may_be_paid == (paid_again if fault != "garbage+reordered" else 3)


def test_a_refused_batch_makes_dead_letters_that_a_click_retries(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.order_batch_faults("bad_line", "refused")
    run, judge = batch_run(monkeypatch, fake)
    work_until(run, judge, until=lambda: JudgingTask.objects.filter(state="dead").count() == QUESTIONS)
    assert states() == [("failed", 15, 0, 1, 14), ("failed", 14, 0, 14, 0)]
    assert set(JudgingTask.objects.values_list("reason", flat=True)) == {"bad_request"}
    assert "model_not_found" in ProviderBatch.objects.first().message  # type: ignore[union-attr]
    assert totals_of_run(run.pk).cost_micros == 0
    judge.refresh_from_db()
    assert "model_not_found" in judge.pause_reason, "a judge without any answer is paused"
    resume_and_retry(judge)
    work_until(run, judge)
    assert Judgment.objects.count() == witness.paid().total() == QUESTIONS


def test_the_first_batch_of_a_run_is_a_trial(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judge = batch_run(monkeypatch, fake, trial=5)
    work_until(run, judge)
    assert states() == [("completed", 5, 5, 0, 0), ("completed", 10, 10, 0, 0)]
    paid = witness.paid().total()
    fake.set_judge("batched", fault_rates={"refusal": 1.0})
    run, judge = batch_run(monkeypatch, fake, trial=5)
    work_until(run, judge)
    judge.refresh_from_db()
    assert (run.state, judge.paused_at is not None) == ("failed", True)
    assert witness.paid().total() - paid == 5, "a judge that refuses costs its trial alone"


STEPS = [
    {"upload": ["lost_reply"]},
    {"upload": ["http_500_after"]},
    {"upload": ["http_503", "rate_limited", "disconnect"], "list": ["http_500"]},
    {"upload": ["hang", "http_500_after"]},
    {"create": ["lost_reply"], "list": ["http_503", "html"]},
    {"create": ["http_500_after"]},
    {"create": ["http_500", "rate_limited", "hang", "unauthorized"]},
    {"retrieve": ["http_500", "cut_connection", "truncated_json"], "content": ["cut_connection", "http_529"]},
]


@pytest.mark.parametrize("faults", STEPS, ids=lambda faults: "+".join(faults))
def test_a_failing_step_is_retried_and_nothing_is_sent_twice(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch, faults: dict[str, list[str]]
) -> None:
    monkeypatch.setattr(batch_client, "CONNECT_S", 2.0)  # a step that hangs takes so much longer
    fake.order_batch_faults(**faults)
    run, judge = batch_run(monkeypatch, fake)
    work_until(run, judge)
    assert states() == [("completed", 15, 15, 0, 0)]
    assert witness.sent_twice() == 0
    assert set(witness.paid().values()) == {1}
    assert Judgment.objects.count() == Attempt.objects.count() == QUESTIONS


class SlowFile(io.BytesIO):
    """A file whose pieces come late."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.05)
        return super().read(size)


def test_an_upload_that_takes_too_long_as_a_whole_is_ended(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake, FAST)
    client = BatchClient(get_endpoint("fake"))
    with pytest.raises(BatchCallFailed, match="the upload took more than") as caught:
        client.upload("slow.jsonl", SlowFile(b"x" * 4_000_000), timeout_s=0.3)
    assert (caught.value.kind, caught.value.retryable, caught.value.is_unknown) == (FailureKind.TIMEOUT, True, True)
    assert "slow.jsonl" not in fake.batches()["uploads"]
    assert client.upload("slow.jsonl", SlowFile(b"x" * 100_000), timeout_s=5.0)


def test_a_reply_that_drips_ends_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_client, "CONNECT_S", 0.2)
    with dripping() as url:
        row = {"name": "slow", "base_url": url, "timeout_s": 0.3}
        monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([row]))
        client = BatchClient(get_endpoint("slow"))
        for call in (lambda: client.retrieve("b"), lambda: list(client.lines("f"))):
            began = time.monotonic()
            with pytest.raises(BatchCallFailed, match=r"no complete answer within 0\.3 s") as caught:
                call()
            assert time.monotonic() - began < 2.0
            assert (caught.value.kind, caught.value.is_unknown) == (FailureKind.TIMEOUT, True)


def test_a_cancelled_run_cancels_its_batch_and_keeps_what_was_answered(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set_batches(batch_s=2.0)
    run, judge = batch_run(monkeypatch, fake)
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(completed__gt=1).exists())
    cancel_run(run)
    assert JudgingTask.objects.filter(state="leased").count() == QUESTIONS, "the batch holds them"
    work_until(run, judge, until=lambda: not ProviderBatch.objects.filter(state__in=ProviderBatch.OUT).exists())
    batch = ProviderBatch.objects.get()
    assert batch.state == "cancelled" and 0 < batch.answered < QUESTIONS
    assert Judgment.objects.count() == batch.answered == witness.paid().total()
    assert not JudgingTask.objects.exists()
    assert totals_of_run(run.pk).calls == batch.answered, "unanswered questions are not paid"


def test_a_run_cancelled_before_its_batch_is_created_costs_nothing(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.order_batch_faults(create=["http_503"])
    run, judge = batch_run(monkeypatch, fake)
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(state="creating", tries=1).exists())
    cancel_run(run)
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(state="cancelled").exists())
    assert not JudgingTask.objects.exists() and not Attempt.objects.exists()
    assert not witness.paid()


def test_a_cancelled_batch_returns_its_questions(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set_batches(batch_s=60.0)
    run, judge = batch_run(monkeypatch, fake)
    step(run, judge)
    first = ask_to_cancel(out())
    assert AuditEntry.objects.get(action="batch.cancelled").details["questions"] == QUESTIONS
    fake.set_batches(batch_s=0.1)
    work_until(run, judge)
    with pytest.raises(BatchIsOver):
        ask_to_cancel(first)
    assert [row[0] for row in states()] == ["cancelled", "completed"]
    assert Judgment.objects.count() == witness.paid().total() == QUESTIONS


def test_limits_of_the_provider_split_a_run_into_several_batches(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judge = batch_run(monkeypatch, fake, endpoint={"batch_max_requests": 4})
    step(run, judge)
    size, tokens = ProviderBatch.objects.get().size, ProviderBatch.objects.get().input_tokens
    work_until(run, judge)
    assert [row[1] for row in states()] == [4, 4, 4, 3]
    ProviderBatch.objects.all().delete()
    limits = {"batch_max_bytes": 2 * size, "batch_max_tokens": int(1.6 * tokens)}
    run, judge = batch_run(monkeypatch, fake, endpoint=limits)
    work_until(run, judge)
    assert [row[1] for row in states()] == [6, 6, 3]
    assert Judgment.objects.count() == 2 * QUESTIONS and witness.sent_twice() == 0


def test_budgets_hold_while_batches_are_out(fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    run, judge = batch_run(monkeypatch, fake, cost_budget_micros=10**9)
    run = change_budgets(run, {})  # without its estimate, as a run with a lower budget is
    step(run, judge)
    bound = ProviderBatch.objects.get().cost_micros
    work_until(run, judge)
    price = totals_of_run(run.pk).cost_micros / QUESTIONS
    budget = int(bound / QUESTIONS * 5.5)
    run, judge = batch_run(monkeypatch, fake, cost_budget_micros=budget)
    step(run, judge)
    assert out().requests == 5, "upper bounds are reserved"
    step(run, judge)
    run.refresh_from_db()
    assert run.state == "judging", "the run waits for its batch, which may be cheaper"
    work_until(run, judge)
    assert (run.state, run.is_spent) == ("finished", budget < price * QUESTIONS)
    assert totals_of_run(run.pk).cost_micros <= budget
    assert totals_of_run(run.pk).calls == min(QUESTIONS, int(budget / price))


def test_an_endpoint_without_batches_fails_the_questions_with_its_answer(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, judge = batch_run(monkeypatch, fake, endpoint={"base_url": f"{fake.base_url}/nowhere"})
    step(run, judge)
    assert states() == [("failed", 15, 0, 15, 0)]
    task = JudgingTask.objects.first()
    assert task is not None and task.state == "dead" and "HTTP 404" in task.message


def test_a_batch_that_the_provider_has_forgotten_is_given_up(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.order_batch_faults("never_ends")  # not before it is forgotten
    run, judge = batch_run(monkeypatch, fake)
    step(run, judge)
    ProviderBatch.objects.update(batch_id="batch-of-nobody")
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(state="failed").exists())
    batch = ProviderBatch.objects.filter(state="failed").get()
    assert "HTTP 404" in batch.message
    assert totals_of_run(run.pk).cost_micros >= batch.cost_micros, "it may have been paid"
    work_until(run, judge)
    assert Run.objects.get().state == "finished" and Judgment.objects.count() == QUESTIONS


def test_a_batch_that_never_ends_is_cancelled_and_what_is_there_is_taken(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.order_batch_faults("never_ends")
    run, judge = batch_run(monkeypatch, fake)
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(state="running", completed=QUESTIONS).exists())
    ProviderBatch.objects.update(sent_at=Now() - timedelta(hours=27))
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(cancel_sent_at__isnull=False).exists())
    assert out().state == "running", "it may still end"
    ProviderBatch.objects.update(cancel_sent_at=Now() - timedelta(hours=1))
    work_until(run, judge)
    assert [row[0] for row in states()] == ["expired", "completed"]
    assert Judgment.objects.count() == QUESTIONS and run.state == "finished"
    first = ProviderBatch.objects.order_by("id")[0]
    assert "26 h" in first.message and totals_of_run(run.pk).cost_micros > first.cost_micros, "it may be paid"


def test_an_overdue_batch_of_an_unreachable_provider_is_given_up_as_perhaps_paid(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set_batches(batch_s=60.0)
    run, judge = batch_run(monkeypatch, fake)
    step(run, judge)
    batch = out()
    with socket.socket() as closed:  # bound and not listening
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        define_endpoints(monkeypatch, fake, {**FAST, "base_url": nobody})
        for hours, state in ((1, "running"), (27, "running"), (29, "expired")):
            ProviderBatch.objects.filter(pk=batch.pk).update(sent_at=Now() - timedelta(hours=hours), next_at=Now())
            batches.judge_open(judge.pk, worker="w@host:1")
            batch.refresh_from_db()
            assert batch.state == state and "ConnectError" in batch.message, f"{hours} h after it was sent"
    assert "overdue" in batch.message and batch.answered == 0
    judge.refresh_from_db()
    assert judge.pause_reason == "", "an unreachable provider says nothing of the judge"
    failed = Attempt.objects.filter(outcome="unavailable")
    assert failed.count() == QUESTIONS and sum(failed.values_list("cost_micros", flat=True)) == batch.cost_micros
    fake.set_batches(batch_s=0.2)
    define_endpoints(monkeypatch, fake, FAST)
    work_until(run, judge)
    assert run.state == "finished" and Judgment.objects.count() == QUESTIONS
    assert [row[0] for row in states()] == ["expired", "completed"]


@pytest.mark.parametrize(
    ("stated", "status"),
    [
        ("completed", "completed"), ("SUCCESS", "completed"), ("JOB_STATE_SUCCEEDED", "completed"), ("ended", "completed"),
        ("completed_with_errors", "completed"), ("FAILED", "failed"), ("errored", "failed"), ("error_validation", "failed"),
        ("TIMEOUT_EXCEEDED", "expired"), ("timed_out", "expired"), ("expired", "expired"), ("canceled", "cancelled"),
        ("cancelled_by_user", "cancelled"), ("aborted", "cancelled"), ("cancelling", "cancelling"), ("canceling", "canceling"),
        ("CANCELLATION_REQUESTED", "cancellation_requested"), ("in_progress", "in_progress"), ("QUEUED", "queued"),
        ("validating", "validating"), ("finalizing", "finalizing"), ("failing", "failing"), ("", ""),
    ],
)  # fmt: skip
def test_states_of_other_providers_are_read(stated: str, status: str) -> None:
    assert batch_status(stated) == status


def test_a_refused_line_is_found_by_its_name_in_the_file(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.order_batch_faults("bad_line")
    run, judge = batch_run(monkeypatch, fake)
    step(run, judge)
    batch = out()
    tasks = list(JudgingTask.objects.filter(leased_by=batch.holder).order_by("id"))
    # The first question has left the batch, so that the second line is that of the first one left.
    JudgingTask.objects.filter(pk=tasks[0].pk).update(leased_by="somebody else")
    work_until(run, judge, until=lambda: ProviderBatch.objects.filter(state="failed").exists())
    assert JudgingTask.objects.get(state="dead").pk == tasks[1].pk


def test_questions_about_sets_go_out_in_batches(
    fake: FakeJudge, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, paired = batch_run(monkeypatch, fake, documents=8)
    judge = get_judge(
        paired.project, "setwise", {"endpoint": "fake", "model": "sets", "delivery": "batch"}, name="sets"
    )
    run = start_run(paired.project, judges=[judge], sampler="cycles", sampler_options={"degree": 2}, seed=1)
    work_until(run, judge)
    mine = Judgment.objects.filter(annotator=judge)
    assert run.state == "finished" and not JudgingTask.objects.filter(run=run).exists()
    assert 0 < witness.paid().total() < mine.count() and not mine.filter(call_size__isnull=True).exists()
