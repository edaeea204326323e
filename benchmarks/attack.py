"""Claim: slow and large requests of strangers do not stop the site: an honest client loses no request and waits 3 times as long at most.

Starts database, broker and web server of `manage.py up` in a home of its own, and lets one signed-in client read pages and
operations, alone and during each of four attacks over loopback: half-open connections, large bodies without a session, slow readers, and bursts of bad
keys and passwords. Every attack is bounded: connections, bytes and seconds are constants below, and nothing leaves this
host. The workers of `up` are left out: for their first minute they would take turns with the client on the cores. The attacker is a
process of its own, so that it does not hold the lock of the client's interpreter. Prints a table and, as the last line, one JSON object: `honest_failures`, `honest_p95_ratio` (the 95th percentile
under the worst attack over that alone just before it), `disk_mb` (the largest growth of the home folder meanwhile).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages
HOST = "127.0.0.1"
PATIENCE_S = 120.0
HONEST_PAUSE_S = 0.03
HALF_OPEN, READERS, BURST, UPLOADS = 100, 100, 8, 4
UPLOAD_BYTES = 200 * 1024 * 1024
BAD_KEY_PAUSE_S = 0.1
WARM_UP_S = 1.5
UNDER_WAY_S = 0.5
LIMITS = {"honest_failures": 0, "honest_p95_ratio": 3.0, "disk_mb": 20.0}


@dataclass
class Honest:
    """What the honest client saw: seconds of each request, and what failed."""

    waited: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p95_ms(self) -> float:
        """The 95th percentile in milliseconds; infinite without an answer."""
        ordered = sorted(self.waited)
        return 1000 * ordered[int(0.95 * (len(ordered) - 1))] if ordered else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter phases")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of each phase (default 20, quick 2)")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        run_attack(arguments.attack, arguments.port, arguments.home)
        return
    if arguments.serve:
        run_web(arguments.serve)
        return
    seconds = arguments.seconds or (2.0 if arguments.quick else 20.0)
    with running_server() as (port, home):
        cookie = signed_in()
        honest(port, cookie, WARM_UP_S)
        before = folder_bytes(home)
        rows, largest = [], before
        for name in ATTACKS:
            alone = honest(port, cookie, seconds)
            attacked, seen = under(name, port, cookie, seconds, home)
            rows.append((name, alone, attacked))
            largest = max(largest, seen)
        largest = max(largest, folder_bytes(home))
    report(rows, (largest - before) / 1e6)


def report(rows: list[tuple[str, Honest, Honest]], disk_mb: float) -> None:
    """Print the table and the result; exit with 1 if a limit is missed."""
    print(f"{'attack':24} {'requests':>9} {'failures':>9} {'p95 alone, ms':>14} {'p95, ms':>9} {'ratio':>6}")
    ratios, failures = [], 0
    for name, alone, attacked in rows:
        ratios.append(attacked.p95_ms / alone.p95_ms)
        failures += len(alone.failures) + len(attacked.failures)
        figures = f"{alone.p95_ms:14.1f} {attacked.p95_ms:9.1f} {ratios[-1]:6.2f}"
        print(f"{name:24} {len(attacked.waited):9} {len(attacked.failures):9} {figures}", *attacked.failures[:2])
    result = {"honest_failures": failures, "honest_p95_ratio": round(max(ratios), 2), "disk_mb": round(disk_mb, 1)}
    print(json.dumps(result))
    if missed := [name for name, most in LIMITS.items() if result[name] > most]:
        raise SystemExit(f"missed: {', '.join(f'{name} is {result[name]}, at most {LIMITS[name]}' for name in missed)}")


# --- the server --------------------------------------------------------------------------


@contextlib.contextmanager
def running_server() -> Iterator[tuple[int, Path]]:
    """`manage.py up` in a new home until the block ends; this process reads the same database."""
    home = Path(tempfile.mkdtemp(prefix="zelo-attack-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR", DJANGO_SETTINGS_MODULE="zelo_site.settings")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(port)], cwd=ROOT)
    try:
        wait_for(port, process)
        from zelo_site.environment import prepare_environment

        prepare_environment()
        import django

        django.setup()
        yield port, home
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
        process.kill()
        shutil.rmtree(home, ignore_errors=True)


def run_web(port: int) -> None:
    """Run database, broker and web server until SIGINT; in a process of its own."""
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from django.conf import settings

    from zelo_site.processes.stack import database, web_process
    from zelo_site.processes.supervisor import ProcessSupervisor

    with database():
        settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
        ProcessSupervisor([web_process(HOST, port)], home=settings.ZELO_HOME).run()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
            connection.request("GET", "/sign-in/")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(f"no server on port {port} within {PATIENCE_S:.0f} s (exit code {process.poll()})")


def signed_in() -> str:
    """Return the Cookie header of a new superuser's session."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore

    user = User.objects.create_superuser("honest", password=secrets.token_hex(16))
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    return f"sessionid={session.session_key}"


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below `folder`."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


