"""A cache of embeddings on disk, shared by all processes of a host.

`labeling.retrieval.embedder` reads it before it calls a model, so that the dense retriever and the embedding
judge share their vectors. A cache can only save time: where it cannot be read or written it is
ignored with a warning. Imports no Django; `ZELO_CACHE` names the folder, without it nothing is kept.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

Float32Array = npt.NDArray[np.float32]

FILE_NAME = "embeddings-1.sqlite"  # increase it when the layout or the meaning of a key changes
MOST_BYTES = 1 << 30  # half a million vectors of 384 numbers
KEPT_OF_FULL = 0.75
BUSY_S = 10.0
KEYS_AT_ONCE = 500
CHECKSUM_BYTES = 4

_SCHEMA = "CREATE TABLE IF NOT EXISTS vector (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)"


def shared_cache() -> EmbeddingCache | None:
    """Return the cache in the folder that `ZELO_CACHE` names, or None."""
    folder = os.environ.get("ZELO_CACHE", "")
    return _cache_at(Path(folder) / FILE_NAME) if folder else None


@functools.lru_cache(maxsize=4)
def _cache_at(path: Path) -> EmbeddingCache:
    return EmbeddingCache(path)


def vector_key(model: str, text: str) -> bytes:
    """The key of a vector. `model` names all that shapes the vector: weights, length limit, role."""
    return hashlib.sha256(f"{model}\0{text}".encode("utf-8", "surrogatepass")).digest()


class EmbeddingCache:
    """Vectors float32[dimension] by key, in one SQLite file that several processes may use at once.

    Each call opens the file again, since connections survive neither a fork nor a change of thread. Beyond `most_bytes`
    the oldest quarter is deleted. After damage or a failed write the object does nothing.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._usable = True

    def get(self, keys: Sequence[bytes], dimension: int) -> dict[bytes, Float32Array]:
        """The cached vectors of these keys, without those of another length or with a wrong checksum."""
        found: dict[bytes, Float32Array] = {}
        if not self._usable or not keys or not self.path.exists():
            return found
        try:
            with closing(self._opened()) as connection:
                for start in range(0, len(keys), KEYS_AT_ONCE):
                    some = keys[start : start + KEYS_AT_ONCE]
                    marks = ",".join("?" * len(some))
                    rows = connection.execute(f"SELECT key, value FROM vector WHERE key IN ({marks})", some)
                    found |= {key: _unpacked(value) for key, value in rows if _is_whole(value, dimension)}
        except (OSError, sqlite3.Error) as error:
            self._note(error)
        return found

    def put(self, vectors: Mapping[bytes, Float32Array]) -> None:
        """Add vectors, or replace them."""
        if not self._usable or not vectors:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._opened()) as connection, connection:
                connection.execute(_SCHEMA)
                connection.executemany(
                    "INSERT OR REPLACE INTO vector (key, value) VALUES (?, ?)",
                    [(key, _packed(vector)) for key, vector in vectors.items()],
                )
                self._forget_oldest(connection)
        except (OSError, sqlite3.Error) as error:
            self._note(error)

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_S)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _forget_oldest(self, connection: sqlite3.Connection) -> None:
        """Delete the oldest vectors beyond the limit; SQLite uses freed pages again, so the file is not rewritten."""
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self.most_bytes:
            count = connection.execute("SELECT count(*) FROM vector").fetchone()[0]
            connection.execute(
                "DELETE FROM vector WHERE id IN (SELECT id FROM vector ORDER BY id LIMIT ?)",
                [count - int(KEPT_OF_FULL * count)],
            )

    def _note(self, error: Exception) -> None:
        """Log a warning; disable the cache, unless the file is only busy."""
        busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
        self._usable = busy
        log.warning(
            "the embedding cache %s is %s (%s); embeddings are computed instead. The cache can be deleted at any time",
            self.path,
            "busy" if busy else "not usable",
            error,
        )


def _packed(vector: Float32Array) -> bytes:
    data = np.ascontiguousarray(vector, dtype="<f4").tobytes()
    return zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little") + data


def _unpacked(value: bytes) -> Float32Array:
    return np.frombuffer(value, dtype="<f4", offset=CHECKSUM_BYTES).astype(np.float32)


def _is_whole(value: bytes, dimension: int) -> bool:
    data = value[CHECKSUM_BYTES:]
    return len(data) == 4 * dimension and zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little") == value[:CHECKSUM_BYTES]
