"""The addresses of database and broker, and the supervisor of the embedded servers. No Django.

`settings.py` calls `service_urls`, which does no I/O; `manage.py up`, `demo` and the tests run a
`ServiceSupervisor`. `zelo_site.processes.embedded` defines the servers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

from zelo_site.processes.children import log_tail
from zelo_site.processes.embedded import (
    DATABASE,
    POSTGRES_SOCKET,
    VALKEY_SOCKET,
    BinaryNotFound,
    EmbeddedPostgres,
    EmbeddedService,
    EmbeddedValkey,
    FolderUnusable,
    ServiceFailed,
)
from zelo_site.processes.listening import is_loopback

__all__ = [
    "AlreadyRunning",
    "BinaryNotFound",
    "FolderUnusable",
    "ServiceFailed",
    "ServiceSupervisor",
    "Services",
    "broker_problem",
    "home_folder",
    "make_home",
    "service_urls",
    "socket_folder",
]

# The kernel allows 107 bytes on Linux and 103 elsewhere.
LONGEST_SOCKET_PATH = 103
RESTART_DELAYS_S = (0.5, 10.0)
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class AlreadyRunning(RuntimeError):
    """Another instance uses this home; `pid` is its process id, None if unreadable."""

    def __init__(self, home: Path, pid: int | None) -> None:
        self.home, self.pid = home, pid
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{home} is in use by {holder}; stop that instance, or set another ZELO_HOME")


@dataclass(frozen=True)
class Services:
    """Addresses of database and broker; `embedded_*` marks those that zelo runs itself."""

    database_url: str
    broker_url: str
    home: Path
    embedded_database: bool
    embedded_broker: bool

    @property
    def redis_url(self) -> str:
        """Return the broker's address in redis-py's format."""
        parts = urlsplit(self.broker_url)
        if parts.scheme != "redis+socket":
            return self.broker_url
        return f"unix://{parts.path}" + (f"?{parts.query.replace('virtual_host=', 'db=')}" if parts.query else "")


def home_folder() -> Path:
    """Return ZELO_HOME, or `.zelo` beside manage.py, as an absolute path."""
    named = os.environ.get("ZELO_HOME")
    return Path(named).expanduser().absolute() if named else Path(__file__).absolute().parents[2] / ".zelo"


def socket_folder(home: Path) -> Path:
    """Return the folder of the embedded servers' sockets: in `home`, or a short folder in /tmp if that path is too long."""
    folder = home / "sockets"
    longest = max(len(POSTGRES_SOCKET), len(VALKEY_SOCKET))
    if len(os.fsencode(folder)) + 1 + longest <= LONGEST_SOCKET_PATH:
        return folder
    # Computed instead of stored, so that every process finds it without disk access.
    return Path("/tmp") / f"zelo-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"


def service_urls(home: Path | None = None, environ: Mapping[str, str] = os.environ) -> Services:
    """Return the addresses to use, without checking disk or network."""
    home = home.absolute() if home else home_folder()
    sockets = str(socket_folder(home))
    database_url, broker_url = environ.get("DATABASE_URL", ""), environ.get("BROKER_URL", "")
    return Services(
        database_url=database_url or f"postgres://{DATABASE}@{quote(sockets, safe='')}/{DATABASE}",
        broker_url=broker_url or f"redis+socket://{quote(sockets)}/{VALKEY_SOCKET}",
        home=home,
        embedded_database=not database_url,
        embedded_broker=not broker_url,
    )


def make_home(home: Path) -> None:
    """Create `home` and its folder of temporary files, private; a folder that cannot be written is reported later."""
    # Under root, PostgreSQL runs as another user, who must be able to traverse the folder.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    with contextlib.suppress(OSError):
        if not home.exists():
            home.mkdir(parents=True)
            home.chmod(mode)
        (home / "uploads").mkdir(exist_ok=True)


def broker_problem(url: str, *, plain: bool) -> tuple[str, str] | None:
    """Return why a broker on another host is not safe, and the remedy; None if it is. The address is not repeated."""
    parts = urlsplit(url)
    if plain or parts.scheme == "redis+socket" or is_loopback(parts.hostname or "localhost"):
        return None
    lacks = [] if parts.scheme == "rediss" else ["TLS"]
    lacks += [] if parts.password else ["a password"]
    if not lacks:
        return None
    return (
        f"BROKER_URL names another host without {' and '.join(lacks)}",
        "set BROKER_URL to rediss://:PASSWORD@HOST:PORT/NUMBER, or set ZELO_PLAIN_BROKER=1 if only zelo's hosts share its network",
    )


