"""The embedded servers, with the real binaries: they start, refuse a second instance, end with their supervisor, recover."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dj_database_url
import psycopg
import pytest
import redis
from kombu import Connection

from zelo_site.processes.children import RunAs, start_as
from zelo_site.processes.services import (
    AlreadyRunning,
    BinaryNotFound,
    FolderUnusable,
    ServiceFailed,
    ServiceSupervisor,
    broker_problem,
    home_folder,
    service_urls,
    socket_folder,
)

ROOT = Path(__file__).resolve().parents[3]
AS_ROOT = os.geteuid() == 0
EMBEDDED = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

# A supervisor in a process of its own; its first line says what runs.
SUPERVISE = """
import json, os, signal, sys
from pathlib import Path
from zelo_site.processes.services import ServiceSupervisor
from zelo_site.processes.supervisor import exits_on_sigterm
with exits_on_sigterm(), ServiceSupervisor(Path(sys.argv[1]), environ=dict(PATH=os.environ["PATH"])) as supervisor:
    print(json.dumps(supervisor.process_ids()), flush=True)
    signal.pause()
"""


def supervise(home: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A supervisor that is ready, and the process ids of its servers."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(home)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        process.wait(10)
        pytest.fail(f"the supervisor did not start: {process.stderr.read()}")
    return process, list(json.loads(line).values())


def until(condition: Callable[[], bool], *, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceSupervisor]:
    with ServiceSupervisor(tmp_path_factory.mktemp("shared") / "home", environ=EMBEDDED) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which nothing runs, with a cluster as soon as one test has started it; each test leaves it startable."""
    return tmp_path_factory.mktemp("stopped") / "home"


# --- addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "lacks"),
    [
        ("redis://cache.example:6379/1", "TLS and a password"),
        ("redis://:secret@cache.example:6379/1", "without TLS"),
        ("rediss://cache.example:6379/1", "without a password"),
        ("rediss://:secret@10.0.0.7:6379/1", ""),
        ("redis://127.0.0.1:6379/1", ""),
        ("redis+socket:///run/valkey.sock", ""),
    ],
)
def test_a_broker_on_another_host_needs_a_password_and_tls(url: str, lacks: str) -> None:
    problem = broker_problem(url, plain=False)
    assert bool(problem) == bool(lacks)
    assert problem is None or (lacks in problem[0] and "secret" not in str(problem))
    assert broker_problem(url, plain=True) is None


def test_addresses_are_told_without_touching_the_disk(tmp_path: Path) -> None:
    services = service_urls(tmp_path / "absent", {})
    assert services.embedded_database and services.embedded_broker
    assert not (tmp_path / "absent").exists()


def test_named_servers_are_used_as_they_are(tmp_path: Path) -> None:
    named = {"DATABASE_URL": "postgres://u:p@db.example/z", "BROKER_URL": "redis://cache.example:6379/1"}
    services = service_urls(tmp_path, named)
    assert (services.database_url, services.broker_url) == (named["DATABASE_URL"], named["BROKER_URL"])
    assert services.redis_url == named["BROKER_URL"]
    assert not services.embedded_database and not services.embedded_broker


def test_socket_of_a_named_broker_reads_the_same_for_redis_py(tmp_path: Path) -> None:
    services = service_urls(tmp_path, {"BROKER_URL": "redis+socket:///run/valkey.sock?virtual_host=3"})
    assert services.redis_url == "unix:///run/valkey.sock?db=3"


@pytest.mark.parametrize("name", ["plain", "With Blank", "a,b@c:d%41#?é"])
def test_any_folder_name_survives_the_addresses(name: str) -> None:
    home = Path("/srv") / name
    services = service_urls(home, {})
    assert dj_database_url.parse(services.database_url)["HOST"] == str(home / "sockets")
    client = redis.Redis.from_url(services.redis_url)
    assert client.connection_pool.connection_kwargs["path"] == str(home / "sockets" / "valkey.sock")


def test_deep_home_gets_short_sockets_of_its_own() -> None:
    deep, other = Path("/srv") / ("d" * 120), Path("/srv") / ("e" * 120)
    assert len(str(socket_folder(deep))) < 60
    assert socket_folder(deep) != socket_folder(other)
    assert socket_folder(Path("/srv/short")) == Path("/srv/short/sockets")


def test_home_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_HOME", "/srv/named")
    assert home_folder() == Path("/srv/named")
    monkeypatch.delenv("ZELO_HOME")
    assert home_folder() == ROOT / ".zelo"


# --- a running pair of servers -----------------------------------------------------------


