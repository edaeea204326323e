"""Command line of the fake judge: `python -m tests.fake_judge --port 0 --ledger FILE --seed N`.

Its first line of output is its address, which ends in /v1 as an OpenAI base_url does. It ends with
SIGTERM, SIGINT, or with the closing of its standard input where `--until-stdin-closes` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import threading
from pathlib import Path

from tests.fake_judge.faults import FaultPlan
from tests.fake_judge.ledger import Ledger
from tests.fake_judge.quality import HiddenQuality, JudgeSettings
from tests.fake_judge.server import FakeJudgeServer, serve


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_judge", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", type=Path, help="JSONL file of calls, appended to")
    parser.add_argument("--quality", type=Path, help="JSON object {quality_key: logits}")
    parser.add_argument("--payloads", type=Path, help="JSON array of texts that sway the judge")
    parser.add_argument("--spread", type=float, default=1.5, help="deviation of hidden quality, logits")
    parser.add_argument("--query-spread", type=float, default=0.0, help="deviation of hidden quality between queries")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--latency-jitter", type=float, default=0.0, help="deviation of log latency")
    parser.add_argument("--retry-after", type=float, default=1.0, help="seconds that 429 and 503 ask for")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=RATE", help="may be repeated")
    parser.add_argument("--judge", default="{}", help="JSON object: settings of every judge, see JudgeSettings")
    parser.add_argument("--judges", type=Path, help="JSON file {model: settings}")
    parser.add_argument("--api-key", default="", help="refuse calls without this key")
    parser.add_argument("--until-stdin-closes", action="store_true")
    return parser.parse_args(arguments)


def build_server(arguments: argparse.Namespace) -> FakeJudgeServer:
    rates = {name: float(rate) for name, _, rate in (each.partition("=") for each in arguments.fault)}
    server = FakeJudgeServer(
        quality=HiddenQuality.from_files(
            quality=arguments.quality,
            payloads=arguments.payloads,
            seed=arguments.seed,
            spread=arguments.spread,
            query_spread=arguments.query_spread,
        ),
        faults=FaultPlan(seed=arguments.seed, rates=rates, retry_after_s=arguments.retry_after),
        ledger=Ledger(arguments.ledger),
        judge=JudgeSettings().changed(json.loads(arguments.judge)),
        latency_s=arguments.latency_ms / 1000,
        latency_jitter=arguments.latency_jitter,
        api_key=arguments.api_key,
    )
    if arguments.judges:
        server.set_judges(json.loads(arguments.judges.read_text()))
    return server


async def run(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(
        serve(
            build_server(arguments),
            host=arguments.host,
            port=arguments.port,
            ready=lambda address: print(address, flush=True),
        )
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, task.cancel)
    if arguments.until_stdin_closes:
        threading.Thread(target=_wait_for_stdin, args=(loop, task), daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _wait_for_stdin(loop: asyncio.AbstractEventLoop, task: asyncio.Future[None]) -> None:
    """A parent that dies closes our standard input, however it dies."""
    sys.stdin.buffer.read()
    with contextlib.suppress(RuntimeError):  # the loop may be closed by then
        loop.call_soon_threadsafe(task.cancel)


if __name__ == "__main__":
    asyncio.run(run(parse_arguments()))
