"""Reads run files of existing systems: TREC runs and the variants that toolkits write. Imports no Django.

`trainer.evaluation.rankers.RunFile` turns a run into an order, `trainer.evaluation.entries` stores the file.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from labeling.importing.lines import RowError, damaged, numbered_lines, open_stream

Run = dict[str, dict[str, float]]

RUN_LINE = "query Q0 document rank score tag"
DIALECTS = (
    f"a TREC run ({RUN_LINE}; the tag may be missing), query document score, query document rank, or a JSON object "
    "{query: {document: score}}"
)
MOST_LINE_BYTES = 64 * 1024
MOST_RUN_BYTES = 4 * 1024 * 1024 * 1024
MOST_JSON_BYTES = 512 * 1024 * 1024
_LARGEST = float(np.finfo(np.float32).max)
_BLANKS = re.compile(r"[ \t\x0b\x0c]+")
_QUERY = {"query-id", "query_id", "qid", "query", "q_id", "topic"}
_DOCUMENT = {"corpus-id", "corpus_id", "doc-id", "doc_id", "docid", "docno", "document", "pid", "document_id"}
_SCORE, _RANK = {"score", "sim", "similarity"}, {"rank", "position"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Positions of the fields in a line; `is_rank` None where the third column may be a score or a rank."""

    columns: int
    query: int
    document: int
    value: int
    is_rank: bool | None


_LAYOUTS = {
    6: _Layout(6, 0, 2, 4, False),
    5: _Layout(5, 0, 2, 4, False),
    4: _Layout(4, 0, 1, 3, False),
    3: _Layout(3, 0, 1, 2, None),
}


@dataclass(slots=True)
class _Reader:
    run: Run = field(default_factory=dict)
    layout: _Layout | None = None

    def add(self, words: list[str], line: int) -> None:
        if self.layout is None:
            self.layout = _header(words)
            if self.layout is not None:
                return
            self.layout = _LAYOUTS.get(len(words))
        if self.layout is None or len(words) != self.layout.columns:
            expected = DIALECTS if self.layout is None else f"{self.layout.columns} columns as in the first line"
            raise RowError(
                f"the line has {len(words)} column{'' if len(words) == 1 else 's'}: {' '.join(words)[:100]!r}",
                line=line, field="columns", expectation=expected, remedy="export the run in TREC's format",
            )  # fmt: skip
        query, document = words[self.layout.query], words[self.layout.document]
        self.store(query, document, _number(words[self.layout.value], line), line)

    def store(self, query: str, document: str, score: float, line: int) -> None:
        own = self.run.setdefault(query, {})
        if document in own:
            raise RowError(
                f"document {document!r} appears twice for query {query!r}",
                line=line, field="document", expectation="each document once per query", remedy="remove one line",
            )  # fmt: skip
        own[document] = score

    def finished(self, line: int) -> Run:
        if not any(self.run.values()):
            raise RowError(
                "the file is empty", line=1, field="", expectation=DIALECTS, remedy="choose a file with a ranking"
            )
        is_rank = self.layout.is_rank if self.layout is not None else False
        if _third_is_rank(self.run, line) if is_rank is None else is_rank:
            return {query: {document: -rank for document, rank in own.items()} for query, own in self.run.items()}
        return self.run


def read_run(stream: IO[bytes]) -> Run:
    """Scores by query and document of a run file, plain or gzipped; a rank becomes the negated rank.

    Columns are separated by tabs if the line has any, else by blanks; a header, comments (#) and byte order marks are left
    out. TREC's rank column does not count, as in trec_eval. Raises RowError that names the line.
    """
    try:
        return _read(open_stream(stream, MOST_RUN_BYTES))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(1, error) from None


