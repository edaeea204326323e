"""Keeps the program's own processes running: web server, workers, reconciler. No Django.

`zelo_site.stack` says which they are; `zelo_site.children` starts each under a guard, so that a killed supervisor leaves
none behind. Database and broker have a supervisor of their own (`zelo_site.services`), which outlives this one.
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

from zelo_site.children import fresh_log, log_tail, start_guarded

TICK_S = 1.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
STEADY_S = 60.0
GIVE_UP_AFTER = 5
KILL_MARGIN_S = 5.0
GRACE_S = 15.0
# Whoever stops a server is told what it waits for, if it takes longer than this.
PATIENCE_S = 5.0
STOPPED, GAVE_UP = 0, 1


@dataclass(frozen=True)
class Child:
    """A process to keep running. `environ` is added to ours; `grace_s`: how long it may take to stop; `delay_s`: how
    long after the others it is started.

    Where an `essential` one cannot be kept up (GIVE_UP_AFTER ends in a row, none after STEADY_S), all stop.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    grace_s: float = GRACE_S
    essential: bool = False
    delay_s: float = 0.0


@dataclass
class _Kept:
    """A child and its state; it has no process until it is first due."""

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

    `with ProcessSupervisor(children, home=home) as supervisor: return supervisor.wait()`; whoever has other work to do
    calls `tick` once in a while instead. `watch` is called with each tick and returns lines to report, for instance
    `ServiceSupervisor.revive`. To be used from the main thread: children end when the thread that started them does.
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
        """Start one more child and keep it running. Its output goes to `home/logs/NAME.log`."""
        log = fresh_log(self._home, child.name)
        if child.delay_s > 0.0:
            self._kept.append(_Kept(child, log, None, 0.0, due_at=time.monotonic() + child.delay_s))
        else:
            self._kept.append(_Kept(child, log, self._launch(child, log), time.monotonic()))

    def run(self) -> int:
        """Start, keep running until SIGINT, SIGTERM or SIGHUP, stop; returns an exit code (0, or 1 after giving up)."""
        with self:
            return self.wait()

    def wait(self) -> int:
        """Keep all running until a signal comes (0) or an essential child cannot be kept up (1)."""
        with self._noted_signals() as woken:
            while not self._signals and not self._gave_up:
                self.tick()
                self._sleep(woken)
        return GAVE_UP if self._gave_up else STOPPED

    def tick(self) -> None:
        """Look once at every child: report and time what has ended, start again what is due."""
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
        """Stop all, each with what it has started itself: told in the opposite order, waited for together.

        One by one would be tidier and would add up their graces. A further signal kills at once.
        """
        with self._noted_signals() as woken:
            already = self._signals
            running = [(kept.child, process) for kept in reversed(self._kept) if (process := kept.running) is not None]
            for _, process in running:
                process.terminate()
            now = time.monotonic()
            deadline = now + max((child.grace_s for child, _ in running), default=0.0) + KILL_MARGIN_S
            report_at = now + PATIENCE_S
            for kept in self._kept:
                kept.due_at = None  # nothing is started again
            while waited_for := [child.name for child, process in running if process.poll() is None]:
                if time.monotonic() > report_at:
                    report_at = math.inf
                    names = ", ".join(sorted(waited_for))
                    self._report(f"waiting for {names} to stop; send the signal again to kill them")
                if self._signals > already:
                    already = sys.maxsize
                    for _, process in running:
                        process.terminate()  # the second one tells a guard to kill
                if time.monotonic() > deadline:
                    for _, process in running:
                        process.kill()
                self._sleep(woken, until=report_at)
            self._kept.clear()

    def process_ids(self) -> dict[str, int]:
        """Process id of each running child's guard, by name."""
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
        """Until a signal, a child's end, the next tick, or that moment."""
        due = [until, *(kept.due_at for kept in self._kept if kept.due_at is not None)]
        timeout_s = min([TICK_S, *(max(0.0, at - time.monotonic()) for at in due)])
        if select.select([woken], [], [], timeout_s)[0]:
            woken.recv(4096)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    @contextlib.contextmanager
    def _noted_signals(self) -> Iterator[socket.socket]:
        """Count SIGINT, SIGTERM and SIGHUP instead of dying of them; the socket turns readable on these and SIGCHLD."""
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
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means it
                handlers[signal.SIGHUP] = self._note_signal
            undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False))
            for number, handler in handlers.items():
                undo.callback(signal.signal, number, signal.signal(number, handler) or signal.SIG_DFL)
            yield reading


def _wake_only(number: int, frame: FrameType | None) -> None:
    """A handler, because without one the signal would not wake the loop."""


def _ended(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(number).name}"
    return f"exit status {code}"


@contextlib.contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise SystemExit as Ctrl-C raises KeyboardInterrupt, so that what was started stops."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with contextlib.ExitStack() as undo:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                undo.callback(signal.signal, number, signal.signal(number, leave) or signal.SIG_DFL)
        yield
