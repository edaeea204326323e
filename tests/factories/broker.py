"""The hints that wait in the broker of the test process, and an address at which no broker listens."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any, overload

from workers.broker import client
from workers.broker.routing import QUEUES


class WaitingHints(Sequence[tuple[str, int]]):
    """(task, subject) of each message in the broker's queues, oldest first; equal to a list of them.

    Each test process has a virtual host of its own, in which no worker listens.
    """

    def clear(self) -> None:
        """Forget the messages, and the keys that merge hints."""
        client.valkey().flushdb()

    def queues(self) -> list[tuple[str, str]]:
        """Return (task, queue) of each message, oldest first."""
        return [(task, queue) for _, task, _, queue in _messages()]

    def headers(self) -> list[dict[str, Any]]:
        """Return the headers of each message, by queue and then oldest first."""
        raw = [each for queue in QUEUES for each in reversed(client.valkey().lrange(queue, 0, -1))]
        return [json.loads(each)["headers"] for each in raw]

    def _read(self) -> list[tuple[str, int]]:
        return [(task, subject) for _, task, subject, _ in _messages()]

    @overload
    def __getitem__(self, place: int) -> tuple[str, int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[str, int]]: ...
    def __getitem__(self, place: Any) -> Any:
        return self._read()[place]

    def __len__(self) -> int:
        return len(self._read())

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._read())

    def __eq__(self, other: object) -> bool:
        return self._read() == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"WaitingHints({self._read()})"


def _messages() -> list[tuple[str, str, int, str]]:
    """Return (expiry, task, subject, queue) in the order of the expiry, which is that of sending."""
    found = []
    for queue in QUEUES:
        for raw in client.valkey().lrange(queue, 0, -1):
            message = json.loads(raw)
            headers = message["headers"]
            arguments = json.loads(base64.b64decode(message["body"]))[0]
            assert headers["expires"], "each hint expires"
            found.append((headers["expires"], headers["task"].rpartition(".")[2], arguments[0], queue))
    return sorted(found)
