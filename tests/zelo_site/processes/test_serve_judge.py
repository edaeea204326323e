"""Serving a judge's model: the command line, where vLLM is looked for, and what is said where it is not."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from workers.endpoints.registry import load_endpoints
from zelo_site.processes.management.commands import serve_judge
from zelo_site.processes.management.commands.serve_judge import Serving, VllmMissing, find_vllm

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing is installed; returns an empty folder that is all of PATH."""
    monkeypatch.delenv("ZELO_VLLM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(serve_judge, "OWN_ENVIRONMENT", tmp_path / "none" / "vllm")
    return tmp_path


def program(folder: Path, name: str = "vllm", body: str = "") -> Path:
    """An executable that notes its arguments in a file beside it."""
    file = folder / name
    file.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n{body or 'pathlib.Path(__file__ + chr(46) + chr(97)).write_text(chr(10).join(sys.argv[1:]))'}\n"
    )
    file.chmod(0o755)
    return file


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    call_command("serve_judge", *arguments, "--dry-run")
    return shlex.split(capsys.readouterr().out)


def test_the_command_has_the_flags_that_judging_needs(no_vllm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = dry_run(capsys, "Qwen/Qwen3-4B", "--port", "8123")
    assert command[:3] == ["vllm", "serve", "Qwen/Qwen3-4B"]
    assert "--enable-prefix-caching" in command
    flags = dict(itertools.pairwise(command))
    assert flags["--max-logprobs"] == "20" and flags["--max-model-len"] == "4096"
    assert flags["--served-model-name"] == "Qwen/Qwen3-4B"
    assert (flags["--host"], flags["--port"]) == ("127.0.0.1", "8123")
    assert "--tensor-parallel-size" not in command


def test_further_arguments_and_several_gpus_reach_vllm(no_vllm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = dry_run(capsys, "m", "--name", "judge", "--gpus", "2", "--vllm-args=--quantization fp8")
    assert command[-2:] == ["--quantization", "fp8"]
    flags = dict(itertools.pairwise(command))
    assert (flags["--tensor-parallel-size"], flags["--served-model-name"]) == ("2", "judge")


def test_a_folder_is_called_by_its_name(no_vllm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "distilled").mkdir()
    command = dry_run(capsys, str(tmp_path / "distilled"))
    assert command[command.index("--served-model-name") + 1] == "distilled"


def test_without_vllm_it_says_how_to_install_it(no_vllm: Path) -> None:
    with pytest.raises(VllmMissing, match=r"requirements-gpu\.txt"):
        call_command("serve_judge", "m")


def test_vllm_is_looked_for_in_three_places_in_order(no_vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_vllm() is None
    on_path = program(no_vllm)
    assert find_vllm() == str(on_path)
    own = program(no_vllm, "own")
    monkeypatch.setattr(serve_judge, "OWN_ENVIRONMENT", own)
    assert find_vllm() == str(own)
    named = program(no_vllm, "named")
    monkeypatch.setenv("ZELO_VLLM", str(named))
    assert find_vllm() == str(named)
    monkeypatch.setenv("ZELO_VLLM", str(no_vllm / "gone"))
    assert find_vllm() is None  # what was named is meant; nothing else is started instead


def test_the_endpoint_that_it_prints_is_valid() -> None:
    (endpoint,) = load_endpoints({"ZELO_ENDPOINTS": Serving("m", "m", host="::1", port=8001).endpoint()}).values()
    assert endpoint.base_url == "http://[::1]:8001/v1"
    assert json.loads(Serving("m", "m").endpoint())[0]["base_url"] == "http://127.0.0.1:8000/v1"


def test_the_server_takes_the_place_of_the_command(tmp_path: Path) -> None:
    body = "print('served', *sys.argv[1:3], flush=True); sys.exit(7)"
    environment = {**os.environ, "ZELO_VLLM": str(program(tmp_path, "fake-vllm", body)), "ZELO_HOME": str(tmp_path)}
    run = [sys.executable, "manage.py", "serve_judge", "tiny/model"]
    ended = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.split() == ["served", "serve", "tiny/model"]
    assert ended.returncode == 7
    assert "ZELO_ENDPOINTS" in ended.stderr
