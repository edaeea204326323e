"""The judge over HTTP before the fake judge, for tests without a database; who sets up more has a `fake` of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.factories.http_panel import KEY
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.judges.openai.judge import OpenAIHttpJudge


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("fake") / "ledger.jsonl"
    arguments = ["--seed", "3", "--api-key", KEY, "--retry-after", "0.05", "--judge", '{"sigma": 0}']
    with running_fake_judge(ledger, *arguments) as judge:
        yield judge


@pytest.fixture
def no_faults_left(fake: FakeJudge) -> Iterator[None]:
    yield
    fake.set_faults()


@pytest.fixture
def define(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Define the endpoint `fake`, with changed fields."""

    def write(**changed: Any) -> None:
        endpoint = {"name": "fake", "base_url": fake.base_url, "api_key_env": "FAKE_KEY", "timeout_s": 5.0} | changed
        monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([endpoint]))

    monkeypatch.setenv("FAKE_KEY", KEY)
    write()
    return write


@pytest.fixture
def judge_with(define: Callable[..., None]) -> Callable[..., OpenAIHttpJudge]:
    def build(**options: Any) -> OpenAIHttpJudge:
        judge = OpenAIHttpJudge.from_dict({"endpoint": "fake", "model": "fake", **options})
        assert isinstance(judge, OpenAIHttpJudge)
        return judge

    return build
