"""What workers learn about an endpoint reaches the other processes, and the budgets that reserve calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from labeling.models import Annotator
from labeling.records import Verdict
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts
from tests.factories.questions import comparison
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.budgets import spend
from workers.endpoints import learned
from workers.endpoints.session import ask_within_limits
from workers.judging.batches import prepared_judge
from workers.models import EndpointState

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_learned() -> Iterator[None]:
    learned.forget_all()
    yield
    learned.forget_all()
    spend._calls_each.clear()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeJudge]:
    with running_fake_judge(tmp_path / "ledger.jsonl", "--seed", "3", "--api-key", KEY) as judge:
        yield judge


@pytest.fixture
def voter(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> Annotator:
    """A judge of five votes at a server that ignores `n` and knows no `max_tokens`."""
    define_endpoints(monkeypatch, fake)
    fake.set_judge("voter", dialect=["n_ignored", "openai_token_limit"])
    return make_judge(make_texts(documents=2), "voter", mode="sampled", votes=5)


def test_another_process_does_not_pay_for_what_one_has_learned(fake: FakeJudge, voter: Annotator) -> None:
    [first] = ask_within_limits(prepared_judge(voter.pk), [comparison()])
    assert isinstance(first, Verdict)
    assert [line["fault"] for line in fake.ledger()].count("openai_token_limit") == 1
    assert EndpointState.objects.get().learned["voter"]["n"] == "ignored"
    before = len(fake.ledger())
    child = os.fork()
    if child == 0:  # a process of its own, with nothing in its memory
        connections["default"].connection = None
        learned.forget_all()
        [second] = ask_within_limits(prepared_judge(voter.pk), [comparison("x", "y")])
        os._exit(0 if isinstance(second, Verdict) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    later = fake.ledger()[before:]
    assert [(line["fault"], line["parameters"].get("n")) for line in later] == [("", None)] * 5


def test_budgets_reserve_every_vote_until_the_endpoint_has_shown_that_it_accepts_n(
    fake: FakeJudge, voter: Annotator
) -> None:
    assert spend.calls_a_question(voter.pk) == 5
    fake.set_judge("voter", dialect=[])
    ask_within_limits(prepared_judge(voter.pk), [comparison()])
    learned.forget_all()  # as in a process that does not visit the endpoint
    assert spend.calls_a_question(voter.pk) == 1


def test_a_changed_key_or_address_is_learned_anew(
    fake: FakeJudge, voter: Annotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_within_limits(prepared_judge(voter.pk), [comparison()])
    define_endpoints(monkeypatch, fake, {"headers": {"X-Team": "search"}})
    fake.set_judge("voter", dialect=[])
    ask_within_limits(prepared_judge(voter.pk), [comparison("x", "y")])
    assert fake.ledger()[-1]["parameters"]["n"] == 5
    assert sorted(row.learned["voter"]["n"] for row in EndpointState.objects.all()) == ["ignored", "works"]
