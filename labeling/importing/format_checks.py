"""The conformance checks of importers and exporters, a part of `labeling.plugin_checks`.

Importers get garbage, truncated and altered copies of a valid file and must yield rows or raise
RowError. Exporters must write the same bytes each time. Imports no Django.
"""

from __future__ import annotations

import gzip
import io
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

from labeling.importing.answers.rows import (
    ExportedJudgment,
    ExportedPair,
    ExportedText,
    ImportedPreference,
    ImportedRating,
)
from labeling.importing.formats import RowError
from labeling.importing.formats.value_checks import check_identifier, is_blank
from labeling.importing.strict_json import BadJson
from labeling.plugins import Exporter, Importer
from labeling.records import (
    ExportedDocument,
    ExportedQuery,
    ImportedCandidate,
    ImportedDocument,
    ImportedGrade,
    ImportedQuery,
)

# --- importer ----------------------------------------------------------------------------

_GARBAGE = {
    "bytes that are not text": b"\xff\xfe\x00\x81\n" * 4,
    "a damaged compressed file": gzip.compress(b"text\n" * 50)[:-12],
    "NUL": b"\x00" * 64,
}


class _Watched(io.BytesIO):
    """A stream that records whether somebody reads the whole file at once."""

    greedy = False

    def read(self, size: int | None = -1) -> bytes:
        self.greedy |= size is None or size < 0
        return super().read(size)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        self.greedy = True
        return super().readlines(hint if hint is not None else -1)


def check_importer(make: Callable[[], Importer], example: bytes) -> Iterator[str]:
    for what, garbage in _GARBAGE.items():
        yield from _reads_or_refuses(make, garbage, what, must_refuse=True)
    yield from _reads_or_refuses(make, b"", "an empty file", must_refuse=False)
    if not example:
        return
    stream = _Watched(example)
    rows = make().read(stream)
    if not isinstance(rows, Iterator):
        yield f"read returned a {type(rows).__name__}; expected an iterator that reads the stream row by row"
    listed = list(rows)
    if stream.greedy:
        yield "it reads the whole stream at once; files may be larger than memory"
    if stream.closed:
        yield "it closes a stream that is its caller's"
    if not listed:
        yield "the example yields no rows"
    yield from _bad_rows(listed)
    if listed != list(make().read(io.BytesIO(example))):
        yield "the same file yields different rows the second time"
    for what, damaged in _damaged(example):
        yield from _reads_or_refuses(make, damaged, what, must_refuse=False)


def _damaged(example: bytes, times: int = 60) -> Iterator[tuple[str, bytes]]:
    """Yield copies of a valid file that are truncated or have one changed byte."""
    rng = random.Random(0)
    for _ in range(times):
        position = rng.randrange(len(example))
        yield f"the example cut off after {position} bytes", example[:position]
        byte = rng.randrange(256)
        changed = example[:position] + bytes([byte]) + example[position + 1 :]
        yield f"the example with byte {position} set to 0x{byte:02x}", changed


def _reads_or_refuses(make: Callable[[], Importer], data: bytes, what: str, *, must_refuse: bool) -> Iterator[str]:
    rows: list[Any] = []
    try:
        for row in make().read(io.BytesIO(data)):
            rows.append(row)
    except RowError as error:
        if error.line < 0 or not error.remedy or not error.problem:
            yield f"{what}: its RowError lacks line, problem or remedy"
    except Exception as error:
        yield f"{what}: raised {type(error).__name__}: {error}; expected labeling.importing.formats.RowError"
    else:
        if must_refuse:
            yield f"{what}: accepted; expected labeling.importing.formats.RowError"
    for violation in _bad_rows(rows):
        yield f"{what}: {violation}"


def _bad_rows(rows: Iterable[Any]) -> Iterator[str]:
    for row in rows:
        if isinstance(row, ImportedGrade):
            yield from _bad_ids([row.query_id, row.document_id])
            if row.grade < 0:
                yield f"yields the grade {row.grade}; grades start at 0"
        elif isinstance(row, ImportedPreference):
            yield from _bad_ids([row.query_id, row.query_b, row.a_id, row.b_id])
            if (row.query_id, row.a_id) == (row.query_b, row.b_id):
                yield f"yields an answer that compares {row.a_id!r} with itself"
            yield from _bad_texts([row.annotator])
        elif isinstance(row, ImportedRating):
            yield from _bad_ids([row.query_id, row.document_id])
            yield from _bad_texts([row.annotator])
            if row.grade < 0:
                yield f"yields the grade {row.grade}; grades start at 0"
        elif isinstance(row, ImportedDocument):
            yield from _bad_ids([row.id])
            yield from _bad_texts([row.text])
        elif isinstance(row, ImportedCandidate):
            yield from _bad_ids([row.query_id, row.document_id])
            if (row.score is not None and not math.isfinite(row.score)) or (row.rank is not None and row.rank < 1):
                yield f"yields the rank {row.rank} and score {row.score}; ranks start at 1, and scores are finite"
        elif isinstance(row, ImportedQuery):
            yield from _bad_ids([row.id, *(document.id for document in row.documents)])
            yield from _bad_texts([row.text, *(document.text for document in row.documents)])
            ids = [document.id for document in row.documents]
            if len(set(ids)) < len(ids):
                yield f"yields a document twice for query {row.id!r}"
            if any(document.score is not None and not math.isfinite(document.score) for document in row.documents):
                yield f"yields a score that is not finite for query {row.id!r}"
            if any(document.rank is not None and document.rank < 1 for document in row.documents):
                yield f"yields a rank below 1 for query {row.id!r}"
        else:
            yield f"yields a {type(row).__name__}; expected a row of labeling.records"


