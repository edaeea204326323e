"""What the GPUs of this host are and how busy, as the driver's own tool tells it. Loads no torch; without a GPU, nothing."""

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
    """One GPU; memory in MiB, utilisation in percent, None where the driver does not tell."""

    name: str
    memory_mib: int | None
    used_mib: int | None
    utilisation: int | None


def read_gpus() -> list[Gpu]:
    """The GPUs that this process may use, as the driver numbers them; empty without any, or without its tool."""
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
    """Whether this host has a GPU that the driver answers for."""
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
