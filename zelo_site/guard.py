"""Runs between a supervisor and its child, so that no process outlives a killed supervisor.

A separate script (`python -I -S guard.py JSON COMMAND...`, started by `zelo_site.children`) with only the standard
library, because it must act after the fork and outside the supervisor. Linux only: it uses prctl and /proc.

`become` drops privileges, requests a signal on the parent's death and executes the command.
`guard` runs the command as its child, adopts orphaned descendants, and stops the whole tree when the command
ends, when it gets SIGTERM, or when its own parent dies.
"""

# Paths are strings because importing pathlib and contextlib would double each child's start time.
# ruff: noqa: PTH123, PTH208, SIM105

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
# Either capability lets a process traverse folders closed to its user; the first one is read-only.
CAP_DAC_READ_SEARCH = 2
CAP_DAC_OVERRIDE = 1

CANNOT_START = 126
KILLED = 128 + signal.SIGKILL
WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


def main(arguments: list[str]) -> int:
    """Run the JSON instruction (see `zelo_site.children`) and command in `arguments`; return an exit status."""
    order, command = json.loads(arguments[0]), arguments[1:]
    if order["mode"] == "guard":
        return guard(command, parent=order["parent"], grace_s=order["grace_s"], orphan_grace_s=order["orphan_grace_s"])
    return become(command, parent=order["parent"], death_signal=order["death_signal"], user=order["user"])


def become(command: list[str], *, parent: int, death_signal: int, user: dict[str, Any] | None) -> int:
    """Execute `command` as `user`, with `death_signal` when `parent` dies. Returns only on failure."""
    try:
        if user is not None:
            drop_privileges(user["uid"], user["gid"], user["groups"], search=user["search"])
        if user is not None and user["folder"] is not None:
            os.chdir(user["folder"])
        # Last, because changing credentials clears it.
        die_with_parent(death_signal, parent)
        execute(command)
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr)
    return CANNOT_START


def drop_privileges(uid: int, gid: int, groups: list[int], *, search: bool) -> None:
    """Switch to the user permanently; with `search`, keep only the right to traverse closed folders."""
    if search:
        prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if search:
        _keep_one_capability(CAP_DAC_READ_SEARCH) or _keep_one_capability(CAP_DAC_OVERRIDE, required=True)


def _keep_one_capability(capability: int, *, required: bool = False) -> bool:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable, then the upper words
    if _libc().capset(header, data) < 0:
        if required:
            raise OSError(ctypes.get_errno(), "the kernel refused the right to search closed folders")
        return False
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)
    return True


def guard(command: list[str], *, parent: int, grace_s: float, orphan_grace_s: float) -> int:
    """Run `command`, leave no descendant, and return its exit status as a shell would.

    The guard forwards SIGTERM, and kills the tree after `grace_s` seconds (`orphan_grace_s` if the parent died) or on a
    second SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    die_with_parent(signal.SIGTERM, parent)
    child = start(command)
    try:
        return _wait(child, parent=parent, grace_s=grace_s, orphan_grace_s=orphan_grace_s)
    finally:
        end_descendants()


def start(command: list[str]) -> int:
    """Fork and execute; the kernel kills the child if this process is killed. Returns the child's process id."""
    guard_pid = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        die_with_parent(signal.SIGKILL, guard_pid)
        execute(command)
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(CANNOT_START)


def _wait(child: int, *, parent: int, grace_s: float, orphan_grace_s: float) -> int:
    deadline = float("inf")
    while (left := deadline - time.monotonic()) > 0:
        got = signal.sigtimedwait(WATCHED, min(60.0, left))
        status = _reap(child)
        if status is not None:
            return status
        orphaned = os.getppid() != parent
        if not orphaned and (got is None or got.si_signo != signal.SIGTERM):
            continue
        now = time.monotonic()
        if deadline == float("inf"):
            os.kill(child, signal.SIGTERM)
            deadline = now + grace_s
        elif not orphaned:
            break
        if orphaned:
            deadline = min(deadline, now + orphan_grace_s)
    return KILLED


def _reap(child: int) -> int | None:
    """Reap ended processes; return the exit status of `child` once it has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return CANNOT_START
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def end_descendants() -> None:
    """Kill all descendants; orphans become children of this process, so repeat until none is left."""
    while True:
        for pid in children_of(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # already ended
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children_of(parent: int) -> list[int]:
    """Return the process ids of the direct children."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found


def die_with_parent(number: int, parent: int) -> None:
    """Request signal `number` for when the parent (the forking thread) dies; exit if it has already died."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(CANNOT_START)


def execute(command: list[str]) -> None:
    """Execute the command with default signals (Python ignores SIGPIPE, and a guard blocks some)."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvp(command[0], command)


def prctl(option: int, *values: int) -> None:
    padded = [*values, 0, 0, 0, 0][:4]
    if _libc().prctl(option, *(ctypes.c_ulong(value) for value in padded)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
