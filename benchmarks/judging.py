"""Claim: the whole queue keeps an endpoint as busy as a bare loop of HTTP calls does.

Judgments a second through PostgreSQL, Valkey and the workers as `manage.py worker` starts them, against the fake judge
at 100 ms latency with 32 calls in flight, and a bare asyncio httpx loop with the same questions against the same
server in the same run; then 500 in flight at 1 s over several processes, since two cores cannot make the 5,000 calls a
second that 100 ms would mean. Calls and answers of both sides are compared. The run is void where the bare loop
reaches less than 90 % of what latency and number in flight allow. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

KEY = "sk-benchmark"
PEER_SHARE = 0.9
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Setting:
    """So many calls in flight over so many processes, at this latency; `questions` are asked by either side."""

    name: str
    in_flight: int
    processes: int
    latency_s: float
    questions: int

    @property
    def ideal_per_s(self) -> float:
        return self.in_flight / self.latency_s


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls a second of either side, the most that were in flight at the server, and whether all answers agree."""

    peer_per_s: float
    ours_per_s: float
    peer_in_flight: int
    ours_in_flight: int
    agree: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer questions, 32 in flight alone; under 45 s")
    parser.add_argument("--processes", type=int, default=2, help="worker processes of the wide setting")
    arguments = parser.parse_args()
    narrow = Setting("32 at 100 ms", 32, 1, 0.1, 3_200 if arguments.quick else 19_200)
    wide = Setting("500 at 1 s", 500, arguments.processes, 1.0, 15_000)
    with running_services() as (home, watch):
        found = {
            setting: measure(setting, home, watch) for setting in ((narrow,) if arguments.quick else (narrow, wide))
        }
    print(f"{'setting':<14} {'questions':>9} {'bare loop/s':>12} {'queue/s':>9} {'ratio':>6} {'in flight':>10} answers")
    for setting, each in found.items():
        print(
            f"{setting.name:<14} {setting.questions:>9,} {each.peer_per_s:>12.1f} {each.ours_per_s:>9.1f} "
            f"{each.ours_per_s / each.peer_per_s:>6.3f} {each.peer_in_flight:>4} {each.ours_in_flight:>5} "
            f"{'equal' if each.agree else 'DIFFER'}"
        )
    if is_void(narrow, found[narrow]):
        print(f"VOID: the bare loop reached less than {PEER_SHARE:.0%} of {narrow.ideal_per_s:.0f} calls a second")
    figures = {"benchmark": "judging", **figures_of(narrow, found[narrow])}
    figures["answers_equal"] = all(each.agree for each in found.values())
    if wide in found:
        figures |= {f"{name}_500": figure for name, figure in figures_of(wide, found[wide]).items()}
        figures["processes_500"] = wide.processes
    print(json.dumps(figures))


def figures_of(setting: Setting, measured: Measured) -> dict[str, float | bool]:
    return {
        "throughput_ratio": round(measured.ours_per_s / measured.peer_per_s, 3),
        "per_s": round(measured.ours_per_s, 1),
        "peer_per_s": round(measured.peer_per_s, 1),
        "void": is_void(setting, measured),
    }


def is_void(setting: Setting, measured: Measured) -> bool:
    """Whether the machine was too busy, or is too slow, to say anything."""
    return measured.peer_per_s < PEER_SHARE * setting.ideal_per_s


# --- the stack ---------------------------------------------------------------------------


