"""Claim: kills of workers, broker and database at random lose, double and invent no judgment, and cost calls in flight only.

Runs the real stack in a home of its own: PostgreSQL, Valkey, reconciler, rating worker and a judging worker that keeps 32
calls in flight to the fake judge, a process of its own that answers after about 150 ms. Workers are those of `manage.py
worker`, forked off a process that has everything loaded, so that a round does not wait for Python. Each round kills with
SIGKILL, all processes at once: the workers, the broker (whose data are gone), the database, or workers and database
together. The fake judge's ledger, written before each answer, is the witness: `lost` and `invented` are judgments that
it does not bear out, `extra_paid` its paid calls beyond one for each judgment.

A call is in flight when its worker dies if the ledger has it and its answer was still to come; or if the answer had gone
out within the last half second and was not read yet (`on_the_wire`, only those that had to be asked again). `extra_paid`
is told apart likewise: `extra_unanswered` had no answer at the kill, `extra_on_the_wire` one that nobody had read, and
`extra_unexplained` was not in flight at all and has to be 0.

`--batch`: the judge's questions go out in batches of 50, which the provider answers within a second, in any order and
with doubled lines; some of its replies are lost or fail at every step, and some batches expire. Nothing is in flight then
that would be lost with a worker: all figures of loss have to be 0, with them `extra_paid` and `uploaded_twice`, the files
uploaded and batches created more than once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

DOCUMENTS, QUICK_BATCH_DOCUMENTS = 40, 20
AHEAD, QUICK_BATCH_AHEAD = 300, 100  # questions: more than the batches that are under way when a round ends
ROUNDS, QUICK_ROUNDS = 50, 10
BATCH_ROUNDS, QUICK_BATCH_ROUNDS = 20, 4  # each kind once
CONCURRENCY, LATENCY_MS, JITTER = 32, 150, 0.4
AT_LEAST_IN_FLIGHT = 8
PROGRESS, QUICK_BATCH_PROGRESS = 50, 25  # answers between two kills, so that no question is unlucky five times in a row
ON_THE_WIRE_S = 0.5
PATIENCE_S = 120.0
# Batches: their size, how long they take, and what goes wrong with them and with the requests of each step.
BATCH_OF, BATCH_S, QUICK_BATCH_S, POLL_S = 50, 1.0, 0.5, 0.3
BATCH_FAULTS = ("reordered", "duplicated+unknown_ids", "", "expired+reordered")
STEP_FAULTS = {
    "upload": ["", "lost_reply", "", "http_500_after", "", "http_503"],
    "create": ["lost_reply", "", "http_500_after", "", "http_503", ""],
    "list": ["", "http_500", "", ""],
    "retrieve": ["", "", "http_503", "", "disconnect", ""],
    "content": ["", "cut_connection", "", ""],
}

# Workers, broker and database die equally often.
KINDS = ("workers and database", "broker", "workers", "database", "broker")
Question = tuple[str, str]
Result = TypeVar("Result")


class Stuck(RuntimeError):
    """The installation did not go on within PATIENCE_S."""


@dataclass(frozen=True)
class Kill:
    """What was killed, when, how many calls the judge had before it, and how long until the next one was made."""

    kind: str
    at: float
    in_flight: int
    recovery_s: float


@dataclass
class Stack:
    """The installation: services, workers and the fake judge, with what it takes to kill and to restart them."""

    home: Path
    services: Any
    fake: Any
    context: ForkServerContext
    in_batches: bool = False
    processes: dict[str, ForkServerProcess] = field(default_factory=dict)

    COMMANDS = {
        "reconciler": ["reconcile"],
        "rating": ["worker", "rating"],
        "judging-http": ["worker", "judging-http"],
    }

    def tick(self) -> None:
        """Start again what has ended, as the supervisors do; without their pauses, which grow with each death."""
        self.services.revive()
        for name, arguments in self.COMMANDS.items():
            if name == "reconciler" and self.in_batches:
                arguments = [*arguments, "--every", f"{POLL_S}"]
            if name not in self.processes or not self.processes[name].is_alive():
                log = self.home / "logs" / f"{name}.log"
                self.processes[name] = self.context.Process(target=work, args=(arguments, str(log)))
                self.processes[name].start()

    def kill(self, kind: str, rng: random.Random) -> tuple[float, int]:
        """SIGKILL to all processes of that kind, parents first, so that none of them can clean up.

        Returns when, and how many calls the judge had not answered a moment before.
        """
        workers = ["judging-http"] if rng.random() < 2 / 3 else ["judging-http", "rating"]
        names = {"broker": ["Valkey"], "database": ["PostgreSQL"]}.get(kind, workers)
        names += ["PostgreSQL"] if kind == "workers and database" else []
        pids = [pid for name in names for pid in _tree(self._pid(name))]
        in_flight, at = self.in_flight(), time.time()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return at, in_flight

    def in_flight(self) -> int:
        """Calls that the judge has not answered; the question for it is one itself."""
        return int(self.fake.summary()["in_flight"]) - 1

    def _pid(self, name: str) -> int:
        return self.processes[name].pid or 0 if name in self.processes else int(self.services.process_ids()[name])

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.join(20)
            process.kill()


def work(command: list[str], log: str) -> None:
    """A worker or the reconciler, in a process of its own that ends with the one it was forked off."""
    from zelo_site.processes.guard import die_with_parent

    die_with_parent(signal.SIGKILL, os.getppid())
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(written, stream)
    if command[0] == "worker":
        from workers.management.commands.worker import celery_arguments
        from zelo_site.celery import app

        app.worker_main(celery_arguments(command[1:]))
    else:
        from django.core.management import call_command

        call_command(*command)


def _tree(pid: int) -> list[int]:
    from zelo_site.processes.guard import children_of

    return [pid, *itertools.chain.from_iterable(_tree(child) for child in children_of(pid))]


@contextmanager
def running_stack(*, in_batches: bool = False) -> Iterator[Stack]:
    """Everything that runs, in a new home that goes with it."""
    from tests.fake_judge.process import running_fake_judge

    home = Path(tempfile.mkdtemp(prefix="zelo-chaos-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    arguments = ["--latency-ms", str(LATENCY_MS), "--latency-jitter", str(JITTER)]
    try:
        with running_fake_judge(home / "ledger.jsonl", *arguments) as fake:
            context = _set_up(home, fake.base_url, in_batches=in_batches)
            from django.core.management import call_command
            from django.db import connection

            from zelo_site.processes.services import ServiceSupervisor

            with ServiceSupervisor(home, restart_delays_s=(0.1, 0.1)) as services:
                call_command("migrate", verbosity=0)
                stack = Stack(home, services, fake, context, in_batches)
                try:
                    yield stack
                finally:
                    connection.close()
                    stack.stop()
    except Stuck:
        print(f"the logs are kept in {home}/logs", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    shutil.rmtree(home, ignore_errors=True)


def _set_up(home: Path, base_url: str, *, in_batches: bool) -> ForkServerContext:
    """Settings and compiled code for this process and for those to come, which begin to load while services start."""
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    endpoint: dict[str, Any] = {"name": "fake", "base_url": base_url, "max_concurrency": CONCURRENCY, "timeout_s": 20.0}
    if in_batches:
        endpoint |= {"batch_max_requests": BATCH_OF, "batch_poll_s": POLL_S, "batch_wait_s": 0.2}
    os.environ.update(ZELO_HOME=str(home), ZELO_ENDPOINTS=json.dumps([endpoint]), OMP_NUM_THREADS="1")
    os.environ.setdefault("ZELO_LOG_LEVEL", "WARNING")
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from scoring.numerics.design import rounds
    from scoring.numerics.fitting import fit

    fit.compile_kernels()  # once on a new installation, and not while the first round waits
    rounds.compile_kernels()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes.worker_process", "tests.processes.worker_loaded"])
    forkserver.ensure_running()
    return context


# --- the rounds --------------------------------------------------------------------------


@dataclass
class Orders:
    """Runs, one after the other, each over all pairs of one more query: so that there is always work when something dies."""

    project: Any
    judge: Any
    queries: list[int]
    documents: int
    ahead: int
    runs: list[Any] = field(default_factory=list)

    @property
    def questions(self) -> int:
        return len(self.runs) * self.documents * (self.documents - 1) // 2

    def keep_ahead(self, stack: Stack, calls: int) -> None:
        """Order until more is to be asked than one round can use up."""
        from workers.runs.ordering import start_run

        while self.questions < calls + self.ahead:
            query = self.queries[len(self.runs)]
            order = {"judges": [self.judge], "sampler": "all", "query_ids": [query], "seed": 1}
            self.runs.append(_asked(stack, lambda order=order: start_run(self.project, **order)))  # type: ignore[misc]


def new_orders(queries: int, *, in_batches: bool = False, documents: int = DOCUMENTS, ahead: int = AHEAD) -> Orders:
    from labeling.access.annotators import get_judge
    from labeling.models import Query
    from tests.factories.http_panel import make_texts

    project = make_texts(queries=queries, documents=documents)
    options = {"endpoint": "fake", "model": "mortal"} | ({"delivery": "batch"} if in_batches else {})
    judge = get_judge(project, "openai-http", options, name="mortal")
    return Orders(project, judge, list(Query.objects.order_by("id").values_list("id", flat=True)), documents, ahead)


def torment(stack: Stack, orders: Orders, rounds: int, rng: random.Random, *, progress: int = PROGRESS) -> list[Kill]:
    """So many kills, each at a moment of its own."""
    kinds = [KINDS[number % len(KINDS)] for number in range(rounds)]
    rng.shuffle(kinds)
    kills: list[Kill] = []
    calls = 0
    for kind in kinds:
        orders.keep_ahead(stack, calls)
        if stack.in_batches:
            _order_trouble(stack, rng)
        _wait(stack, lambda before=calls: _is_busy(stack, before + progress))  # type: ignore[misc]
        time.sleep(rng.uniform(0.0, 0.3))
        at, in_flight = stack.kill(kind, rng)
        calls = stack.fake.summary()["calls"]
        _wait(stack, lambda before=calls: stack.fake.summary()["calls"] > before)  # type: ignore[misc]
        kills.append(Kill(kind, at, in_flight, time.time() - at))
    return kills


def _order_trouble(stack: Stack, rng: random.Random) -> None:
    """The next batches, and the requests of each step, meet their faults."""
    steps = {step: rng.sample(faults, len(faults)) for step, faults in STEP_FAULTS.items()}
    stack.fake.order_batch_faults(*rng.sample(BATCH_FAULTS, len(BATCH_FAULTS)), **steps)


def _is_busy(stack: Stack, calls: int) -> bool:
    summary = stack.fake.summary()
    if stack.in_batches:
        return bool(summary["calls"] >= calls)
    return bool(summary["calls"] >= calls and summary["in_flight"] > AT_LEAST_IN_FLIGHT)


def _wait(stack: Stack, until: Callable[[], bool], *, pause_s: float = 0.05) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        if time.monotonic() > deadline:
            raise Stuck(f"nothing happened for {PATIENCE_S:.0f} s")
        stack.tick()
        time.sleep(pause_s)


def _asked(stack: Stack, question: Callable[[], Result]) -> Result:
    """What the database answers, as soon as it does."""
    from django.db import Error, connection

    found: list[Result] = []

    def ask() -> bool:
        try:
            found.append(question())
        except Error:
            connection.close()
        return bool(found)

    _wait(stack, ask)
    return found[0]


def finish(stack: Stack, orders: Orders) -> None:
    """Wait for the end of all runs."""
    from workers.models import Run

    while _asked(stack, Run.objects.filter(state__in=Run.ACTIVE).exists):
        stack.tick()
        time.sleep(0.2)


# --- the audit ---------------------------------------------------------------------------


def audit(stack: Stack, orders: Orders, kills: list[Kill]) -> dict[str, Any]:
    """Judgments against the ledger, question by question."""
    from labeling.models import Judgment
    from workers.models import Attempt, JudgingTask, Run

    ledger = stack.fake.ledger()
    paid = Counter((line["first"], line["second"]) for line in ledger if line["paid"])
    said: dict[Question, list[float]] = {}
    for line in ledger:
        said.setdefault((line["first"], line["second"]), []).append(line["preference"])
    rows = _asked(stack, lambda: list(Judgment.objects.select_related(*SIDES)))
    stored = Counter(_question(row) for row in rows)
    invented = [
        row for row in rows if not any(abs(_of_first(row) - each) < 1e-6 for each in said.get(_question(row), []))
    ]
    unanswered, on_the_wire = _in_flight_at_deaths(ledger, [kill.at for kill in kills if "workers" in kill.kind])
    extra = _extra_calls(ledger, unanswered, on_the_wire)
    ended = _asked(stack, Run.objects.filter(state=Run.State.FINISHED).count)
    attempts = _asked(stack, lambda: Counter(Attempt.objects.values_list("outcome", flat=True)))
    return {
        "lost": orders.questions - len(stored),
        "duplicates": len(rows) - len(stored),
        "invented": len(invented),
        "extra_paid": paid.total() - len(stored),
        "extra_unanswered": extra["unanswered"],
        "extra_on_the_wire": extra["on the wire"],
        "extra_unexplained": extra["unexplained"],
        "in_flight_at_worker_kills": unanswered.total() + on_the_wire.total(),
        "unanswered_at_worker_kills": unanswered.total(),
        "on_the_wire": on_the_wire.total(),
        "judgments": len(stored),
        "unfinished": _asked(stack, JudgingTask.objects.count) + len(orders.runs) - ended,
        "unbooked": max(0, paid.total() - attempts.total()),
    } | (_batches_sent(stack, attempts) if stack.in_batches else {})


def _batches_sent(stack: Stack, attempts: Counter[str]) -> dict[str, int]:
    """Files and batches that the provider has more than once, by their names; and what the database still holds of them."""
    from workers.models import ProviderBatch

    seen = stack.fake.batches()
    rows = _asked(stack, lambda: list(ProviderBatch.objects.all()))
    return {
        "uploaded_twice": sum(count - 1 for kind in ("uploads", "created") for count in seen[kind].values()),
        "batches": len(rows),
        "batches_at_the_provider": len(seen["batches"]),
        "batches_unknown": len({row["id"] for row in seen["batches"]} - {row.batch_id for row in rows}),
        "batches_not_ended": sum(row.state in ProviderBatch.OUT for row in rows),
        "reserved": attempts["reserved"],
    }


SIDES = ("pair__a__query", "pair__a__document", "pair__b__query", "pair__b__document")


def _question(row: Any) -> Question:
    """As the ledger names it: the documents in the order in which they were shown."""
    from tests.fake_judge.quality import quality_key

    keys = [quality_key(side.document.text, side.query.text)[:12] for side in (row.pair.a, row.pair.b)]
    first, second = reversed(keys) if row.swapped else keys
    return first, second


def _of_first(row: Any) -> float:
    return 1.0 - float(row.preference) if row.swapped else float(row.preference)


def _in_flight_at_deaths(
    ledger: list[dict[str, Any]], deaths: list[float]
) -> tuple[Counter[Question], Counter[Question]]:
    """(unanswered, answered but unread) calls of the workers that died at these times, by question."""
    unanswered: Counter[Question] = Counter()
    on_the_wire: Counter[Question] = Counter()
    last_asked = {(line["first"], line["second"]): line["time"] for line in ledger}
    for death in deaths:
        for line in ledger:
            question = line["first"], line["second"]
            answered_at = line["time"] + line["delay_s"]
            # What the worker had sent is in the ledger a moment later; its successor takes longer than that to start.
            if line["time"] < death + ON_THE_WIRE_S and answered_at > death:
                unanswered[question] += 1
            elif death - ON_THE_WIRE_S < answered_at <= death < last_asked[question]:
                on_the_wire[question] += 1
    return unanswered, on_the_wire


def _extra_calls(
    ledger: list[dict[str, Any]], unanswered: Counter[Question], on_the_wire: Counter[Question]
) -> Counter[str]:
    """Why calls were paid again: what had become of the first ones when their worker died."""
    extra: Counter[str] = Counter()
    for question, calls in Counter((line["first"], line["second"]) for line in ledger if line["paid"]).items():
        without_answer = min(calls - 1, unanswered[question])
        unread = min(calls - 1 - without_answer, on_the_wire[question])
        extra += Counter({"unanswered": without_answer, "on the wire": unread})
        extra["unexplained"] += calls - 1 - without_answer - unread
    return extra


def chaos(
    rounds: int,
    *,
    seed: int = 0,
    in_batches: bool = False,
    documents: int = DOCUMENTS,
    ahead: int = AHEAD,
    progress: int = PROGRESS,
    batch_s: float = BATCH_S,
) -> tuple[dict[str, Any], list[Kill]]:
    """A run under `rounds` kills, to its end; the figures, and what was killed."""
    began = time.monotonic()
    with running_stack(in_batches=in_batches) as stack:
        if in_batches:
            stack.fake.set_batches(batch_s=batch_s)
        orders = new_orders(rounds + 5, in_batches=in_batches, documents=documents, ahead=ahead)
        stack.tick()
        began_killing = time.monotonic()
        kills = torment(stack, orders, rounds, random.Random(seed), progress=progress)
        ended_killing = time.monotonic()
        finish(stack, orders)
        figures = audit(stack, orders, kills)
        ended = time.monotonic()
    dead = Counter(part for kill in kills for part in kill.kind.split(" and "))
    figures |= {
        "rounds": rounds,
        "kills": dict(sorted(dead.items())),
        "kills_with_8_in_flight": sum(kill.in_flight >= AT_LEAST_IN_FLIGHT for kill in kills),
        "seconds": round(time.monotonic() - began, 1),
        "seconds_starting": round(began_killing - began, 1),
        "seconds_killing": round(ended_killing - began_killing, 1),
        "seconds_ending": round(ended - ended_killing, 1),
    }
    return figures, kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help=f"kills (default {ROUNDS}, quick {QUICK_ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="fewer kills, under 45 s")
    parser.add_argument("--batch", action="store_true", help="the judge's questions go out in batches")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    many, few = (BATCH_ROUNDS, QUICK_BATCH_ROUNDS) if arguments.batch else (ROUNDS, QUICK_ROUNDS)
    rounds = arguments.rounds or (few if arguments.quick else many)
    small = arguments.quick and arguments.batch
    size: dict[str, Any] = {"documents": QUICK_BATCH_DOCUMENTS, "ahead": QUICK_BATCH_AHEAD}
    size |= {"progress": QUICK_BATCH_PROGRESS, "batch_s": QUICK_BATCH_S}
    figures, kills = chaos(rounds, seed=arguments.seed, in_batches=arguments.batch, **(size if small else {}))
    how = f"batches of {BATCH_OF}" if arguments.batch else f"{CONCURRENCY} calls in flight at most"
    print(f"{figures['judgments']} judgments under {rounds} kills, {how}")
    print(f"{'killed':<24}{'times':>7}{'in flight, mean':>17}{'next call after, s: median':>28}{'longest':>9}")
    for kind in dict.fromkeys(KINDS):
        if mine := [kill for kill in kills if kill.kind == kind]:
            recovery = sorted(kill.recovery_s for kill in mine)
            print(
                f"{kind:<24}{len(mine):>7}{sum(kill.in_flight for kill in mine) / len(mine):>17.1f}"
                f"{recovery[len(recovery) // 2]:>28.2f}{recovery[-1]:>9.2f}"
            )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