# --- the honest client -------------------------------------------------------------------


def honest(port: int, cookie: str, seconds: float) -> Honest:
    """One client reads a page or an operation on a new connection each time, for `seconds`."""
    seen = Honest()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for address in ("/", "/api/v1/projects", "/profile/"):
            began = time.monotonic()
            connection = http.client.HTTPConnection(HOST, port, timeout=30)
            try:
                with contextlib.closing(connection):
                    connection.request("GET", address, headers={"Cookie": cookie})
                    response = connection.getresponse()
                    response.read()
                    if response.status != 200:
                        seen.failures.append(f"{address}: {response.status}")
            except (OSError, http.client.HTTPException) as error:
                seen.failures.append(f"{address}: {error!r}")
            seen.waited.append(time.monotonic() - began)
            time.sleep(HONEST_PAUSE_S)
    return seen


def under(attack: str, port: int, cookie: str, seconds: float, home: Path) -> tuple[Honest, int]:
    """The honest client's view of an attack, and the largest size of the home folder meanwhile."""
    command = [sys.executable, __file__, "--attack", attack, "--port", str(port), "--home", str(home)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert attacker.stdout is not None
    attacker.stdout.readline()  # the attack is under way
    try:
        seen = honest(port, cookie, seconds)
    finally:
        written, _ = attacker.communicate()  # closes its input, which ends it
    return seen, int(written)


def run_attack(name: str, port: int, home: Path) -> None:
    """Attack until standard input is closed; print a line once it is under way, and the largest size of `home` at the end."""

    async def attack() -> int:
        task = asyncio.ensure_future(ATTACKS[name](port))
        await asyncio.sleep(UNDER_WAY_S)
        print("under way", flush=True)
        over = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        largest = folder_bytes(home)
        while not over.done():
            await asyncio.wait([over], timeout=1.0)
            largest = max(largest, folder_bytes(home))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return largest

    print(asyncio.run(attack()))


# --- the attacks -------------------------------------------------------------------------


async def half_open(port: int) -> None:
    """Keep HALF_OPEN connections that send a header line every second and never end the head."""

    async def one(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(b"POST /sign-in/ HTTP/1.1\r\nHost: localhost\r\n" if number % 2 else b"")
                while not reader.at_eof():
                    await asyncio.sleep(1.0)
                    writer.write(b"X-More: a\r\n" if number % 2 else b"")
                    await writer.drain()
                writer.close()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one(number) for number in range(HALF_OPEN)))


async def large_bodies(port: int) -> None:
    """Send multipart bodies of UPLOAD_BYTES without a session, as fast as the server takes them, one after another."""
    head = (
        f"POST /new/preview/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD_BYTES}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    block = b"x" * 65536

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(head.encode())
                for _ in range(UPLOAD_BYTES // len(block)):
                    if reader.at_eof():
                        break
                    writer.write(block)
                    await writer.drain()
                writer.close()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(UPLOADS)))


async def slow_readers(port: int) -> None:
    """Ask for the largest static file on READERS connections and take a few bytes a second."""
    address = "/static/django_htmx/htmx-2.js"

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError), socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, (HOST, port))
                await loop.sock_sendall(client, f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                while await loop.sock_recv(client, 64):
                    await asyncio.sleep(1.0)
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(READERS)))


async def bad_keys(port: int) -> None:
    """BURST clients try random keys, each with a short pause."""

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, port)
                key = secrets.token_urlsafe(24)
                writer.write(
                    f"GET /api/v1/projects HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer zelo_{key}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                await reader.read()
                writer.close()
            await asyncio.sleep(BAD_KEY_PAUSE_S)

    await asyncio.gather(*(one() for _ in range(BURST)))


ATTACKS: dict[str, Callable[[int], Awaitable[None]]] = {
    "half-open connections": half_open,
    "large anonymous bodies": large_bodies,
    "slow readers": slow_readers,
    "bursts of bad keys": bad_keys,
}


if __name__ == "__main__":
    main()
