"""The training process: no secrets, no Django, killed and gone on to the bit, and its reasons in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labeling.records import TrainingData
from tests.factories.lessons import make_data, make_options, write_rows
from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3
from trainer.publishing.manifests import ARTEFACTS
from trainer.training import process as training_process
from trainer.training.launcher import ROOT, TrainingProcess, command_for, training_environment, visible_gpus
from trainer.training.process import EVENTS, ORDER, PUBLISHED, RESULT, ROWS

SECRETS = {
    "DATABASE_URL": "postgres://zelo:secret@db/zelo", "BROKER_URL": "redis://:secret@b", "STORAGE_URL": "s3://secret",
    "ZELO_SECRET_KEY": "secret", "ZELO_HOME": "/secret", "ZELO_ENDPOINTS": "secret", "PGPASSWORD": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret", "HF_TOKEN": "secret", "OPENAI_API_KEY": "secret", "DJANGO_SETTINGS_MODULE": "secret",
}  # fmt: skip


def make_workspace(
    folder: Path,
    options: dict[str, Any],
    *,
    trainer: str = "pointwise",
    module: str = "trainer.training.pointwise",
    data: TrainingData | None = None,
) -> Path:
    folder.mkdir()
    write_rows(folder / ROWS, data or make_data())
    card = {"name": "Tiny", "data": {"rows": 96}, "lineage": {}, "training": {}}
    order = {"trainer": trainer, "module": module, "options": options, "card": card}
    (folder / ORDER).write_text(json.dumps(order))
    return folder


def stub(folder: Path, does: str) -> Path:
    return make_workspace(folder, {"does": does}, trainer="test-trainer", module="tests.factories.stubs.trainers")


def follow(
    process: TrainingProcess, until: Callable[[dict[str, Any]], bool], *, timeout_s: float = 120
) -> list[dict[str, Any]]:
    """What the process says until an event or its end."""
    told: list[dict[str, Any]] = []
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended = process.ended() is not None
        told += process.new_events()
        if ended or any(until(event) for event in told):
            return told
        time.sleep(0.05)
    raise TimeoutError(told)


def never(event: dict[str, Any]) -> bool:
    return False


@pytest.mark.long
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    base = save_tiny_bert(tmp_path / "bert")
    # Enough to learn more than the head's random weights rank by chance: otherwise nothing is published.
    options = make_options(base, dropout=0.1, eval_steps=4, epochs=4, learning_rate=2e-3, patience=0).model_dump()
    data = make_data(24, dev=16)
    whole, killed = (make_workspace(tmp_path / name, options, data=data) for name in ("whole", "killed"))
    with TrainingProcess(whole) as beside:  # most of the time goes into starting
        with TrainingProcess(killed) as process:
            told = follow(process, lambda event: event["kind"] == "checkpoint" and event["step"] >= 8)
            os.kill(process.pid, signal.SIGKILL)
        reached = max(event["step"] for event in told if event["kind"] == "checkpoint")
        assert not (killed / RESULT).exists()
        with TrainingProcess(killed) as process:
            told = follow(process, never)
            assert process.ended() == 0, process.last_output()
        follow(beside, never)
    assert next(event["step"] for event in told if event["kind"] == "resumed") >= reached
    for name in ("adapter/adapter_model.safetensors", f"{PUBLISHED}/merged/model.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    result = json.loads((killed / RESULT).read_text())
    assert result["facts"]["dev_ndcg@10"] == json.loads((whole / RESULT).read_text())["facts"]["dev_ndcg@10"]
    assert result["largest_difference"] <= 1e-4
    assert all((killed / PUBLISHED / artefact / "README.md").exists() for artefact in ARTEFACTS)


def test_the_process_gets_no_secret(tmp_path: Path) -> None:
    workspace = stub(tmp_path / "w", "shows its environment")
    with TrainingProcess(workspace, environ={**os.environ, **SECRETS}) as process:
        told = follow(process, never)
    seen = json.loads(told[-1]["error"].removeprefix("LookupError: "))
    assert "secret" not in json.dumps(seen)
    assert not SECRETS.keys() & seen.keys()
    assert seen["PATH"] == os.environ["PATH"]


def test_what_is_new_in_an_environment_stays_out() -> None:
    passed = training_environment({"PATH": "/bin", "NEW_TOKEN": "x", "CUDA_VISIBLE_DEVICES": "0", "LC_ALL": "C"})
    assert {"PATH", "CUDA_VISIBLE_DEVICES", "LC_ALL"} <= passed.keys()
    assert "NEW_TOKEN" not in passed


def test_the_process_loads_no_django() -> None:
    code = (
        "import sys, trainer.training.process, trainer.training.fine_tuning, trainer.training.pointwise, trainer.training.launcher, trainer.publishing.export;"
        "sys.exit('django' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_process_dies_with_its_worker(tmp_path: Path) -> None:
    workspace = stub(tmp_path / "w", "dawdles")
    code = (
        "import os, sys, time; from pathlib import Path; from trainer.training.launcher import TrainingProcess;"
        f"process = TrainingProcess(Path({str(workspace)!r})).__enter__(); print(process.pid, flush=True); time.sleep(600)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    deadline = time.monotonic() + 60
    while not (workspace / "events.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("explodes", "ArithmeticError: two and two are five"),
        ("fills the disk", "free some, then resume the run"),
    ],
)
def test_a_failure_is_told_in_the_last_event(tmp_path: Path, does: str, says: str) -> None:
    with TrainingProcess(stub(tmp_path / "w", does)) as process:
        told = follow(process, never)
        assert process.ended() == 1
    assert told[-1]["kind"] == "failed"
    assert says in told[-1]["error"]
    assert not (tmp_path / "w" / RESULT).exists()


def test_a_process_that_vanishes_leaves_its_last_output(tmp_path: Path) -> None:
    with TrainingProcess(stub(tmp_path / "w", "vanishes")) as process:
        follow(process, never)
        assert process.ended() == 9
        assert "the last lines" in process.last_output()


def test_a_pickle_as_base_is_refused_and_nothing_is_published(tmp_path: Path) -> None:
    base = save_tiny_qwen3(tmp_path / "qwen3")
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    workspace = make_workspace(tmp_path / "w", make_options(base).model_dump())
    assert training_process.run(workspace) == 1
    told = json.loads((workspace / EVENTS).read_text().splitlines()[-1])
    assert told["error"].startswith("PickleRefused: ")
    assert "take a revision that has" in told["error"]
    assert not (workspace / PUBLISHED).exists()


def test_two_processes_never_share_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_process, "PATIENCE_S", 0.1)
    workspace = stub(tmp_path / "w", "dawdles")
    with TrainingProcess(workspace) as process:
        follow(process, lambda event: event["kind"] == "step")
        assert training_process.run(workspace) == 1
        told = process.new_events()
    assert any("another process trains in" in event.get("error", "") for event in told)


def test_several_gpus_are_launched_by_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_for(Path("/w"), gpus=1)[1:3] == ["-m", "trainer.training.process"]
    several = command_for(Path("/w"), gpus=4)
    assert several[2] == "accelerate.commands.launch"
    assert several[several.index("--num_processes") + 1] == "4"
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,2"}) == 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == 0
    monkeypatch.setenv("PATH", "/no/such/folder")
    assert visible_gpus({}) == 0
