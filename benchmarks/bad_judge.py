"""Claim: a judge that always fails costs at most 30 paid calls, and the healthy judge beside it finishes.

A run of 5,000 questions each: half to a judge that always fails in one of ten ways, half to a healthy one, through PostgreSQL,
Valkey and workers as `manage.py worker` starts them, against the fake judge. Calls are counted by the server, not by us.
`most_paid` is the largest number of calls that the failing judge made a model answer or may have been charged for. A way
that is an outage (timeouts, connection refused) must not pause the judge: there the endpoint's state must say so. `--quick`
asks fewer questions. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

from benchmarks.judging import KEY, running_services, running_workers  # noqa: E402

PATIENCE_S = 300.0
ALLOWED = 30
DOCUMENTS = 100


@dataclass(frozen=True, slots=True)
class Way:
    """One way to fail: the fault of the fake server, the judge's mode, and whether it is the endpoint's outage."""

    name: str
    fault: str
    mode: str = "logprob"
    is_outage: bool = False


WAYS = (
    Way("prose instead of JSON", "prose", "reasoned"),
    Way("score out of range", "out_of_range", "reasoned"),
    Way("cut off", "cut_answer", "reasoned"),
    Way("logprobs null", "null_logprobs"),
    Way("no A or B", "low_label_mass"),
    Way("refusal", "refusal"),
    Way("reply is no JSON", "html"),
    Way("400", "bad_request"),
    Way("401", "unauthorized"),
    Way("timeout", "hang", is_outage=True),
    Way("connection refused", "", is_outage=True),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What one way cost: calls at the server and those paid; how the failing judge and the healthy one ended."""

    calls: int
    paid: int
    is_stopped: bool
    is_healthy_done: bool
    reason: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 questions a judge instead of 2,500; under 45 s")
    arguments = parser.parse_args()
    found = measure(100 if arguments.quick else 2_500)
    print(f"{'way':<24} {'calls':>6} {'paid':>5} {'stopped':>8} {'healthy':>8}  reason")
    for way, each in found.items():
        stopped, healthy = ("yes" if each.is_stopped else "NO"), ("done" if each.is_healthy_done else "LEFT")
        print(f"{way.name:<24} {each.calls:>6} {each.paid:>5} {stopped:>8} {healthy:>8}  {each.reason[:90]}")
    worst = max(each.paid for each in found.values())
    figures = {
        "benchmark": "bad_judge",
        "most_paid": worst,
        "within_limit": worst <= ALLOWED,
        "all_stopped": all(each.is_stopped for each in found.values()),
        "healthy_finished": all(each.is_healthy_done for each in found.values()),
        "paid": {way.name: each.paid for way, each in found.items()},
    }
    print(json.dumps(figures))


def measure(questions: int) -> dict[Way, Found]:
    """All ways at once, each in a project with an endpoint of its own, on one server."""
    with running_services() as (home, watch):
        from tests.fake_judge.process import running_fake_judge

        with running_fake_judge(home / "ledger.jsonl", "--latency-ms", "20", "--api-key", KEY) as fake:
            define_endpoints(fake.base_url)
            for number, way in enumerate(WAYS):
                if way.fault:
                    fake.set_judge(f"bad-{number}", fault_rates={way.fault: 1.0})
            runs = [order(number, way, questions) for number, way in enumerate(WAYS)]
            with running_workers(1, home, watch) as tick:
                wait_until_settled(runs, tick)
            lines = [line for line in fake.ledger() if line["model"].startswith("bad-")]
        calls = Counter(line["model"] for line in lines)
        paid = Counter(line["model"] for line in lines if line["paid"])
        return {
            way: outcome(runs[number], way, calls[f"bad-{number}"], paid[f"bad-{number}"])
            for number, way in enumerate(WAYS)
        }


