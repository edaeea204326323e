"""The program's own processes: kept running, stopped in order, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zelo_site.processes.supervisor import Child, ProcessSupervisor, exits_on_sigterm

ROOT = Path(__file__).resolve().parents[3]

# A worker as Celery's: it has children, one of them in a session of its own and deaf to SIGTERM.
FAMILY = """
import os, subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-S", "-c", stubborn], start_new_session=True)
subprocess.Popen(["sleep", "600"])
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)  # a grandchild without a parent
print("ready", flush=True)
time.sleep(600)
"""

SUPERVISE = """
import signal, sys
from pathlib import Path
from zelo_site.processes.supervisor import Child, ProcessSupervisor
children = [Child(name, [sys.executable, "-S", "-c", sys.argv[2]], grace_s=float(sys.argv[3])) for name in ("one", "two")]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
sys.exit(ProcessSupervisor(children, home=Path(sys.argv[1])).run())
"""


@pytest.fixture
def mark() -> Iterator[str]:
    """A value in the environment of all that a test starts; whatever it leaves is killed."""
    value = f"ZELO_TEST_MARK={uuid.uuid4().hex}"
    yield value
    for pid in marked(value):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Living processes that carry `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], *, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def said(home: Path, name: str) -> str:
    log = home / "logs" / f"{name}.log"
    return log.read_text() if log.exists() else ""


def supervise(home: Path, mark: str, program: str, *, grace_s: float = 15) -> subprocess.Popen[bytes]:
    """A supervisor of two children that run `program`, once both have said that they are ready."""
    name, _, value = mark.partition("=")
    command = [sys.executable, "-c", SUPERVISE, str(home), program, str(grace_s)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, name: value})
    assert until(lambda: all("ready" in said(home, child) for child in ("one", "two")), seconds=30)
    return process


def test_killed_supervisor_leaves_no_descendant(tmp_path: Path, mark: str) -> None:
    supervisor = supervise(tmp_path, mark, FAMILY)
    assert len(marked(mark)) > 8, "a supervisor, two guards, and two families"
    supervisor.kill()
    supervisor.wait()
    assert until(lambda: not marked(mark))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_everything_and_exits_with_zero(tmp_path: Path, mark: str, number: signal.Signals) -> None:
    supervisor = supervise(tmp_path, mark, FAMILY)
    supervisor.send_signal(number)
    assert supervisor.wait(20) == 0
    assert marked(mark) == []


def test_child_that_is_killed_takes_its_family_along(tmp_path: Path, mark: str) -> None:
    name, _, value = mark.partition("=")
    family = Child("family", [sys.executable, "-S", "-c", FAMILY], environ={name: value})
    with ProcessSupervisor([family], home=tmp_path, report=lambda line: None) as supervisor:
        assert until(lambda: "ready" in said(tmp_path, "family"))
        guard = supervisor.process_ids()["family"]
        main = next(pid for pid in marked(mark) if parent(pid) == guard and b"stubborn" in command_line(pid))
        os.kill(main, signal.SIGKILL)
        assert until(lambda: not marked(mark))


def test_second_signal_does_not_wait_for_the_grace(tmp_path: Path, mark: str) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    supervisor = supervise(tmp_path, mark, deaf, grace_s=300)
    supervisor.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.wait(1)
    supervisor.terminate()
    supervisor.wait(20)
    assert marked(mark) == []


def test_deaf_child_is_killed_after_its_grace(tmp_path: Path, mark: str) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    supervisor = supervise(tmp_path, mark, deaf, grace_s=0.5)
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert marked(mark) == []


def test_child_that_ends_is_started_again_with_a_line_that_says_why(tmp_path: Path) -> None:
    lines: list[str] = []
    child = Child("brief", ["sh", "-c", 'echo "I am $WHO"; exit 3'], environ={"WHO": "brief"})
    with ProcessSupervisor([child], home=tmp_path, report=lines.append, first_delay_s=0.01) as supervisor:

        def ended_often() -> bool:
            supervisor.tick()
            return len(lines) >= 3

        assert until(ended_often)
    assert lines[0] == f"brief exited (exit status 3); restarting in 0.01 s, see {tmp_path / 'logs/brief.log'}"
    assert "in 0.04 s" in lines[2]
    assert said(tmp_path, "brief").count("I am brief") >= 3


def test_essential_child_that_cannot_be_kept_up_ends_the_supervisor(tmp_path: Path, mark: str) -> None:
    name, _, value = mark.partition("=")
    lines: list[str] = []
    children = [
        Child("steady", ["sleep", "600"], environ={name: value}),
        Child("web", ["sh", "-c", "echo address in use; exit 1"], essential=True),
    ]
    supervisor = ProcessSupervisor(children, home=tmp_path, report=lines.append, first_delay_s=0.01)
    assert supervisor.run() == 1
    assert "not restarting it" in lines[-1] and "address in use" in lines[-1]
    assert marked(mark) == []


def test_command_that_does_not_exist_is_named_in_the_log(tmp_path: Path) -> None:
    lines: list[str] = []
    child = Child("absent", ["/no/such/program"], essential=True)
    assert ProcessSupervisor([child], home=tmp_path, report=lines.append, first_delay_s=0.01).run() == 1
    assert "cannot start /no/such/program" in lines[-1]


def test_child_may_finish_what_it_is_doing_before_it_stops_and_whoever_waits_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import signal, sys, time\ndef end(*_):\n    time.sleep(0.3)\n    print('finished')\n    sys.exit()\n"
    program += "signal.signal(signal.SIGTERM, end)\nprint('ready', flush=True)\ntime.sleep(600)\n"
    lines: list[str] = []
    monkeypatch.setattr("zelo_site.processes.supervisor.PATIENCE_S", 0.1)
    with ProcessSupervisor(home=tmp_path, report=lines.append) as supervisor:
        for name in ("judging", "web"):
            supervisor.start(Child(name, [sys.executable, "-S", "-c", program]))
        assert until(lambda: all("ready" in said(tmp_path, name) for name in ("judging", "web")))
    assert all("finished" in said(tmp_path, name) for name in ("judging", "web"))
    assert lines == ["waiting for judging, web to stop; send the signal again to kill them"]


def test_watch_is_asked_with_every_tick_and_its_lines_are_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    supervisor = ProcessSupervisor(home=tmp_path, watch=lambda: ["Valkey was started again"], report=lines.append)
    supervisor.tick()
    assert lines == ["Valkey was started again"]


def test_log_of_the_start_before_is_kept(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with ProcessSupervisor([Child("web", ["echo", text])], home=tmp_path):
            assert until(lambda expected=text: expected in said(tmp_path, "web"))  # type: ignore[misc]
    assert (tmp_path / "logs/web.log.1").read_text() == "first\n"
    assert said(tmp_path, "web") == "second\n"


def test_sigterm_unwinds_what_was_being_started() -> None:
    before, unwound = signal.getsignal(signal.SIGTERM), False
    with pytest.raises(SystemExit) as leaving, exits_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            unwound = True
    assert unwound and leaving.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_restart_replaces_every_process_and_reloads_those_that_can(tmp_path: Path) -> None:
    reloading = "import signal, time; signal.signal(signal.SIGHUP, lambda *_: print('again', flush=True))\n"
    reloading += "print('ready', flush=True)\nwhile True: time.sleep(0.05)"
    plain = "import time; print('ready', flush=True); time.sleep(600)"
    children = [
        Child("worker", [sys.executable, "-S", "-c", plain]),
        Child("web", [sys.executable, "-S", "-c", reloading], reload_signal=signal.SIGHUP),
    ]
    with ProcessSupervisor(children, home=tmp_path) as supervisor:
        assert until(lambda: "ready" in said(tmp_path, "worker") and "ready" in said(tmp_path, "web"))
        before = supervisor.process_ids()
        supervisor.restart()
        after = supervisor.process_ids()
        assert after["worker"] != before["worker"] and after["web"] == before["web"]
        assert until(lambda: "again" in said(tmp_path, "web"))


def test_processes_stay_stopped_where_the_migrations_fail(tmp_path: Path) -> None:
    child = Child("worker", [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    with ProcessSupervisor([child], home=tmp_path) as supervisor:
        seen: list[dict[str, int]] = []

        def fail() -> None:
            seen.append(supervisor.process_ids())
            raise RuntimeError("no such column")

        with pytest.raises(RuntimeError, match="no such column"):
            supervisor.restart(fail)
        supervisor.tick()
        assert seen == [{}] and supervisor.process_ids() == {}
        supervisor.restart(lambda: None)
        assert list(supervisor.process_ids()) == ["worker"]