def _bad_ids(identifiers: Iterable[str]) -> Iterator[str]:
    for identifier in identifiers:
        try:
            check_identifier(identifier, "id")
        except BadJson as error:
            yield f"yields a bad id, {error}"
        yield from _bad_texts([identifier])


def _bad_texts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if is_blank(text):
            yield f"yields an empty text or id: {text[:40]!r}"
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            yield f"yields a text with NUL or a lone surrogate: {text[:40]!r}"


# --- exporter ----------------------------------------------------------------------------


def _exported() -> Iterator[ExportedQuery]:
    scores: list[tuple[float | None, float | None]] = [(1600.5, 0.9), (1500.0, 0.5), (1500.0, 0.5), (None, None)]
    for query in ("q1", "q-ü"):
        yield ExportedQuery(
            id=query,
            text='a "quoted"\nquestion \U0001f41f',
            metadata={"domain": "ponds"},
            documents=tuple(
                ExportedDocument(
                    id=f"d{position}",
                    text="text,\twith\r\nbreaks",
                    metadata={"list": [1, None]},
                    theta=None if elo is None else (elo - 1500.0) / 400.0,
                    stderr=None if elo is None else 0.1,
                    elo=elo,
                    relevance=relevance,
                    comparisons=0 if elo is None else 4,
                    grade=None,
                    first_stage_rank=position + 1,
                )
                for position, (elo, relevance) in enumerate(scores)
            ),
        )
    yield ExportedQuery(id="q3", text="nothing found", metadata={}, documents=())


def _texts() -> Iterator[Any]:
    for kind, name in (("document", "d0"), ("document", "d-ü"), ("query", "q1")):
        yield ExportedText(kind, name, 'a "quoted"\ntext \U0001f41f', {"title": "ponds", "list": [1, None]})
    yield ImportedGrade("q1", "d0", 2)
    yield ImportedGrade("q1", "d9", 0)


def _judgments() -> Iterator[Any]:
    for number, (kind, preference) in enumerate((("preference", 0.25), ("both_irrelevant", None), ("preference", 0.5))):
        yield ExportedJudgment(
            query_a="q1",
            document_a="d0",
            query_b="q2" if number == 2 else "q1",
            document_b="d-ü",
            annotator=f"anna, {number}",
            annotator_id=number + 1,
            by_person=number == 1,
            swapped=number == 0,
            kind=kind,
            preference=preference,
            rationale='"both"\nare good',
            created_at="2026-01-02T03:04:05+00:00",
        )


def _pairs() -> Iterator[Any]:
    for preference in (0.75, 0.5, None):
        yield ExportedPair("q1", "who", "d0", "one,\ntwo", "d1", "three \U0001f41f", preference, answers=3)


def _ratings() -> Iterator[Any]:
    yield ImportedRating("q1", "d0", 2, "anna")
    yield ImportedRating("q1", "d-ü", 0, 'ben, "b"', by_person=False)


def _everything() -> Iterator[Any]:
    yield from _texts()
    yield from _exported()


_ROWS: dict[str, Callable[[], Iterator[Any]]] = {
    "scores": _exported,
    "texts": _texts,
    "judgments": _judgments,
    "pairs": _pairs,
    "ratings": _ratings,
    "everything": _everything,
}


def check_exporter(make: Callable[[], Exporter]) -> Iterator[str]:
    plugin = make()
    if plugin.reads not in _ROWS:
        yield f"reads is {plugin.reads!r}; expected one of {', '.join(_ROWS)}"
        return
    rows = _ROWS[plugin.reads]
    if not plugin.suffix.startswith(".") or "/" not in plugin.content_type:
        yield f"suffix {plugin.suffix!r} or content_type {plugin.content_type!r} is invalid; expected .jsonl and a/b"
    written: list[bytes] = []
    for exporter in (plugin, plugin, make()):
        stream = io.BytesIO()
        exporter.write(rows(), cast(IO[bytes], stream))
        if stream.closed:
            yield "it closes a stream that is its caller's"
            return
        written.append(stream.getvalue())
    if not written[0]:
        yield "it writes nothing"
    if len(set(written)) > 1:
        yield "the same rows produce different bytes the second time"
    plugin.write(iter(()), io.BytesIO())
