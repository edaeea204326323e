"""Keeps zelo's own processes running: web server, workers, reconciler. No Django.

`zelo_site.processes.stack` lists them; `zelo_site.processes.children` starts each under a guard, so that a killed supervisor leaves
none behind. Database and broker have their own supervisor (`zelo_site.processes.services`), which outlives this one.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from zelo_site.processes.children import fresh_log, log_tail, start_guarded
from zelo_site.processes.guard import children_of

TICK_S = 1.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
STEADY_S = 60.0
GIVE_UP_AFTER = 5
KILL_MARGIN_S = 5.0
GRACE_S = 15.0
# If stopping takes longer, the supervisor reports which processes it is waiting for.
PATIENCE_S = 5.0
POLL_S = 0.05
STOPPED, GAVE_UP = 0, 1


@dataclass(frozen=True)
class Child:
    """A process to keep running. `environ` extends our environment; `grace_s` is the time it may take to stop; `delay_s`
    delays its start.

    If an `essential` process ends GIVE_UP_AFTER times in a row, each within STEADY_S, all processes stop. A process with a
    `reload_signal` loads its program again when it gets that signal, without an end.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    grace_s: float = GRACE_S
    essential: bool = False
    delay_s: float = 0.0
    reload_signal: signal.Signals | None = None


@dataclass
class _Kept:
    """A child and its state; its process is None until its first start."""

    child: Child
    log: Path
    process: subprocess.Popen[bytes] | None
    started_at: float
    failures: int = 0
    due_at: float | None = None

    @property
    def running(self) -> subprocess.Popen[bytes] | None:
        return self.process if self.process is not None and self.process.poll() is None else None


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _no_lines() -> Iterable[str]:
    return ()