@contextlib.contextmanager
def running_services() -> Iterator[tuple[Path, Callable[[], Any]]]:
    """PostgreSQL and Valkey in a new home; yields it, and what keeps them alive."""
    home = Path(tempfile.mkdtemp(prefix="zelo-judging-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="WARNING", JUDGING_KEY=KEY)
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from zelo_site.processes.services import ServiceSupervisor

    try:
        with ServiceSupervisor(home) as services:
            call_command("migrate", verbosity=0)
            yield home, services.revive
            connections.close_all()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def running_workers(processes: int, home: Path, watch: Callable[[], Any]) -> Iterator[Callable[[], None]]:
    """Reconciler, rating worker and workers over HTTP, as any installation starts them; yields what to call in waiting."""
    from zelo_site.processes.supervisor import Child, ProcessSupervisor

    commands = {"reconciler": ["reconcile"], "rating": ["worker", "rating"]}
    commands |= {
        f"http-{number}": ["worker", "judging-http", "--name", f"http-{number}"] for number in range(processes)
    }
    children = [
        Child(name=name, command=[sys.executable, str(ROOT / "manage.py"), *command])
        for name, command in commands.items()
    ]
    with ProcessSupervisor(children, home=home, watch=watch, report=lambda line: print(line, file=sys.stderr)) as kept:
        yield kept.tick


# --- either side -------------------------------------------------------------------------


def measure(setting: Setting, home: Path, watch: Callable[[], Any]) -> Measured:
    """Both sides on one server, the bare loop first. Both are asked the same questions."""
    from tests.fake_judge.process import running_fake_judge

    ledger = home / f"{setting.in_flight}.jsonl"
    arguments = ["--latency-ms", str(1000 * setting.latency_s), "--api-key", KEY]
    with running_fake_judge(ledger, *arguments) as fake:
        endpoint = {"name": "fake", "base_url": fake.base_url, "api_key_env": "JUDGING_KEY"}
        os.environ["ZELO_ENDPOINTS"] = json.dumps([endpoint | {"max_concurrency": setting.in_flight}])
        judge, bodies = order(setting)
        answers, peer_per_s = ask_barely(fake.base_url, list(bodies.values()), setting)
        peer_in_flight = fake.summary()["most_in_flight"]
        asked = len(fake.ledger())
        with running_workers(setting.processes, home, watch) as tick:
            ours_per_s = ask_through_the_queue(judge, setting, tick)
            ours_in_flight = fake.summary()["most_in_flight"]
        lines = fake.ledger()
        stored = preferences(judge)
        expected = {
            (pair, swapped): 1.0 - first if swapped else first
            for (pair, swapped), first in zip(bodies, answers, strict=True)
        }
        agree = _calls(lines[:asked]) == _calls(lines[asked:]) and all(
            abs(stored.get(key, -1.0) - value) < 1e-9 for key, value in expected.items()
        )
    return Measured(peer_per_s, ours_per_s, peer_in_flight, ours_in_flight, agree and len(stored) == len(expected))


def _calls(lines: Sequence[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """What was asked, by hashes of the presented documents in their order."""
    return Counter((line["first"], line["second"]) for line in lines)


def order(setting: Setting) -> tuple[Any, dict[tuple[int, bool], dict[str, Any]]]:
    """(a paused judge with that many open questions, the body of the request for each)."""
    from labeling.access.annotators import get_judge
    from labeling.models import Candidate, Document, Query
    from labeling.projects import create_project
    from workers.judges.prompting import build_prompt, cutter_of
    from workers.judging.batches import prepared_judge
    from workers.judging.pausing import pause_judge
    from workers.judging.questions import comparisons_of
    from workers.judging.queue import ClaimedTask
    from workers.models import JudgingTask
    from workers.runs.advancing import advance
    from workers.runs.ordering import start_run

    project = create_project(f"Judging {setting.name}")
    documents = 100
    for number in range(-(-setting.questions // (4 * documents))):
        query = Query.objects.create(project=project, external_id=f"q{number}", text=f"what is said about {number}")
        texts = Document.objects.bulk_create(
            Document(project=project, external_id=f"q{number}-d{place}", text=_text(number, place))
            for place in range(documents)
        )
        Candidate.objects.bulk_create(
            Candidate(query=query, document=text, first_stage_rank=place + 1) for place, text in enumerate(texts)
        )
    options = {"endpoint": "fake", "model": "fake", "mode": "logprob"}
    judge = get_judge(project, "openai-http", options, name="fake")
    pause_judge(judge, "until the clock runs")
    run = start_run(project, judges=[judge], pair_budget=setting.questions, seed=1)
    while JudgingTask.objects.filter(run=run).count() < setting.questions:
        advance(run.pk)
    rows = JudgingTask.objects.filter(run=run).order_by("id")
    tasks = [ClaimedTask(row.pk, 0, 0, run.pk, row.pair_id, judge.pk, row.swapped) for row in rows]
    asker: Any = prepared_judge(judge.pk)
    cut = cutter_of("")
    return judge, {
        (task.pair_id, task.swapped): asker.request(
            build_prompt(comparison, form=asker.form, limits=asker._limits, cut=cut)
        )
        for task, comparison in zip(tasks, comparisons_of(project.pk, tasks), strict=True)
    }


def _text(query: int, place: int) -> str:
    """About 600 characters that no other document has."""
    return f"Document {place} of query {query}. " + f"It says something of its own, number {query}-{place}. " * 12


def preferences(judge: Any) -> dict[tuple[int, bool], float]:
    from labeling.models import Judgment

    rows = Judgment.objects.filter(annotator=judge).values_list("pair_id", "swapped", "preference")
    return {(pair, swapped): float(value) for pair, swapped, value in rows}


def ask_through_the_queue(judge: Any, setting: Setting, tick: Callable[[], None]) -> float:
    """Judgments a second by the database's clock, from the moment when questions may be claimed to the last stored."""
    from django.db import connection
    from django.db.models import Max

    from workers.judging.pausing import resume_judge
    from workers.models import Attempt, JudgingTask
    from workers.monitoring.heartbeats import alive

    deadline = time.monotonic() + PATIENCE_S
    while sum("judging-http" in worker.queues for worker in alive()) < setting.processes:
        wait(tick, deadline)
    for _ in range(10):  # a second in which the processes come to rest
        wait(tick, deadline)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        began = cursor.fetchone()[0]
    resume_judge(judge)
    while JudgingTask.objects.filter(annotator=judge).exists():
        wait(tick, deadline, 0.25)
    ended = Attempt.objects.filter(annotator=judge).aggregate(last=Max("finished_at"))["last"]
    return setting.questions / float((ended - began).total_seconds())


def wait(tick: Callable[[], None], deadline: float, seconds: float = 0.1) -> None:
    tick()
    time.sleep(seconds)
    if time.monotonic() > deadline:
        raise TimeoutError(f"not done within {PATIENCE_S:.0f} s; see the logs above")


# --- the bare loop -----------------------------------------------------------------------


def ask_barely(base_url: str, bodies: Sequence[dict[str, Any]], setting: Setting) -> tuple[list[float], float]:
    """(P(a) of each answer, calls a second) of plain httpx loops, one a process, that store nothing."""
    each = -(-len(bodies) // setting.processes)
    parts = [list(bodies[start : start + each]) for start in range(0, len(bodies), each)]
    in_flight = setting.in_flight // setting.processes
    if setting.processes == 1:
        replies, seconds = _loop(base_url, parts[0], in_flight)
        return [_first_label(reply) for reply in replies], len(bodies) / seconds
    with multiprocessing.get_context("spawn").Pool(setting.processes) as pool:
        pool.map(time.sleep, [0.5] * setting.processes)  # all are up
        began = time.monotonic()
        found = pool.starmap(_loop, [(base_url, part, in_flight) for part in parts], chunksize=1)
        seconds = time.monotonic() - began
    return [_first_label(reply) for replies, _ in found for reply in replies], len(bodies) / seconds


def _loop(base_url: str, bodies: Sequence[dict[str, Any]], in_flight: int) -> tuple[list[dict[str, Any]], float]:
    return asyncio.run(_ask_all(base_url, bodies, in_flight))


async def _ask_all(
    base_url: str, bodies: Sequence[dict[str, Any]], in_flight: int
) -> tuple[list[dict[str, Any]], float]:
    """Keep `in_flight` calls going, each by a client of its own: one with many connections looks through all of them."""
    import httpx

    replies: list[Any] = [None] * len(bodies)
    places = iter(range(len(bodies)))
    certificates = httpx.create_ssl_context()
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(verify=certificates, timeout=60.0))
            for _ in range(in_flight)
        ]

        async def ask(client: httpx.AsyncClient) -> None:
            for place in places:
                answer = await client.post(
                    f"{base_url}/chat/completions", json=bodies[place], headers={"authorization": f"Bearer {KEY}"}
                )
                replies[place] = answer.raise_for_status().json()

        gc.collect()
        gc.freeze()  # as a worker does
        began = time.monotonic()
        await asyncio.gather(*(ask(client) for client in clients))
        return replies, time.monotonic() - began


def _first_label(reply: dict[str, Any]) -> float:
    """P(the document presented first), read by the product's own reader of log-probabilities."""
    from workers.judges.openai.answers import read_logprobs

    return read_logprobs(reply, least_mass=0.8, missing="fail").preference_of_first


if __name__ == "__main__":
    main()
