"""Rows of formats whose lines hold a query and a document: a query's text may repeat, and ids may be missing.

Imports no Django.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from labeling.importing.answers.rows import ImportedRating
from labeling.importing.formats.line_importer import Row, RowImporter
from labeling.importing.lines import RowError, numbered_lines
from labeling.records import ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery


def text_id(prefix: str, text: str) -> str:
    """An id for a text that has none: the same for texts that differ only in the blanks around them."""
    return f"{prefix}-{hashlib.blake2b(text.strip().encode(), digest_size=10).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Pair:
    """The fields of one line about a query and a document; None for fields that it lacks."""

    query_id: str | None = None
    query: str | None = None
    document_id: str | None = None
    document: str | None = None
    rank: int | None = None
    score: float | None = None
    grade: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rater: str | None = None
    by_person: bool = True
    is_candidate: bool = False


class PairRows:
    """Turns pairs into rows; yields a query once, about 150 bytes of memory each."""

    def __init__(self) -> None:
        self._queries: dict[str, str] = {}

    def rows(self, pair: Pair, line: int) -> Iterator[Row]:
        query_id, document_id = pair.query_id, pair.document_id
        if pair.query is not None:
            query_id = query_id or text_id("q", pair.query)
            yield from self._query(query_id, pair, line)
        if pair.document is not None:
            document_id = document_id or text_id("d", pair.document)
            yield ImportedDocument(id=document_id, text=pair.document, metadata=pair.metadata, line=line)
        if query_id is None or document_id is None:
            return
        if pair.is_candidate or pair.document is not None or pair.rank is not None or pair.score is not None:
            yield ImportedCandidate(query_id, document_id, rank=pair.rank, score=pair.score, line=line)
        if pair.grade is not None and pair.rater is not None:
            yield ImportedRating(
                query_id=query_id,
                document_id=document_id,
                grade=pair.grade,
                annotator=pair.rater,
                by_person=pair.by_person,
                line=line,
            )
        elif pair.grade is not None:
            yield ImportedGrade(query_id=query_id, document_id=document_id, grade=pair.grade, line=line)

    def _query(self, query_id: str, pair: Pair, line: int) -> Iterator[ImportedQuery]:
        text = pair.query or ""
        known = self._queries.setdefault(query_id, digest := text_id("", text) + f" {line}")
        if known is not digest and known.split(" ")[0] == digest.split(" ")[0]:
            return
        if known is not digest:
            raise RowError(
                f"the query {query_id[:80]!r} has a different text than on line {known.split(' ')[1]}",
                line=line,
                field="query",
                expectation="one text for each query id",
                remedy="use different ids for the two texts, or make them equal",
            )
        metadata = {} if pair.document is not None or pair.document_id is not None else pair.metadata
        yield ImportedQuery(id=query_id, text=text, documents=(), metadata=metadata, line=line)


class PairLineImporter(RowImporter):
    """An importer of a format in which each line is a pair. Files may be compressed with gzip."""

    @abc.abstractmethod
    def pairs(self, body: bytes, line: int) -> Iterator[Pair]:
        """The pairs of a non-blank line. Raises RowError."""

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        made = PairRows()
        for number, body in numbered_lines(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            if isinstance(body, RowError):
                yield body
                continue
            try:
                yield from [row for pair in list(self.pairs(body, number)) for row in made.rows(pair, number)]
            except RowError as error:
                yield error
