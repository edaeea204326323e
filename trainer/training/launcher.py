"""Starts the training process with an environment without secrets, and reads its events. No Django, no torch.

`workers.jobs.training` uses it. The environment contains only variables of an allow-list, so new secrets stay out by default.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.training.process import EVENTS

ROOT = Path(__file__).resolve().parents[2]
_PASSED = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "ZELO_MODELS", "ZELO_CACHE", "SYSTEMROOT",
}  # fmt: skip
_PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_", "TORCH_")
_ALWAYS = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # Spinning threads would take the cores from other processes and from each other.
    "OMP_WAIT_POLICY": "PASSIVE",
}
GRACE_S = 10.0
LONGEST_LOG = 3000


def training_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of `environ` for the training process: no database, broker, storage, home, key or token."""
    passed = {name: value for name, value in environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    return {**passed, **_ALWAYS}


def visible_gpus(environ: Mapping[str, str]) -> int:
    """Number of GPUs that a process started here would see; 0 without a driver."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([each for each in chosen.split(",") if each.strip() and each.strip() != "-1"])
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    found = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    return len(found.stdout.splitlines()) if found.returncode == 0 else 0


def command_for(workspace: Path, *, gpus: int) -> list[str]:
    """The command of the training process; with several GPUs, accelerate starts one process per GPU."""
    module = ["-m", "trainer.training.process", str(workspace), "--die-with-parent"]
    if gpus < 2:
        return [sys.executable, *module]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(gpus)]
    return [sys.executable, *launch, *module]


@dataclass
class TrainingProcess:
    """A training process; use as a context manager, which ends the process and its children."""

    workspace: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _read: int = 0

    def __enter__(self) -> TrainingProcess:
        self._log = (self.workspace / "log.txt").open("ab")
        events = self.workspace / EVENTS
        self._read = events.stat().st_size if events.exists() else 0
        self._process = subprocess.Popen(
            command_for(self.workspace, gpus=visible_gpus(self.environ)),
            cwd=ROOT,
            env=training_environment(self.environ),
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End the process and all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def new_events(self) -> list[dict[str, Any]]:
        """The events since the last call; an incomplete line waits for the next call."""
        path = self.workspace / EVENTS
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]

    def last_output(self) -> str:
        """The last output of the process, to explain an exit without a final event."""
        data = (self.workspace / "log.txt").read_bytes()[-LONGEST_LOG:]
        return data.decode(errors="replace").replace("\x00", " ")
