"""How the demo ends after Ctrl-C: one sentence, exit code 130, and no line of make or of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PRESSED = """
import os, signal, sys
import manage

def press(event, arguments):
    if event == "import" and arguments[0] == "django.core.management":
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(press)
sys.argv = ["manage.py", "demo"]
manage.main()
"""


def test_ctrl_c_before_the_command_has_begun_says_one_word(tmp_path: Path) -> None:
    environ = {**os.environ, "ZELO_HOME": str(tmp_path)}
    command = [sys.executable, "-c", PRESSED]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped\n")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("code", "made", "said"), [(0, 0, ""), (130, 0, ""), (1, 2, "Error 1")])
@pytest.mark.parametrize("target", ["demo", "up"])
def test_make_adds_no_line_to_a_command_that_was_stopped(
    target: str, code: int, made: int, said: str, tmp_path: Path
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n[ "$*" = "manage.py {target} --port 8001" ] && exit {code}\nexit 9\n')
    python.chmod(0o755)
    command = ["make", "-o", f"{tmp_path}/installed", target, f"VENV={tmp_path}", "ARGS=--port 8001"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == made
    assert done.stderr.strip().endswith(said) and bool(done.stderr) == bool(said)
