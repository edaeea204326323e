"""A whole project from import to pages by the benchmark's own program, and the same answers through kills."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.processes.installation import ROOT, last_line

pytestmark = pytest.mark.long


def figures(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "scale.py"), *arguments],
        env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(last_line(process, 1200.0).strip().splitlines()[-1])
    return found


def test_a_project_of_three_hundred_queries_goes_through_every_stage(environment: dict[str, str]) -> None:
    found = figures(environment, "--quick")
    assert (found["queries"], found["lost"], found["doubled"], found["rounds"]) == (300, 0, 0, 3)
    assert found["peak_mb"] <= 1500


def test_kills_of_worker_and_database_change_no_answer(environment: dict[str, str]) -> None:
    size = ("--queries", "60", "--candidates", "30", "--until", "judge")
    quiet, killed = figures(environment, *size), figures(environment, *size, "--kill")
    assert killed["kills"] == 4 and "kills" not in quiet
    assert (killed["lost"], killed["doubled"]) == (0, 0)
    assert killed["answers"] == quiet["answers"]
