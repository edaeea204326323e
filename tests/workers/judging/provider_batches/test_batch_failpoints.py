"""A worker is killed at every step of a batch; its successor ends the run. Nothing is lost, and nothing is sent or paid twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from labeling.models import Judgment
from tests.factories.batches import FAST
from tests.factories.http_panel import KEY, make_judge, make_texts
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.processes.worker_process import Order, Workers, work, workers
from workers.failpoints import BATCH_POINTS
from workers.models import Attempt, JudgingTask, ProviderBatch
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

DOCUMENTS = 6
QUESTIONS = DOCUMENTS * (DOCUMENTS - 1) // 2


@dataclass(frozen=True)
class Death:
    """A kill at a point. `fault`: of the batch; `uploads`: how many files are at the provider by then."""

    point: str
    uploads: int = 1
    fault: str = "reordered+duplicated"
    cancel: bool = False


DEATHS = [
    Death("batch.before_formed", 0),
    Death("batch.formed", 0),
    Death("batch.before_upload", 0),
    Death("batch.uploaded"),
    Death("batch.upload_noted"),
    Death("batch.before_create"),
    Death("batch.created"),
    Death("batch.create_noted"),
    Death("batch.cancel_sent", cancel=True),
    Death("batch.end_noted"),
    Death("batch.before_stored", fault="partial"),
    Death("batch.stored", fault="partial"),
    Death("batch.before_ended", fault="expired"),
    Death("batch.ended", fault="expired"),
]


def test_every_point_is_died_at() -> None:
    assert {death.point for death in DEATHS} == set(BATCH_POINTS)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    with running_fake_judge(tmp_path_factory.mktemp("deaths") / "ledger.jsonl") as judge:
        yield judge


@pytest.fixture(scope="module")
def staff(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[Workers]:
    with workers(tmp_path_factory.mktemp("home")) as started:
        yield started


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.point)
def test_a_kill_loses_nothing_and_sends_nothing_twice(
    death: Death, fake: FakeJudge, staff: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {"name": "fake", "base_url": fake.base_url, "api_key_env": "FAKE_KEY", "timeout_s": 20.0, **FAST}
    endpoint["batch_poll_s"] = 0.5  # also how long an upload may take, which a busy machine needs
    environ = {"ZELO_ENDPOINTS": json.dumps([endpoint]), "FAKE_KEY": KEY}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    fake.set_batches(batch_s=0.2)
    fake.order_batch_faults(death.fault)
    began = len(fake.ledger())
    project = make_texts(documents=DOCUMENTS)
    run = start_run(project, judges=[make_judge(project, "batched", delivery="batch")], sampler="all", seed=1)
    order = Order(run.pk, death.point, environ=environ)
    if death.cancel:
        # The first worker dies with a batch at the provider, the second one while it cancels that.
        fake.set_batches(batch_s=30.0)
        advance(run.pk)
        assert staff.run(work, replace(order, failpoint="batch.create_noted")) == -signal.SIGKILL
        ProviderBatch.objects.update(cancel_asked_at=ProviderBatch.objects.get().created_at)

    assert staff.run(work, order) == -signal.SIGKILL
    seen = fake.batches()
    if death.point != "batch.before_formed":
        ours = ProviderBatch.objects.order_by("id").first()
        assert ours is not None
        assert seen["uploads"].get(ours.file_name, 0) == death.uploads
    fake.set_batches(batch_s=0.2)

    assert staff.run(work, Order(run.pk, environ=environ)) == 0
    run.refresh_from_db()
    assert run.state == "finished"
    assert not JudgingTask.objects.exists()
    assert Judgment.objects.count() == QUESTIONS
    seen = fake.batches()
    mine = [batch.file_name for batch in ProviderBatch.objects.all()]
    assert [seen["uploads"][name] for name in mine] == [seen["created"][name] for name in mine] == [1] * len(mine)
    lines = [line for line in fake.ledger()[began:] if line["paid"]]
    assert set(Counter((line["first"], line["second"]) for line in lines).values()) == {1}
    assert len(lines) == QUESTIONS
    assert not Attempt.objects.filter(outcome="reserved").exists()
    assert Attempt.objects.filter(outcome="preference").count() == QUESTIONS
    assert sum(batch.answered for batch in ProviderBatch.objects.all()) == QUESTIONS