def test_database_answers_at_its_address(running: ServiceSupervisor) -> None:
    with psycopg.connect(running.services.database_url) as connection:
        row = connection.execute(
            "SELECT current_database(), current_setting('server_encoding'), current_setting('synchronous_commit'),"
            " current_setting('listen_addresses'), 'a' < 'B', upper('é')"
        ).fetchone()
    assert row == ("zelo", "UTF8", "on", "", False, "É")


def test_broker_answers_redis_py_and_celery(running: ServiceSupervisor) -> None:
    with redis.Redis.from_url(running.services.redis_url) as client:
        assert client.ping()
        assert client.config_get("port") == {"port": "0"} or client.config_get("port") == {b"port": b"0"}
    with Connection(running.services.broker_url) as connection:
        connection.default_channel.client.set("seen", "1")
    with redis.Redis.from_url(running.services.redis_url) as client:
        assert client.get("seen") == b"1"


def test_sockets_are_closed_to_others(running: ServiceSupervisor) -> None:
    assert socket_folder(running.services.home).stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root drops privileges")
def test_root_runs_postgres_as_somebody_else_even_below_a_closed_folder(running: ServiceSupervisor) -> None:
    closed = [folder for folder in running.services.home.parents if folder.stat().st_mode & 0o001 == 0]
    assert closed, "this test wants a home that other users cannot reach"
    assert owner(running.process_ids()["PostgreSQL"]) != 0


def test_second_instance_is_refused_and_told_who_is_first(running: ServiceSupervisor) -> None:
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as refused:
        ServiceSupervisor(running.services.home, environ=EMBEDDED).start()
    assert refused.value.pid == os.getpid()
    assert redis.Redis.from_url(running.services.redis_url).ping()


