"""A server may close an idle connection at the moment at which the client uses it again: reads are sent once more, writes are not."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from zelo_client import AsyncZelo, Problem, Unreachable, Zelo, requests


def _request(connection: socket.socket) -> str:
    """One whole request, "" where the client has closed the connection."""
    seen = b""
    while b"\r\n\r\n" not in seen:
        if not (more := connection.recv(65536)):
            return ""
        seen += more
    head, _, body = seen.partition(b"\r\n\r\n")
    size = re.search(rb"content-length: (\d+)", head.lower())
    while size is not None and len(body) < int(size[1]):
        body += connection.recv(65536)
    return head.decode()


class _ClosesIdle:
    """A server that answers one request on each connection, although it promises to keep it, and then closes it at the next."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                for place in range(2):
                    head = _request(connection)
                    if not head or place:
                        break
                    self.seen.append(head.split(" ")[0])
                    body = json.dumps([]).encode()
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                        % (len(body), body)
                    )

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[_ClosesIdle]:
    found = _ClosesIdle()
    yield found
    found.close()


READ: requests.Request[list[object]] = requests.Request("GET", "/api/v1/projects", list[object])
WRITE: requests.Request[list[object]] = requests.Request("POST", "/api/v1/projects", list[object], json={"name": "x"})


def test_a_read_on_a_closed_connection_is_sent_again(server: _ClosesIdle) -> None:
    with Zelo(server.url, "key") as zelo:
        assert zelo.send(READ) == zelo.send(READ) == []
    assert server.seen == ["GET", "GET"]


def test_a_write_on_a_closed_connection_is_not_sent_again(server: _ClosesIdle) -> None:
    with Zelo(server.url, "key") as zelo:
        zelo.send(WRITE)
        with pytest.raises(Unreachable):
            zelo.send(WRITE)
    assert server.seen == ["POST"]


def test_the_asynchronous_client_does_the_same(server: _ClosesIdle) -> None:
    async def read_twice() -> None:
        async with AsyncZelo(server.url, "key") as zelo:
            assert await zelo.send(READ) == await zelo.send(READ) == []

    asyncio.run(read_twice())
    assert server.seen == ["GET", "GET"]


def test_an_evaluation_waits_for_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {"detail": "an evaluation of project 'x' is waiting or running already; wait for its end, then order again"}
    answers = [httpx.Response(409, json=busy), httpx.Response(409, json=busy), httpx.Response(200, json=[])]
    monkeypatch.setattr("zelo_client.synchronous.time.sleep", lambda _: None)
    with Zelo("http://zelo.test", "key") as zelo:
        zelo._client = httpx.Client(
            transport=httpx.MockTransport(lambda _: answers.pop(0)), base_url="http://zelo.test"
        )
        assert zelo._in_turn(WRITE) == [] and answers == []
        answers.append(httpx.Response(409, json={"detail": "the snapshot is gone"}))
        with pytest.raises(Problem, match="gone"):
            zelo._in_turn(WRITE)
