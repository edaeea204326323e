"""Consistency checks across the rows of one file: an id has one meaning. Imports no Django."""

from __future__ import annotations

import hashlib

from labeling.importing.formats.line_importer import Row
from labeling.importing.lines import RowError
from labeling.importing.strict_json import printable
from labeling.records import ImportedDocument, ImportedGrade


class RowChecks:
    """Checks across the rows of one file: an id has one meaning.

    It keeps digests instead of texts, about 250 bytes for each distinct document, query and grade.
    """

    def __init__(self) -> None:
        self._queries: dict[bytes, int] = {}
        self._documents: dict[bytes, bytes] = {}
        self._grades: dict[bytes, tuple[int, int]] = {}

    def check(self, row: Row) -> list[bool]:
        """Check a row; returns for each of its documents whether the file had it before, or one element for a grade.

        Raises RowError, which names both lines.
        """
        if isinstance(row, ImportedGrade):
            return [self._check_grade(row)]
        key = _digest(row.id)
        if key in self._queries:
            raise RowError(
                f"the query id {printable(row.id)!r} is already used on line {self._queries[key]}",
                line=row.line,
                field="query.id",
                expectation="every query once in a file",
                remedy="put all documents of a query on one line, or give the queries different ids",
            )
        self._queries[key] = row.line
        return [self._check_document(document, position, row.line) for position, document in enumerate(row.documents)]

    def _check_document(self, document: ImportedDocument, position: int, line: int) -> bool:
        entry = _digest(document.text) + line.to_bytes(8)
        earlier = self._documents.setdefault(_digest(document.id), entry)
        if earlier[:16] != entry[:16]:
            raise RowError(
                f"the document {printable(document.id)!r} differs from its text on line {int.from_bytes(earlier[16:])}",
                line=line,
                field=f"documents[{position}].content",
                expectation="one text for each document id",
                remedy="use different ids for the two texts, or make them equal",
            )
        return earlier is not entry

    def _check_grade(self, row: ImportedGrade) -> bool:
        key = _digest(f"{row.query_id}\x00{row.document_id}")
        entry = (row.line, row.grade)
        earlier = self._grades.setdefault(key, entry)
        if earlier[1] != row.grade:
            raise RowError(
                f"grades {printable(row.document_id)!r} for {printable(row.query_id)!r} as {row.grade}, "
                f"line {earlier[0]} as {earlier[1]}",
                line=row.line,
                field="grade",
                expectation="one grade for each candidate",
                remedy="keep one of the two lines",
            )
        return earlier is not entry


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
