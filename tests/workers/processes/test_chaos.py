"""Kills at random, of every kind, by the benchmark's own function on a stack of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.processes.installation import ROOT, last_line


@pytest.mark.long  # half a minute
def test_random_kills_lose_double_and_invent_nothing_and_pay_for_calls_in_flight_alone(
    environment: dict[str, str],
) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), "--rounds", "3"],
        env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    figures = json.loads(last_line(process, 400.0).strip().splitlines()[-1])
    assert sum(figures["kills"].values()) >= figures["rounds"] == 3
    assert (figures["lost"], figures["duplicates"], figures["invented"]) == (0, 0, 0)
    assert figures["extra_paid"] <= figures["in_flight_at_worker_kills"]
    assert (figures["unfinished"], figures["unbooked"]) == (0, 0)
    assert figures["judgments"] >= 500
