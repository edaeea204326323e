"""A worker is killed at every transition; its successor ends the run. Nothing is lost, doubled or invented, and nothing
is paid twice but the calls that were in flight. The fake judge's ledger is the witness.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from labeling.models import Judgment, Pair
from tests.factories.http_panel import KEY, make_judge, make_texts
from tests.factories.working import end_lease
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.fake_judge.quality import quality_key
from tests.processes.installation import ROOT
from tests.processes.worker_process import Order, Workers, work, workers
from workers import failpoints
from workers.failpoints import POINTS, UnknownFailpoint
from workers.judging import queue, spool
from workers.judging.queue import ClaimedTask
from workers.models import Attempt, JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

DOCUMENTS = 8
QUESTIONS = DOCUMENTS * (DOCUMENTS - 1) // 2

MODEL = "mortal"

Question = tuple[str, str]


@dataclass(frozen=True)
class Death:
    """A kill at a point. `before`: what brings a worker there at all; `keeps`: how many answers are safe by then."""

    point: str
    before: str = ""
    keeps: int = 0


DEATHS = [
    Death("advance.locked"),
    Death("plan.before_commit"),
    Death("plan.after_commit"),
    Death("plan.before_end"),
    Death("claim.before_commit"),
    Death("claim.after_commit"),
    Death("call.before"),
    Death("call.answered"),
    Death("call.answered:20", keeps=19),
    Death("spool.written", keeps=1),
    Death("spool.written:20", keeps=20),
    Death("spool.synced", keeps=1),
    Death("finish.before_commit", keeps=1),
    Death("finish.after_commit", keeps=1),
    Death("fail.before_commit", "failures", keeps=1),
    Death("fail.after_commit", "failures", keeps=1),
    Death("release.before_commit", "no room"),
    Death("release.after_commit", "no room"),
    Death("reap.before_commit", "expired leases"),
    Death("reap.after_commit", "expired leases"),
    Death("cancel.before_commit", "cancelling"),
    Death("cancel.after_commit", "cancelling"),
    Death("recover.read", "a dead worker", keeps=5),
    Death("recover.stored", "a dead worker", keeps=5),
    Death("recover.before_removal", "a dead worker", keeps=5),
]


def test_every_point_is_died_at() -> None:
    assert {death.point.partition(":")[0] for death in DEATHS} == set(POINTS)


@pytest.mark.parametrize("text", ["somewhere", "claim.after_commit:0", "claim.after_commit:often"])
def test_a_point_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(UnknownFailpoint, match="ZELO_FAILPOINT"):
        failpoints.arm(text)
    assert failpoints._name == "", "nothing is armed by a mistake"


def test_a_process_dies_where_its_environment_says() -> None:
    code = (
        "from workers import failpoints as f; f.reach('call.before'); print('once', flush=True); f.reach('call.before')"
    )
    died = subprocess.run(
        [sys.executable, "-c", code],
        env={"ZELO_FAILPOINT": "call.before:2"}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "once\n")


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    with running_fake_judge(
        tmp_path_factory.mktemp("deaths") / "ledger.jsonl", "--latency-ms", "30", "--retry-after", "0.1"
    ) as judge:
        yield judge


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def staff(home: Path, django_db_setup: None) -> Iterator[Workers]:
    with workers(home) as started:
        yield started


def endpoints(fake: FakeJudge, **changes: Any) -> dict[str, str]:
    endpoint = {"name": "fake", "base_url": fake.base_url, "api_key_env": "FAKE_KEY", **changes}
    return {"ZELO_ENDPOINTS": json.dumps([endpoint]), "FAKE_KEY": KEY}


@dataclass
class Scene:
    """One run and what is known of it from outside: the ledger since it began, the files of the spool, the tables."""

    run: Run
    home: Path
    fake: FakeJudge
    began: int

    def answered(self) -> Counter[Question]:
        """How often each question was answered and paid for; calls that failed on purpose are none of ours."""
        self.fake.summary()  # after what a dead worker had sent before: its turn comes first
        lines = self.fake.ledger()[self.began :]
        return Counter((line["first"], line["second"]) for line in lines if line["paid"] and not line["fault"])

    def truth(self) -> dict[Question, float]:
        """P(the first document), as the server said it."""
        lines = self.fake.ledger()[self.began :]
        return {(line["first"], line["second"]): line["preference"] for line in lines}

    def question(self, pair: Pair, swapped: bool) -> Question:
        texts = [quality_key(side.document.text, side.query.text)[:12] for side in (pair.a, pair.b)]
        first, second = reversed(texts) if swapped else texts
        return first, second

    def safe(self) -> set[Question]:
        """Questions whose answer stands in a table or on disk."""
        lines = [line for path in (self.home / "spool").glob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
        tasks = [ClaimedTask(*value["task"]) for value in map(spool.decode, lines) if "verdict" in value]
        on_disk = {self.question(Pair.objects.get(pk=task.pair_id), task.swapped) for task in tasks}
        return on_disk | set(self.judgments())

    def judgments(self) -> dict[Question, float | None]:
        """P(the first document), as it is stored."""
        rows = Judgment.objects.filter(pair__query__project=self.run.project).select_related("pair__a", "pair__b")
        found = {}
        for row in rows:
            assert row.preference is not None
            first = 1.0 - row.preference if row.swapped else row.preference
            found[self.question(row.pair, row.swapped)] = first
        assert len(found) == len(rows)
        return found


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.point)
def test_a_kill_costs_no_more_than_what_was_in_flight(
    death: Death, fake: FakeJudge, home: Path, staff: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in endpoints(fake).items():
        monkeypatch.setenv(name, value)
    project = make_texts(documents=DOCUMENTS)
    run = start_run(project, judges=[make_judge(project, MODEL)], sampler="all", seed=1)
    scene = Scene(run, home, fake, began=len(fake.ledger()))
    order = Order(run.pk, death.point, environ=endpoints(fake))
    in_flight: set[Question] = set()
    if death.before == "failures":
        fake.order_faults(*[""] * 3, *["truncated_json"] * 5)  # the trial succeeds
    elif death.before == "no room":
        fake.order_faults(*["rate_limited"] * 5)
    elif death.before == "expired leases":
        advance(run.pk)
        end_lease(*queue.claim(annotator_id=run.judges.get().pk, worker="gone@host:1", limit=5))
    elif death.before == "cancelling":
        advance(run.pk)
        order = replace(order, cancel=True)
    elif death.before == "a dead worker":
        assert staff.run(work, replace(order, failpoint="spool.written:5")) == -signal.SIGKILL
        in_flight |= set(scene.answered()) - scene.safe()

    assert staff.run(work, order) == -signal.SIGKILL
    safe = scene.safe()
    assert len(safe) >= death.keeps
    in_flight |= set(scene.answered()) - safe

    assert staff.run(work, Order(run.pk, environ=endpoints(fake))) == 0
    run.refresh_from_db()
    expected = 0 if death.point == "cancel.after_commit" else QUESTIONS
    assert run.state == ("finished" if expected else "cancelled")
    assert not JudgingTask.objects.exists()
    judgments, paid = scene.judgments(), scene.answered()
    assert len(judgments) == expected
    assert judgments == pytest.approx({question: scene.truth()[question] for question in judgments})
    again = {question for question, times in paid.items() if times > 1}
    assert again <= in_flight
    assert paid.total() <= expected + len(in_flight)
    assert scene.safe() == set(judgments)
    # The books know of every call that costs: each was written down before it was made.
    assert Attempt.objects.count() >= sum(line["paid"] for line in fake.ledger()[scene.began :])
    assert Attempt.objects.exclude(outcome="lost").count() >= expected