class _HomeLock:
    """An flock on `home/lock`, which contains the owner's pid. The kernel releases it when the owner dies."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._descriptor: int | None = None

    def acquire(self) -> None:
        path = self.home / "lock"
        try:
            make_home(self.home)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FolderUnusable(
                f"cannot write {path}: {error.strerror}; make {self.home} writable, or choose another ZELO_HOME"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 32).strip()
            os.close(descriptor)
            raise AlreadyRunning(self.home, int(text) if text.isdigit() else None) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


@dataclass
class _Running:
    service: EmbeddedService
    process: subprocess.Popen[bytes]
    launched_at: float
    delay_s: float


class ServiceSupervisor:
    """Starts the embedded servers, waits until they answer, and stops them: `with ServiceSupervisor() as supervisor: ...`.

    `revive` restarts a server that has ended, with a delay since its last start: the first of `restart_delays_s`,
    doubled up to the second while it keeps ending.

    One instance per home. Use it from the main thread, because the servers end with the thread that started them.
    If this process is killed, the servers stop, and the next start recovers.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        start_timeout_s: float = 120.0,
        stop_timeout_s: float = 30.0,
        restart_delays_s: tuple[float, float] = RESTART_DELAYS_S,
    ) -> None:
        self.services = service_urls(home, environ)
        self._environ = environ
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._restart_delays_s = restart_delays_s
        self._lock = _HomeLock(self.services.home)
        self._running: list[_Running] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Services:
        """Start and wait. On AlreadyRunning, BinaryNotFound, FolderUnusable or ServiceFailed, stops everything again."""
        self._lock.acquire()
        try:
            embedded = self._embedded()
            for service in embedded:
                service.prepare()
            for service in embedded:
                self._running.append(_Running(service, service.launch(), time.monotonic(), self._restart_delays_s[0]))
            for running in self._running:
                self._wait_until_ready(running)
        except BaseException:
            self.stop()
            raise
        return self.services

    def stop(self) -> None:
        """Stop all servers and release the home. Blocks termination signals until done; may be called twice."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            while self._running:
                self._stop_one(self._running.pop())
            if self._lock.is_held:
                self._leave_sockets()
            self._lock.release()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def revive(self) -> list[str]:
        """Restart ended servers without waiting for them; call it regularly. Returns lines to report."""
        lines = []
        for running in self._running:
            code, lived_s = running.process.poll(), time.monotonic() - running.launched_at
            if code is None or lived_s < running.delay_s:
                continue
            shortest, longest = self._restart_delays_s
            running.delay_s = min(2 * running.delay_s, longest) if lived_s < longest else shortest
            running.process, running.launched_at = running.service.launch(), time.monotonic()
            lines.append(
                f"{running.service.name} exited with status {code} and was restarted; see {running.service.log}"
            )
        return lines

    def process_ids(self) -> dict[str, int]:
        """Return the process id of each embedded server by name."""
        return {running.service.name: running.process.pid for running in self._running}

    def _embedded(self) -> list[EmbeddedService]:
        home, sockets = self.services.home, socket_folder(self.services.home)
        services: list[EmbeddedService] = []
        if self.services.embedded_database:
            services.append(EmbeddedPostgres(home=home, sockets=sockets, environ=self._environ))
        if self.services.embedded_broker:
            services.append(EmbeddedValkey(home=home, sockets=sockets, environ=self._environ))
        return services

    def _wait_until_ready(self, running: _Running) -> None:
        service, deadline = running.service, time.monotonic() + self._start_timeout_s
        while not service.is_ready():
            code = running.process.poll()
            if code is not None:
                reason = f"exited with status {code} during startup"
            elif time.monotonic() > deadline:
                reason = f"did not answer within {self._start_timeout_s:.0f} s"
            else:
                time.sleep(0.05)
                continue
            raise ServiceFailed(f"{service.name} {reason}; the tail of {service.log}:\n{log_tail(service.log)}")

    def _leave_sockets(self) -> None:
        """Remove the socket folder if it is in /tmp, but not in the home."""
        folder = socket_folder(self.services.home)
        if not folder.is_relative_to(self.services.home):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _stop_one(self, running: _Running) -> None:
        patience_s = self._stop_timeout_s
        for number in running.service.stop_signals:
            running.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(patience_s)
                return
            patience_s = 5.0
