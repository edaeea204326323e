"""Consistency checks across the rows of one file: an id has one meaning. Imports no Django."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.formats.line_importer import Row
from labeling.importing.formats.value_checks import MAX_GRADE, check_identifier, is_plain_identifier
from labeling.importing.lines import RowError
from labeling.importing.strict_json import BadJson, quoted
from labeling.records import ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery

_GRADES = MAX_GRADE + 1
_CANDIDATE = 2**60


class RowChecks:
    """Checks across the rows of one file: an id has one meaning.

    It keeps digests instead of texts, about 250 bytes for each distinct document, query, grade and answer. With
    `repeated_answers`, an annotator may answer one question several times.
    """

    def __init__(self, *, repeated_answers: bool = False) -> None:
        self._repeated_answers = repeated_answers
        self._answers: dict[bytes, tuple[int, float | int | str | None]] = {}
        self._queries: dict[bytes, int] = {}
        self._documents: dict[bytes, bytes] = {}
        # The candidate's line and the grade with its line, in one number a pair: objects of their own take twice the memory.
        self._pairs: dict[bytes, int] = {}
        self._last_pair: tuple[str, str, bytes] = ("", "", b"")

    def check(self, row: Row) -> list[bool]:
        """Check a row; returns for each of its documents whether the file had it before, or one element for another row.

        Raises RowError, which names both lines.
        """
        _, repeated, errors = self.check_parts(row)
        if errors:
            raise errors[0]
        return repeated

    def check_parts(self, row: Row) -> tuple[Row | None, list[bool], list[RowError]]:
        """Return what is good of a row (None: nothing), as `check` does for its parts, and the errors of the rest."""
        try:
            if isinstance(row, ImportedGrade):
                return row, [self._check_grade(row)], []
            if isinstance(row, ImportedPreference | ImportedRating):
                return row, [self._check_answer(row)], []
            if isinstance(row, ImportedCandidate):
                return row, [self._check_candidate(row)], []
            if isinstance(row, ImportedDocument):
                return row, [self._check_document(row, "document", row.line)], []
            self._check_query(row)
        except RowError as error:
            return None, [], [error]
        kept, repeated, errors = [], [], []
        for position, document in enumerate(row.documents):
            try:
                repeated.append(self._check_document(document, f"documents[{position}]", row.line))
                if document.grade is not None:
                    self._check_grade(ImportedGrade(row.id, document.id, document.grade, row.line))
                kept.append(document)
            except RowError as error:
                errors.append(error)
        if not errors:
            return row, repeated, []
        return (replace(row, documents=tuple(kept)) if kept else None), repeated, errors

    def _check_query(self, row: ImportedQuery) -> None:
        _check_id(row.id, "query.id", row.line)
        key = _digest(row.id)
        self._check_spelling(row.id, "query.id", row.line, lambda other: self._queries.get(other))
        if key in self._queries:
            raise RowError(
                f"the query id {quoted(row.id)} is already used on line {self._queries[key]}",
                line=row.line,
                field="query.id",
                expectation="every query once in a file",
                remedy="put all documents of a query on one line, or give the queries different ids",
            )
        self._queries[key] = row.line

    def _pair_key(self, query_id: str, document_id: str) -> bytes:
        """The key of a pair; a candidate and its grade, which follow each other, share one object."""
        if self._last_pair[:2] != (query_id, document_id):
            self._last_pair = (query_id, document_id, _digest(f"{query_id}\x00{document_id}"))
        return self._last_pair[2]

    def _check_candidate(self, row: ImportedCandidate) -> bool:
        _check_id(row.query_id, "query id", row.line)
        _check_id(row.document_id, "document id", row.line)
        key = self._pair_key(row.query_id, row.document_id)
        known = self._pairs.get(key, 0)
        earlier = known // _CANDIDATE - 1
        if earlier not in (-1, row.line):
            raise RowError(
                f"the document {quoted(row.document_id)} is already a candidate of {quoted(row.query_id)} on "
                f"line {earlier}",
                line=row.line,
                field="document id",
                expectation="every document once in a query",
                remedy="keep one of the two lines",
            )
        if earlier == -1:
            self._pairs[key] = known + (row.line + 1) * _CANDIDATE
        return False

    def _check_document(self, document: ImportedDocument, path: str, line: int) -> bool:
        _check_id(document.id, f"{path}.id", line)
        # Blanks around a text carry no meaning: two files often differ in a last line end.
        entry = _digest(document.text.strip()) + line.to_bytes(8)
        self._check_spelling(document.id, f"{path}.id", line, self._line_of_document)
        earlier = self._documents.setdefault(_digest(document.id), entry)
        if earlier[:16] != entry[:16]:
            raise RowError(
                f"the document {quoted(document.id)} differs from its text on line {int.from_bytes(earlier[16:])}",
                line=line,
                field=f"{path}.content",
                expectation="one text for each document id",
                remedy="use different ids for the two texts, or make them equal",
            )
        return earlier is not entry

    def _line_of_document(self, key: bytes) -> int | None:
        entry = self._documents.get(key)
        return None if entry is None else int.from_bytes(entry[16:])

    @staticmethod
    def _check_spelling(identifier: str, field: str, line: int, line_of: Callable[[bytes], int | None]) -> None:
        """Refuse `1.0` in a file that has `1`: spreadsheets and data frames make one of the other where a cell is empty."""
        whole = identifier.removesuffix(".0")
        if not (whole.isascii() and whole.isdecimal()):
            return
        other = whole if whole != identifier else f"{identifier}.0"
        earlier = line_of(_digest(other))
        if earlier is not None:
            raise RowError(
                f"is {identifier!r}, and line {earlier} has {other!r}",
                line=line,
                field=field,
                expectation="one spelling of an id",
                remedy="write all ids as whole numbers, or as texts",
            )

    def _check_answer(self, row: ImportedPreference | ImportedRating) -> bool:
        value: float | int | str | None
        if isinstance(row, ImportedRating):
            ids = {"query id": row.query_id, "document id": row.document_id}
            order, value = "", row.grade
        else:
            ids = {"query": row.query_id, "a": row.a_id, "b": row.b_id, "second query": row.query_b}
            order, value = str(row.swapped), row.kind.value if row.preference is None else row.preference
        for field, each in ids.items():
            _check_id(each, field, row.line)
        if self._repeated_answers:
            return False
        key = _digest("\x00".join((*ids.values(), order, row.annotator, row.annotator_key, str(row.by_person))))
        entry = (row.line, value)
        earlier = self._answers.setdefault(key, entry)
        if earlier[1] != value:
            raise RowError(
                f"{quoted(row.annotator)} gives {value} here, and {earlier[1]} on line {earlier[0]}",
                line=row.line,
                field="answer",
                expectation="one answer of an annotator to a question",
                remedy="keep one of the two lines, or set the format's option repeated_answers to last or mean",
            )
        return earlier is not entry

    def _check_grade(self, row: ImportedGrade) -> bool:
        _check_id(row.query_id, "query id", row.line)
        _check_id(row.document_id, "document id", row.line)
        key = self._pair_key(row.query_id, row.document_id)
        known = self._pairs.get(key, 0)
        earlier = known % _CANDIDATE
        if not earlier:
            self._pairs[key] = known + (row.line + 1) * _GRADES + row.grade
            return False
        line, grade = earlier // _GRADES - 1, earlier % _GRADES
        if grade != row.grade:
            raise RowError(
                f"grades {quoted(row.document_id)} for {quoted(row.query_id)} as {row.grade}, line {line} as {grade}",
                line=row.line,
                field="grade",
                expectation="one grade for each candidate",
                remedy="keep one of the two lines, or set the importer's option repeated to maximum",
            )
        return True


def _check_id(value: str, field: str, line: int) -> None:
    """Raise RowError for a bad id: an importer plugin may not have checked it."""
    if is_plain_identifier(value):
        return
    try:
        check_identifier(value, field)
    except BadJson as error:
        raise RowError(
            error.problem, line=line, field=field, expectation=error.expectation, remedy=error.remedy
        ) from None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
