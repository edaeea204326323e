"""The disk cache of embeddings: it saves time or stays out of the way."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labeling.retrieval.embedder import load_embedder
from labeling.retrieval.embedding_cache import FILE_NAME, EmbeddingCache, shared_cache, vector_key


def vectors(*texts: str, dimension: int = 4) -> dict[bytes, np.ndarray]:
    rng = np.random.default_rng(0)
    return {vector_key("model", text): rng.random(dimension).astype(np.float32) for text in texts}


def test_what_was_put_is_got_bit_for_bit(tmp_path: Path) -> None:
    put = vectors("a", "b")
    EmbeddingCache(tmp_path / "new" / "file").put(put)
    got = EmbeddingCache(tmp_path / "new" / "file").get([*put, vector_key("model", "c")], 4)
    assert got.keys() == put.keys()
    assert all(np.array_equal(got[key], put[key]) for key in put)


def test_other_weights_and_other_texts_have_other_keys() -> None:
    keys = {vector_key(model, text) for model in ("m", "n") for text in ("a", "b", "", "\ud800")}
    assert len(keys) == 8


def test_vector_of_another_length_is_not_found(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "file")
    cache.put(vectors("a"))
    assert cache.get([vector_key("model", "a")], 5) == {}


def test_vector_with_a_flipped_bit_is_not_found(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "file")
    cache.put(vectors("a"))
    with sqlite3.connect(cache.path) as connection:
        (value,) = connection.execute("SELECT value FROM vector").fetchone()
        connection.execute("UPDATE vector SET value = ?", [value[:-1] + bytes([value[-1] ^ 1])])
    assert cache.get([vector_key("model", "a")], 4) == {}


def test_damaged_file_is_ignored_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"no database at all, " * 1000)
    cache = EmbeddingCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            cache.put(vectors("a"))
            assert cache.get([vector_key("model", "a")], 4) == {}
    assert len(caplog.records) == 1 and "can be deleted" in caplog.text


def test_folder_that_cannot_be_written_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "occupied").write_text("a file where a folder is needed")
    cache = EmbeddingCache(tmp_path / "occupied" / "file")
    cache.put(vectors("a"))
    assert cache.get([vector_key("model", "a")], 4) == {}
    assert "not usable" in caplog.text


def test_oldest_go_when_the_file_is_full(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "file", most_bytes=200_000)
    for number in range(300):
        cache.put(vectors(str(number), dimension=384))
    kept = [bool(cache.get([vector_key("model", str(number))], 384)) for number in range(300)]
    assert kept[-1] and not kept[0]
    assert cache.path.stat().st_size < 400_000


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from labeling.retrieval.embedding_cache import EmbeddingCache, vector_key\n"
        "cache = EmbeddingCache(Path(sys.argv[1]))\n"
        "for n in range(40): cache.put({vector_key(sys.argv[2], str(n)): np.full(4, n, np.float32)})"
    )
    path = tmp_path / "file"
    # Made beforehand: while SQLite switches a new file to its log, others are told at once that it is locked.
    EmbeddingCache(path).put({vector_key("zero", "0"): np.zeros(4, np.float32)})
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("one", "two", "three")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    keys = [vector_key(name, str(n)) for name in ("one", "two", "three") for n in range(40)]
    assert len(EmbeddingCache(path).get(keys, 4)) == 120


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZELO_CACHE", raising=False)
    assert shared_cache() is None


def test_embedder_computes_a_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_CACHE", str(tmp_path))
    embedder = load_embedder(max_tokens=16)
    first = embedder.encode(["one text", "another text", "one text"])
    asked: list[str] = []
    compute = embedder._compute
    monkeypatch.setattr(embedder, "_compute", lambda texts, role: asked.extend(texts) or compute(texts, role))
    again = embedder.encode(["another text", "a third", "one text"])
    assert asked == ["a third"]
    assert np.array_equal(again[[2, 0]], first[:2])
    embedder.encode(["one text"], role="query")
    assert asked == ["a third", "one text"]
    assert (tmp_path / FILE_NAME).is_file()


def test_what_progress_raises_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_CACHE", str(tmp_path))
    monkeypatch.setattr("labeling.retrieval.embedder.TEXTS_SAVED_AT_ONCE", 2)
    embedder = load_embedder(max_tokens=16)

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedder.encode([f"text number {n}" for n in range(10)], batch_size=2, progress=stop)
    asked: list[str] = []
    compute = embedder._compute
    monkeypatch.setattr(embedder, "_compute", lambda texts, role: asked.extend(texts) or compute(texts, role))
    embedder.encode([f"text number {n}" for n in range(10)])
    assert len(asked) == 6
