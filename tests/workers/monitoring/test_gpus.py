"""What heartbeats tell of GPUs: read from the driver's own tool, absent where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.models import Worker
from workers.monitoring.gpus import Gpu, read_gpus
from workers.monitoring.heartbeats import beat


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH in which a test puts its nvidia-smi."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def install(folder: Path, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_each_gpu_is_told_with_its_memory_and_use(driver: Path) -> None:
    install(driver, "echo 'NVIDIA H200, 143771, 5120, 37'; echo 'NVIDIA T4, 15360, [N/A], [N/A]'")
    assert read_gpus() == [Gpu("NVIDIA H200", 143771, 5120, 37), Gpu("NVIDIA T4", 15360, None, None)]


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "printf '\\377\\376'", "true"])
def test_a_driver_that_tells_nothing_is_no_gpu(driver: Path, script: str) -> None:
    install(driver, script)
    assert read_gpus() == []


def test_hidden_gpus_are_none(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(driver, "echo 'NVIDIA H200, 143771, 5120, 37'")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert read_gpus() == []


@pytest.mark.django_db
def test_only_workers_that_may_use_a_gpu_tell_of_it(driver: Path) -> None:
    install(driver, "echo 'NVIDIA H200, 143771, 5120, 37'")
    beat("rating@here", "rating")
    beat("judging-gpu@here", "judging-gpu")
    gpus = dict(Worker.objects.values_list("name", "gpus"))
    assert gpus["rating@here"] == []
    assert gpus["judging-gpu@here"][0]["utilisation"] == 37