def define_endpoints(base_url: str) -> None:
    """An endpoint for each failing judge, so that no outage stops another, and one for the healthy judges."""
    base = {"base_url": base_url, "api_key_env": "JUDGING_KEY", "max_concurrency": 32, "timeout_s": 20.0}
    endpoints = [{**base, "name": f"bad-{number}"} for number in range(len(WAYS))]
    for number, way in enumerate(WAYS):
        if way.fault == "hang":
            endpoints[number]["timeout_s"] = 1.0
        if not way.fault:
            endpoints[number]["base_url"] = f"http://127.0.0.1:{free_port()}/v1"
    # All lead to one address under one key: their states are kept apart by model.
    endpoints = [{**each, "limits_per_model": True} for each in endpoints]
    os.environ["ZELO_ENDPOINTS"] = json.dumps([*endpoints, {**base, "name": "good", "limits_per_model": True}])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def order(number: int, way: Way, questions: int) -> Any:
    """A run of one failing and one healthy judge, with that many questions to each."""
    from labeling.access.annotators import get_judge
    from labeling.models import Candidate, Document, Query
    from labeling.projects import create_project
    from workers.runs.ordering import start_run

    project = create_project(f"Bad judge {way.name}")
    documents = min(DOCUMENTS, questions // 4)
    for place in range(-(-questions // (4 * documents))):
        query = Query.objects.create(project=project, external_id=f"q{place}", text=f"question {number} {place}")
        texts = Document.objects.bulk_create(
            Document(project=project, external_id=f"q{place}-d{each}", text=f"Document {each} of {place} of {number}.")
            for each in range(documents)
        )
        Candidate.objects.bulk_create(
            Candidate(query=query, document=text, first_stage_rank=rank) for rank, text in enumerate(texts, start=1)
        )
    bad = {"endpoint": f"bad-{number}", "model": f"bad-{number}", "mode": way.mode}
    judges = [
        get_judge(project, "openai-http", bad, name=f"bad {number}"),
        get_judge(project, "openai-http", {"endpoint": "good", "model": f"good-{number}"}, name=f"good {number}"),
    ]
    return start_run(project, judges=judges, pair_budget=questions, seed=1)


def wait_until_settled(runs: list[Any], tick: Any) -> None:
    """Until every run has ended, or has answers of its healthy judge to all its questions."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(is_settled(run, way) for run, way in zip(runs, WAYS, strict=True)):
        tick()
        time.sleep(0.25)
        if time.monotonic() > deadline:
            print(f"not settled within {PATIENCE_S:.0f} s", file=sys.stderr)
            return


def is_settled(run: Any, way: Way) -> bool:
    from workers.models import Run

    run.refresh_from_db()
    is_over = run.state not in Run.ACTIVE
    return is_over or (
        way.is_outage and bool(run.pairs_planned) and healthy_left(run) == 0 and bool(down_endpoint(run))
    )


def healthy_left(run: Any) -> int:
    from workers.models import JudgingTask

    return JudgingTask.objects.filter(run=run, annotator__name__startswith="good").count()


def down_endpoint(run: Any) -> str:
    """What is wrong with the endpoint of the run's failing judge, empty where it works."""
    from workers.endpoints.limiter import endpoint_states
    from workers.models import EndpointState

    states = [each for each in endpoint_states(run.project) if each.name.startswith("bad-")]
    return next((each.last_error for each in states if each.state != EndpointState.Mode.CLOSED), "")


def outcome(run: Any, way: Way, calls: int, paid: int) -> Found:
    from labeling.models import Judgment
    from workers.models import JudgeTrouble

    run.refresh_from_db()
    trouble = JudgeTrouble.objects.filter(annotator__project=run.project).select_related("annotator").first()
    down = down_endpoint(run)
    reason = trouble.annotator.pause_reason if trouble else down
    answered = Judgment.objects.filter(annotator__project=run.project, annotator__name__startswith="good").count()
    is_stopped = bool(down) and trouble is None if way.is_outage else trouble is not None and run.is_unanswered
    done = bool(run.pairs_planned) and answered == run.pairs_planned
    return Found(calls, paid, is_stopped, done, reason)


if __name__ == "__main__":
    main()
