"""The GPUs of this host and their load, read from the driver's tool `nvidia-smi`. Loads no torch."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

ASKED = "name,memory.total,memory.used,utilization.gpu"
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; memory in MiB, utilisation in percent, None where the driver does not report it."""

    name: str
    memory_mib: int | None
    used_mib: int | None
    utilisation: int | None


def read_gpus() -> list[Gpu]:
    """The GPUs that this process may use, in the driver's order; empty without a GPU or without the tool."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        answer = subprocess.run(
            [command, f"--query-gpu={ASKED}", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return []
    if answer.returncode != 0:
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(answer.stdout.splitlines())]
    return [Gpu(row[0][:100], *map(_number, row[1:])) for row in rows if len(row) == 4 and row[0]]


def has_gpu() -> bool:
    """Whether this process may use a GPU."""
    return bool(read_gpus())


def gpus_as_json() -> list[dict[str, Any]]:
    """The same as plain values, for a heartbeat."""
    return [asdict(gpu) for gpu in read_gpus()]


def _number(text: str) -> int | None:
    """A count, or None for "[N/A]" and its like."""
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None
