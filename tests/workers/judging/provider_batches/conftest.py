"""The provider of a module's tests: the fake server with batches that take 0.2 s."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_judge.process import FakeJudge, running_fake_judge


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    with running_fake_judge(tmp_path_factory.mktemp("batches") / "ledger.jsonl") as judge:
        yield judge


@pytest.fixture
def fake(server: FakeJudge) -> FakeJudge:
    server.set_batches(batch_s=0.2, most_lines=50_000)
    server.set_judge("batched", fault_rates={})
    return server