class ProcessSupervisor:
    """Starts children in order, restarts those that end, stops them all together.

    `with ProcessSupervisor(children, home=home) as supervisor: return supervisor.wait()`; callers with other work
    call `tick` regularly instead. Each tick calls `watch`, which returns lines to report, such as
    `ServiceSupervisor.revive`. Use it from the main thread: children end with the thread that started them.
    """

    def __init__(
        self,
        children: Sequence[Child] = (),
        *,
        home: Path,
        watch: Callable[[], Iterable[str]] = _no_lines,
        report: Callable[[str], None] = _to_stderr,
        first_delay_s: float = FIRST_DELAY_S,
    ) -> None:
        self._children = tuple(children)
        self._home = home
        self._watch = watch
        self._report = report
        self._first_delay_s = first_delay_s
        self._kept: list[_Kept] = []
        self._signals = 0
        self._gave_up = False

    def __enter__(self) -> Self:
        try:
            for child in self._children:
                self.start(child)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, child: Child) -> None:
        """Start another child and keep it running. Its output goes to `home/logs/NAME.log`."""
        log = fresh_log(self._home, child.name)
        if child.delay_s > 0.0:
            self._kept.append(_Kept(child, log, None, 0.0, due_at=time.monotonic() + child.delay_s))
        else:
            self._kept.append(_Kept(child, log, self._launch(child, log), time.monotonic()))

    def run(self) -> int:
        """Run all children until SIGINT, SIGTERM or SIGHUP, then stop them; return 0, or 1 if an essential child failed."""
        with self:
            return self.wait()

    def wait(self) -> int:
        """Keep all running until a signal (return 0) or until an essential child keeps failing (return 1)."""
        with self._noted_signals() as woken:
            while not self._signals and not self._gave_up:
                self.tick()
                self._sleep(woken)
        return GAVE_UP if self._gave_up else STOPPED

    def tick(self) -> None:
        """Check every child once: report and schedule ended ones, restart those that are due."""
        for kept in self._kept:
            if kept.due_at is None:
                code = kept.process.poll() if kept.process is not None else None
                if code is not None:
                    self._note_end(kept, code)
            elif time.monotonic() >= kept.due_at:
                kept.process, kept.started_at = self._launch(kept.child, kept.log), time.monotonic()
                kept.due_at = None
        for line in self._watch():
            self._report(line)

    def stop(self) -> None:
        """Stop all children and their descendants: signal them in reverse order, then wait for all together.

        Rejected: stopping them one by one, which would add up their grace periods. Another signal kills them at once.
        """
        self._stop_all()
        self._kept.clear()

    def restart(self, between: Callable[[], None] | None = None) -> None:
        """Restart every child: one after another, or all together with `between` called while none runs.

        A worker finishes its task first, so that no answer is lost. If `between` raises, the children stay stopped until the
        next `restart`.
        """
        if between is None:
            for kept in self._kept:
                if not self._signals:
                    self._replace(kept)
            return
        self._stop_all()
        for kept in self._kept:
            kept.due_at = math.inf
        between()
        for kept in self._kept:
            if not self._signals:
                self._relaunch(kept)

    def _replace(self, kept: _Kept) -> None:
        process, number = kept.running, kept.child.reload_signal
        if process is not None and number is not None:
            for pid in children_of(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return
        if process is not None:
            process.terminate()
            deadline = time.monotonic() + kept.child.grace_s + KILL_MARGIN_S
            while process.poll() is None:
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(POLL_S)
        elif kept.due_at is not None and kept.due_at < math.inf:
            return  # its start is due anyway
        self._relaunch(kept)

    def _relaunch(self, kept: _Kept) -> None:
        kept.process, kept.started_at = self._launch(kept.child, kept.log), time.monotonic()
        kept.failures, kept.due_at = 0, None

    def _stop_all(self) -> None:
        with self._noted_signals() as woken:
            already = self._signals
            running = [(kept.child, process) for kept in reversed(self._kept) if (process := kept.running) is not None]
            for _, process in running:
                process.terminate()
            now = time.monotonic()
            deadline = now + max((child.grace_s for child, _ in running), default=0.0) + KILL_MARGIN_S
            report_at = now + PATIENCE_S
            for kept in self._kept:
                kept.due_at = None  # no restart
            while waited_for := [child.name for child, process in running if process.poll() is None]:
                if time.monotonic() > report_at:
                    report_at = math.inf
                    names = ", ".join(sorted(waited_for))
                    self._report(f"waiting for {names} to stop; send the signal again to kill them")
                if self._signals > already:
                    already = sys.maxsize
                    for _, process in running:
                        process.terminate()  # a guard kills on the second SIGTERM
                if time.monotonic() > deadline:
                    for _, process in running:
                        process.kill()
                self._sleep(woken, until=report_at)

    def process_ids(self) -> dict[str, int]:
        """Return the process id of each running child's guard by name."""
        return {kept.child.name: process.pid for kept in self._kept if (process := kept.running) is not None}

    def _launch(self, child: Child, log: Path) -> subprocess.Popen[bytes]:
        return start_guarded(child.command, log=log, environ={**os.environ, **child.environ}, grace_s=child.grace_s)

    def _note_end(self, kept: _Kept, code: int) -> None:
        now = time.monotonic()
        kept.failures = 1 if now - kept.started_at >= STEADY_S else kept.failures + 1
        if kept.child.essential and kept.failures >= GIVE_UP_AFTER:
            self._gave_up = True
            self._report(
                f"{kept.child.name} crashed {kept.failures} times in a row ({_ended(code)}); not restarting it. "
                f"The tail of {kept.log}:\n{log_tail(kept.log)}"
            )
            kept.due_at = float("inf")
            return
        delay_s = min(self._first_delay_s * 2 ** (kept.failures - 1), LONGEST_DELAY_S)
        kept.due_at = now + delay_s
        self._report(f"{kept.child.name} exited ({_ended(code)}); restarting in {delay_s:g} s, see {kept.log}")

    def _sleep(self, woken: socket.socket, *, until: float = math.inf) -> None:
        """Wait for a signal, a child's end, the next tick, or the given time."""
        due = [until, *(kept.due_at for kept in self._kept if kept.due_at is not None)]
        timeout_s = min([TICK_S, *(max(0.0, at - time.monotonic()) for at in due)])
        if select.select([woken], [], [], timeout_s)[0]:
            woken.recv(4096)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    @contextlib.contextmanager
    def _noted_signals(self) -> Iterator[socket.socket]:
        """Count SIGINT, SIGTERM and SIGHUP instead of exiting; the socket becomes readable on these and SIGCHLD."""
        with contextlib.ExitStack() as undo:
            reading, writing = socket.socketpair()
            undo.enter_context(reading)
            undo.enter_context(writing)
            reading.setblocking(False)
            writing.setblocking(False)
            handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
                signal.SIGINT: self._note_signal,
                signal.SIGTERM: self._note_signal,
                signal.SIGCHLD: _wake_only,
            }
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # respect nohup
                handlers[signal.SIGHUP] = self._note_signal
            undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False))
            for number, handler in handlers.items():
                undo.callback(signal.signal, number, signal.signal(number, handler) or signal.SIG_DFL)
            yield reading


def _wake_only(number: int, frame: FrameType | None) -> None:
    """No-op handler, because without a handler the signal would not wake the loop."""


def _ended(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(number).name}"
    return f"exit status {code}"


@contextlib.contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit, so that the block cleans up as it does after Ctrl-C."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with contextlib.ExitStack() as undo:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                undo.callback(signal.signal, number, signal.signal(number, leave) or signal.SIG_DFL)
        yield
