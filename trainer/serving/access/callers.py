"""The caller of a request to the serving process, and the request's time limit. Imports no Django."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import RerankRefused

# The web server names the artefact and the key of a request in these headers; a client may name a deadline.
ARTEFACT_HEADER, KEY_HEADER, DEADLINE_HEADER = "x-zelo-reranker", "x-zelo-key", "x-request-timeout"
MOST_DEADLINE_S = 110.0


class Gate(Protocol):
    """Admits requests with the keys of users, see `trainer.serving.access.access_cache`; every method raises RerankRefused."""

    def key_of(self, authorization: str) -> Any: ...

    def admit(self, key: Any, path: str, name: str) -> Admission: ...

    def models_of(self, key: Any) -> list[dict[str, Any]]: ...


class Admission(Protocol):
    """An admitted request: its artefact, and the id of the key."""

    @property
    def artefact(self) -> Artefact: ...

    @property
    def key_id(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: the web server or a local user (`headers`), or a user with a key."""

    headers: Mapping[str, str]
    path: str
    user_key: Any
    name: str
    ends_at: float
    allowed_s: float = MOST_DEADLINE_S

    def check_time(self) -> None:
        """Raise RerankRefused if the time that the request allows is over."""
        if time.monotonic() > self.ends_at:
            raise RerankRefused(
                504,
                f"the {self.allowed_s:g} s that the request allows were over before it was computed; allow more or send fewer "
                "documents",
            )


def deadline_s(headers: Mapping[str, str]) -> float:
    """Seconds that the request allows for its answer. Raises RerankRefused."""
    text = headers.get(DEADLINE_HEADER)
    if not text:
        return MOST_DEADLINE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise RerankRefused(422, f"{DEADLINE_HEADER} is {text[:40]!r}; expected seconds, such as 2.5")
    return min(seconds, MOST_DEADLINE_S)
