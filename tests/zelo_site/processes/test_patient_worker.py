"""The web server's worker with slow clients: they cost sockets, never threads, and not for long."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.zelo_site.processes.waiting_site import LARGE

ROOT = Path(__file__).resolve().parents[3]
SITE = "tests.zelo_site.processes.waiting_site"
WORKER = "zelo_site.processes.patient_worker.PatientWorker"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a site with one process of two threads."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    command = [
        sys.executable, "-m", "gunicorn", f"{SITE}:application", "--bind", f"127.0.0.1:{number}", "--threads", "2",
        "--worker-class", WORKER, "--worker-connections", "60", "--no-sendfile", "--config", f"python:{SITE}",
        "--log-level", "warning", "--graceful-timeout", "2", "--keep-alive", "20",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        _wait_for(number)
        yield number
    finally:
        process.terminate()
        assert process.wait(10) == 0


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise AssertionError("the site does not listen")


def _greeted(port: int) -> float:
    """Ask for the greeting; return the seconds that it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"xxxxx"
    return time.monotonic() - began


def _open(port: int, sent: bytes, *, buffer: int = 0) -> socket.socket:
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(8)
    client.connect(("127.0.0.1", port))
    client.sendall(sent)
    return client


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:",
        b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\nabc",
        b"POST /count HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 6000\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "a body that is announced"],
)
def test_half_open_connections_take_no_thread_and_end(port: int, sent: bytes) -> None:
    slow = [_open(port, sent) for _ in range(30)]
    assert _greeted(port) < 1.0
    for client in slow:
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass  # the interim response, then the end
        client.close()


def test_a_client_cannot_move_its_request_to_another_address(port: int) -> None:
    with contextlib.closing(_open(port, b"GET /refuse HTTP/1.1\r\nHost: a\r\nSCRIPT_NAME: /refuse\r\n\r\n")) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def test_more_connections_than_there_is_room_for_close_the_oldest(port: int) -> None:
    slow = [_open(port, b"GET / HTTP/1.1\r\n") for _ in range(90)]
    assert _greeted(port) < 1.0
    for client in slow:
        client.close()


def test_idle_connections_make_room_for_others(port: int) -> None:
    idle = []
    for _ in range(90):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("GET", "/")
        assert client.getresponse().read() == b"xxxxx"
        idle.append(client)
    assert _greeted(port) < 1.0
    idle[-1].request("GET", "/")  # the youngest is still open
    assert idle[-1].getresponse().read() == b"xxxxx"
    for client in idle:
        client.close()


def test_slow_readers_take_no_thread(port: int) -> None:
    slow = [_open(port, b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n", buffer=2048) for _ in range(12)]
    time.sleep(0.2)
    assert _greeted(port) < 1.0
    for client in slow:
        client.close()


def test_a_reader_that_takes_nothing_loses_its_connection(port: int) -> None:
    client = _open(port, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", buffer=2048)
    time.sleep(2.5)
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            received += len(data)
    assert received < LARGE
    client.close()


def test_a_large_body_that_stalls_ends(port: int) -> None:
    client = _open(port, b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 70_000)
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        assert b"200 OK" not in client.recv(4096)
    assert time.monotonic() - began < 4
    client.close()


def test_refused_body_is_not_read(port: int) -> None:
    client = _open(port, b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\n\r\n")
    began = time.monotonic()
    answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413") and b"\r\nConnection: close\r\n" in answer, (
        "the client is told not to send another"
    )
    assert time.monotonic() - began < 1
    client.close()


def test_a_small_refused_body_keeps_the_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        for path in ("/refuse", "/count", "/refuse"):
            connection.request("POST", path, body=b"x" * 6000)
            answer = connection.getresponse()
            assert answer.read() and answer.getheader("Connection") == "keep-alive"


def test_a_refused_client_that_goes_on_sending_has_to_wait(port: int) -> None:
    client = _open(port, b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n")
    client.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < 800_000_000:
            sent += client.send(b"x" * 65536)
    assert sent < 100_000_000, "the server stops reading after some megabytes"
    assert client.recv(65536).startswith(b"HTTP/1.1 413")
    client.close()


def test_a_head_without_end_is_refused(port: int) -> None:
    client = _open(port, b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 12_000)
    assert client.recv(4096).startswith(b"HTTP/1.1 431")
    client.close()


def test_bodies_of_all_sizes_arrive_whole_on_one_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        for size in (0, 1, 65_536, 65_537, 3_000_000, 10):
            connection.request("POST", "/count", body=b"x" * size)
            assert int(connection.getresponse().read()) == size
        connection.request("GET", "/large")
        assert len(connection.getresponse().read()) == LARGE


def test_pipelined_requests_are_all_answered(port: int) -> None:
    client = _open(
        port, b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" * 2 + b"GET / HTTP/1.0\r\n\r\n"
    )
    received = b""
    while data := client.recv(65536):
        received += data
    assert received.count(b"200 OK") == 3
    client.close()