@pytest.mark.parametrize("name", ["PostgreSQL", "Valkey"])
def test_server_that_was_killed_is_revived_with_its_data(running: ServiceSupervisor, name: str) -> None:
    with psycopg.connect(running.services.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS number")
    os.kill(running.process_ids()[name], signal.SIGKILL)
    lines: list[str] = []

    def answers() -> bool:
        lines.extend(running.revive())
        try:
            with psycopg.connect(running.services.database_url) as again:
                kept = again.execute("SELECT number FROM kept").fetchone() == (7,)
            return bool(lines) and kept and bool(redis.Redis.from_url(running.services.redis_url).ping())
        except (psycopg.OperationalError, redis.RedisError):
            return False

    assert until(answers)
    assert f"{name} exited" in lines[0]


# --- ends and recoveries -----------------------------------------------------------------


def test_killed_supervisor_leaves_no_process_and_the_next_start_has_the_data(stopped: Path) -> None:
    supervisor, servers = supervise(stopped)
    with psycopg.connect(service_urls(stopped, {}).database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
        supervisor.kill()
        supervisor.wait()
        assert until(lambda: not any(alive(pid) for pid in servers))
    with (
        ServiceSupervisor(stopped, environ=EMBEDDED) as again,
        psycopg.connect(again.services.database_url) as connection,
    ):
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_cleanly(stopped: Path, number: signal.Signals) -> None:
    supervisor, servers = supervise(stopped)
    supervisor.send_signal(number)
    supervisor.wait(30)
    assert not any(alive(pid) for pid in servers)
    assert "database system is shut down" in (stopped / "logs/postgres.log").read_text()
    assert not (stopped / "postgres/postmaster.pid").exists()


def test_what_a_crash_leaves_does_not_stop_the_next_start(stopped: Path) -> None:
    with ServiceSupervisor(stopped, environ=EMBEDDED):
        pass
    # The machine went down; after it, the old process number belongs to a stranger of the same user.
    stranger = subprocess.Popen(["sleep", "600"], cwd="/", user=(stopped / "postgres").stat().st_uid)
    (stopped / "postgres/postmaster.pid").write_text(f"{stranger.pid}\n{stopped / 'postgres'}\n1\n5432\n\n\n")
    (stopped / "sockets/.s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n")
    (stopped / "sockets/valkey.sock").touch()
    try:
        with ServiceSupervisor(stopped, environ=EMBEDDED) as again:
            assert psycopg.connect(again.services.database_url).execute("SELECT 1").fetchone() == (1,)
    finally:
        stranger.kill()
        stranger.wait()


def test_interrupted_initialisation_starts_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "postgres.new/base").mkdir(parents=True)
    (home / "postgres.new/PG_VERSION").write_text("1")
    with ServiceSupervisor(home, environ=EMBEDDED) as supervisor:
        assert psycopg.connect(supervisor.services.database_url).execute("SELECT 1").fetchone() == (1,)
    assert not (home / "postgres.new").exists()


def test_start_during_a_predecessors_end_waits_for_it(stopped: Path) -> None:
    supervisor, servers = supervise(stopped)
    os.kill(servers[0], signal.SIGSTOP)  # a postmaster that is slow to end
    supervisor.kill()
    supervisor.wait()
    resume = subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {servers[0]}"])
    with ServiceSupervisor(stopped, environ=EMBEDDED) as again:
        assert not alive(servers[0])
        assert psycopg.connect(again.services.database_url).execute("SELECT 1").fetchone() == (1,)
    resume.wait()


@pytest.mark.skipif(not AS_ROOT, reason="already an ordinary user: the other tests show it")
def test_ordinary_user_runs_it_too(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    home = Path("/tmp") / f"zelo-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)

    def supervise_as_nobody(log: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
        # `search`, because Python itself may lie in root's own folder.
        user = RunAs("nobody", nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid,), search=True)
        command = [sys.executable, "-c", SUPERVISE, str(home)]
        environ = {**EMBEDDED, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        process = start_as(command, log=log, environ=environ, folder=home, death_signal=signal.SIGKILL, user=user)
        assert until(lambda: log.read_text().endswith("\n"), seconds=30), "the supervisor said nothing"
        assert process.poll() is None, log.read_text()
        return process, list(json.loads(log.read_text()).values())

    try:
        supervisor, servers = supervise_as_nobody(tmp_path / "first.log")
        assert {owner(pid) for pid in [supervisor.pid, *servers]} == {nobody.pw_uid}
        supervisor.kill()
        supervisor.wait()
        assert until(lambda: not any(alive(pid) for pid in servers))
        supervisor, servers = supervise_as_nobody(tmp_path / "second.log")
        supervisor.terminate()
        supervisor.wait(30)
        assert not any(alive(pid) for pid in servers)
    finally:
        shutil.rmtree(home)


def test_deep_home_works_and_its_sockets_are_private(tmp_path: Path) -> None:
    home = tmp_path / ("d" * 100) / "home"
    with ServiceSupervisor(home, environ=EMBEDDED) as supervisor:
        assert psycopg.connect(supervisor.services.database_url).execute("SELECT 1").fetchone() == (1,)
        assert socket_folder(home).stat().st_mode & 0o777 == 0o700
    assert not socket_folder(home).exists()


# --- refusals ----------------------------------------------------------------------------


def test_socket_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("d" * 100) / "home"
    (tmp_path / "trap").mkdir()
    socket_folder(home).symlink_to(tmp_path / "trap")
    try:
        with pytest.raises(FolderUnusable, match="remove it"):
            ServiceSupervisor(home, environ=EMBEDDED).start()
    finally:
        socket_folder(home).unlink()


@pytest.mark.parametrize("name", ["ZELO_PG_BIN", "ZELO_VALKEY_BIN"])
def test_variable_that_points_nowhere_is_named(tmp_path: Path, name: str) -> None:
    supervisor = ServiceSupervisor(tmp_path / "home", environ={**EMBEDDED, name: str(tmp_path / "nowhere")})
    with pytest.raises(BinaryNotFound, match=f"{name}=.*nowhere"):
        supervisor.start()
    with ServiceSupervisor(
        tmp_path / "home", environ={"DATABASE_URL": "postgres://x", "BROKER_URL": "redis://x"}
    ) as other:
        assert other.process_ids() == {}, "the refused one let go of the home, and real servers need none of ours"


def test_server_that_ends_at_once_shows_its_log(tmp_path: Path, stopped: Path) -> None:
    fake = tmp_path / "valkey-server"
    fake.write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 9\n")
    fake.chmod(0o755)
    environ = {**EMBEDDED, "ZELO_VALKEY_BIN": str(fake)}
    supervisor = ServiceSupervisor(stopped, environ=environ)
    with pytest.raises(ServiceFailed, match=r"Valkey exited with status 9 .*(\n.*)*out of luck"):
        supervisor.start()
    assert supervisor.process_ids() == {}
    assert not (stopped / "postgres/postmaster.pid").exists()


def test_cluster_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home/postgres").mkdir(parents=True)
    (tmp_path / "home/postgres/PG_VERSION").write_text("11\n")
    with pytest.raises(FolderUnusable, match="made by PostgreSQL 11"):
        ServiceSupervisor(tmp_path / "home", environ=EMBEDDED).start()
    assert [path.name for path in (tmp_path / "home/postgres").iterdir()] == ["PG_VERSION"]


def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(FolderUnusable, match="choose another ZELO_HOME"):
        ServiceSupervisor(tmp_path / "home", environ=EMBEDDED).start()
