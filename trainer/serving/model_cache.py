"""Keeps rerankers in memory within a budget; loads them on first use and evicts the least recently used.

It never evicts a model that is in use. Two requests for a model that is not loaded share one load.
Imports no Django.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainer.publishing.manifests import SENTENCE_TRANSFORMERS, SEQUENCE_CLASSIFICATION
from trainer.serving.published import LoadedModel, load_published


class NoMemory(RuntimeError):
    """A model does not fit into the memory budget, alone or next to the models in use."""


class NotLoaded(LookupError):
    """A model is not in memory, or is still being loaded."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """Identifies a reranker: `checksum` (of its manifest) identifies the weights, `location` is their path.

    `name` is what the client calls it, which may be a deployment; `version` the reranker's own full name.
    """

    name: str
    location: str
    checksum: str = ""
    version: str = ""

    @property
    def key(self) -> str:
        return self.checksum or self.location


@dataclass
class _Warm:
    model: LoadedModel | None = None
    error: Exception | None = None
    users: int = 0
    used_at: float = 0.0
    bytes: int = 0
    ready: threading.Event = field(default_factory=threading.Event)


class WarmModels:
    """The model cache: `with models.using(artefact) as model`. `fetch` returns the local folder of an artefact; each load runs
    within `watch`, which counts it.
    """

    def __init__(
        self,
        *,
        budget_bytes: int,
        fetch: Callable[[Artefact], Path],
        load: Callable[[Path], LoadedModel] = load_published,
        watch: Callable[[Artefact], contextlib.AbstractContextManager[object]] = lambda _: contextlib.nullcontext(),
    ) -> None:
        self._budget = budget_bytes
        self._fetch = fetch
        self._load = load
        self._watch = watch
        self._lock = threading.Lock()
        self._warm: dict[str, _Warm] = {}

    @contextlib.contextmanager
    def using(self, artefact: Artefact, *, only_loaded: bool = False) -> Iterator[LoadedModel]:
        """The loaded model, not evicted while the block runs; `only_loaded`: returns at once, and loads nothing.

        Raises NoMemory and the errors of loading, or NotLoaded.
        """
        key = artefact.key
        with self._lock:
            warm = self._warm.get(key)
            mine = warm is None
            if only_loaded and (warm is None or not warm.ready.is_set()):
                raise NotLoaded(artefact.name)
            if warm is None:
                warm = self._warm[key] = _Warm()
            warm.users += 1
        try:
            if mine:
                self._load_into(warm, artefact)
            warm.ready.wait()
            if warm.error is not None:
                raise warm.error
            assert warm.model is not None
            yield warm.model
        finally:
            with self._lock:
                warm.users -= 1
                warm.used_at = time.monotonic()

    def is_warm(self, artefact: Artefact) -> bool:
        """Whether the model is loaded, so that `using` returns at once."""
        with self._lock:
            warm = self._warm.get(artefact.key)
            return warm is not None and warm.ready.is_set()

    def state(self) -> list[dict[str, object]]:
        """The models in memory: key, name, bytes and users of each."""
        with self._lock:
            return [
                {"key": key, "name": warm.model.name, "bytes": warm.bytes, "users": warm.users}
                for key, warm in self._warm.items()
                if warm.model is not None
            ]

    def _load_into(self, warm: _Warm, artefact: Artefact) -> None:
        try:
            with self._watch(artefact):
                folder = self._fetch(artefact)
                self._reserve(warm, _weights_bytes(folder), artefact)
                model = self._load(folder)
                if artefact.version:
                    model.name = artefact.version  # its card's name may belong to another project's reranker as well
                warm.model = model
        except Exception as error:
            warm.error = error
            with self._lock:
                self._warm.pop(artefact.key, None)  # the next request retries
        finally:
            warm.ready.set()

    def _reserve(self, warm: _Warm, size: int, artefact: Artefact) -> None:
        """Reserve the bytes before loading, atomically, so that two loads never reserve the same memory."""
        if size > self._budget:
            raise NoMemory(
                f"reranker {artefact.name!r} takes {size >> 20} MB, but the server keeps at most {self._budget >> 20} MB of "
                "models; start serve_rerank with a larger --memory-mb"
            )
        with self._lock:
            idle = sorted(
                (key for key, other in self._warm.items() if other.model is not None and other.users == 0),
                key=lambda key: self._warm[key].used_at,
            )
            used = sum(other.bytes for other in self._warm.values())
            while idle and used + size > self._budget:
                used -= self._warm.pop(idle.pop(0)).bytes
            if used + size <= self._budget:
                warm.bytes = size
                return
        raise NoMemory(
            f"reranker {artefact.name!r} takes {size >> 20} MB, and {used >> 20} MB of other models are in use or being "
            f"loaded; the server keeps at most {self._budget >> 20} MB; retry in a moment"
        )


def _weights_bytes(folder: Path) -> int:
    """Bytes that loading needs: the size of the weights on disk."""
    forms = (SEQUENCE_CLASSIFICATION, SENTENCE_TRANSFORMERS)
    return sum(path.stat().st_size for form in forms for path in folder.glob(f"{form}/**/*.safetensors"))