def _read(whole: io.BufferedReader) -> Run:
    start: bytes = whole.peek(4096)[:4096] if hasattr(whole, "peek") else b""
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return _of_json(whole)
    reader, number = _Reader(), 1
    for number, text in _texts(whole):
        words = text.split("\t") if "\t" in text else _BLANKS.split(text.strip(" \x0b\x0c"))
        words = [word.strip(" ") for word in words]
        if not (text.startswith("#") and len(words) != 6):
            reader.add(words, number)
    return reader.finished(number)


def _texts(stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    for number, body in numbered_lines(stream, MOST_LINE_BYTES, MOST_RUN_BYTES):
        if isinstance(body, RowError):
            raise body
        for line in body.split(b"\r"):  # files of old Macs have no other line end
            kept = line.removeprefix(b"\xef\xbb\xbf").strip(b"\x1a")
            if kept.strip():
                yield number, _decoded(kept, number)


def _decoded(body: bytes, line: int) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            f"byte {error.start + 1} of the line (0x{body[error.start]:02x}) is not UTF-8",
            line=line, expectation="UTF-8 text", remedy="save or convert the file as UTF-8",
        ) from None  # fmt: skip


def _header(words: list[str]) -> _Layout | None:
    """The layout that a header names, or None if the line is no header."""
    names = [word.strip('"').lower() for word in words]
    places = [
        next((place for place, name in enumerate(names) if name in known), None)
        for known in (_QUERY, _DOCUMENT, _SCORE, _RANK)
    ]
    query, document, score, rank = places
    value = score if score is not None else rank
    if query is None or document is None or value is None:
        return None
    return _Layout(len(words), query, document, value, score is None)


def _number(text: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value) or abs(value) > _LARGEST or "_" in text:
        raise RowError(
            f"is {text[:40]!r}",
            line=line, field="score", expectation="a finite number in the range of a 32-bit float",
            remedy="leave out documents without a score",
        )  # fmt: skip
    return value


def _third_is_rank(run: Run, line: int) -> bool:
    """Whether the third of three columns is a rank: in every query the numbers are 1, 2, 3, ... as the file lists them.

    A query of one document tells nothing. Raises RowError if all queries have one document, numbered 1.
    """
    lists = [list(own.values()) for own in run.values()]
    if any(own != list(range(1, len(own) + 1)) for own in lists):
        return False
    if any(len(own) > 1 for own in lists):
        return True
    raise RowError(
        "the third column is 1 for one document of each query, which may be a score or a rank",
        line=line, field="score", expectation="a header (query-id corpus-id score) or six columns",
        remedy="export the run in TREC's format",
    )  # fmt: skip


def _of_json(stream: IO[bytes]) -> Run:
    content = stream.read(MOST_JSON_BYTES + 1)
    if len(content) > MOST_JSON_BYTES:
        raise RowError(
            f"the JSON run is longer than {MOST_JSON_BYTES} bytes", line=1, expectation="a shorter file",
            remedy="export the run in TREC's format",
        )  # fmt: skip
    reader = _Reader()
    try:
        found: Any = json.loads(content.decode("utf-8-sig"), object_pairs_hook=list)
    except ValueError as error:
        raise RowError(
            f"the file is not JSON: {error}", line=1, expectation=DIALECTS, remedy="export it again"
        ) from None
    for query, own in found:
        if not isinstance(own, list) or not all(isinstance(each, tuple) for each in own):
            raise RowError(
                f"query {query!r} has no object of scores", line=1, expectation="{query: {document: score}}",
                remedy="export the run in TREC's format",
            )  # fmt: skip
        if query in reader.run:
            raise RowError(f"query {query!r} appears twice", line=1, expectation="each query once", remedy="remove one")
        reader.run[query] = {}
        for document, score in own:
            if isinstance(score, bool) or not isinstance(score, int | float):
                raise RowError(
                    f"document {document!r} of query {query!r} has the score {str(score)[:40]!r}",
                    line=1, field="score", expectation="a number", remedy="leave out documents without a score",
                )  # fmt: skip
            reader.store(query, document, _number(repr(score), 1), 1)
    return reader.finished(1)
