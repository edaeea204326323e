"""File formats that come in (stage 1): zbench JSONL and TREC qrels, read line by line, bad input named.

An importer turns a stream into rows; `RowChecks` then holds what must be true across the lines of a
file, whatever its format. `labeling.importing.dataset` stores the rows. Imports no Django.
"""

from __future__ import annotations

import abc
import hashlib
import math
import re
from collections.abc import Iterator
from typing import IO, Any, ClassVar

import pydantic

from labeling.importing.lines import DEFAULT_MAX_LINE_BYTES, DEFAULT_MAX_TOTAL_BYTES, RowError, numbered_lines
from labeling.importing.strict_json import BadJson, check_text, parse, printable
from labeling.plugins import Importer, Plugin, register
from labeling.records import ImportedDocument, ImportedGrade, ImportedQuery

Row = ImportedQuery | ImportedGrade

MAX_ID_CHARACTERS = 500
MAX_RANK = 2**31 - 1
MAX_GRADE = 2**15 - 1


# --- importers ---------------------------------------------------------------------------


class LineOptions(Importer.Options):
    max_line_bytes: int = pydantic.Field(
        default=DEFAULT_MAX_LINE_BYTES, ge=1, le=2**30, description="Longest accepted line, in bytes."
    )
    max_total_bytes: int = pydantic.Field(
        default=DEFAULT_MAX_TOTAL_BYTES, ge=1, le=2**50, description="Longest accepted file, unpacked, in bytes."
    )


class LineImporter(Importer):
    """An importer of a format in which each line is a row. Files may be compressed with gzip."""

    Options = LineOptions
    options: LineOptions
    format_help: ClassVar[str] = ""
    example: ClassVar[bytes] = b""

    @abc.abstractmethod
    def parse_line(self, body: bytes, line: int) -> Row:
        """The row of one line that is not blank. Raises RowError."""

    def read(self, stream: IO[bytes]) -> Iterator[Row]:
        """Rows in the order of the file; raises RowError at the first bad line."""
        for row in self.read_all(stream):
            if isinstance(row, RowError):
                raise row
            yield row

    def read_all(self, stream: IO[bytes]) -> Iterator[Row | RowError]:
        """Rows and, in their places, the errors of bad lines: for previews."""
        for number, body in numbered_lines(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            if isinstance(body, RowError):
                yield body
                continue
            try:
                yield self.parse_line(body, number)
            except RowError as error:
                yield error


@register
class ZbenchJsonl(LineImporter):
    """One query with its documents a line, as the annotator zbench reads it.

    Documents may carry `rank` (from 1) and `score`: rank and score of the first stage. Where `elo`
    stands beside it the file is an export, and `score` is a result rather than a first stage's.
    Keys that the format does not know are checked as JSON and then left out.
    """

    name = "zbench-jsonl"
    label = "zbench JSONL"
    format_help = (
        'One JSON object a line: {"query": {"id", "query"}, "documents": [{"id", "content", "metadata"}]}; '
        'documents may have "rank" and "score", and may be [] where a retriever is to find candidates.'
    )
    example = (
        b'{"query": {"id": "q1", "query": "do goldfish grow"}, "documents": [{"id": "d1", "content": '
        b'"Goldfish grow as long as they live.", "metadata": {"source": "pond"}}, {"id": "d2", "content": '
        b'"Bread is baked from flour.", "rank": 2, "score": 0.5}]}\n'
        b'{"query": {"id": "q2", "query": "what is bread made of"}, "documents": [{"id": "d2", "content": '
        b'"Bread is baked from flour."}]}\n'
    )

    def parse_line(self, body: bytes, line: int) -> ImportedQuery:
        try:
            return _query(parse(body), line)
        except BadJson as error:
            raise RowError(
                error.problem, line=line, field=error.field, expectation=error.expectation, remedy=error.remedy
            ) from None


_SHAPE = (
    'write {"query": {"id": ..., "query": ...}, "documents": [{"id": ..., "content": ...}]} ([] has them retrieved)'
)


def _query(value: Any, line: int) -> ImportedQuery:
    top = _typed(value, dict, "", "a JSON object", _SHAPE)
    query = _typed(_member(top, "query", ""), dict, "query", "a JSON object", _SHAPE)
    listed = _typed(_member(top, "documents", ""), list, "documents", "a list of documents", _SHAPE)
    documents = tuple(_document(item, f"documents[{position}]") for position, item in enumerate(listed))
    _check_once(documents)
    return ImportedQuery(
        id=_identifier(query, "query"),
        text=_text(query, "query", "query"),
        documents=documents,
        metadata=_metadata(query, "query"),
        line=line,
    )


def _document(value: Any, path: str) -> ImportedDocument:
    item = _typed(value, dict, path, "a JSON object", _SHAPE)
    return ImportedDocument(
        id=_identifier(item, path),
        text=_text(item, "content", path),
        metadata=_metadata(item, path),
        rank=_rank(item, path),
        score=None if "elo" in item else _score(item, path),
    )


def _check_once(documents: tuple[ImportedDocument, ...]) -> None:
    first: dict[str, int] = {}
    for position, document in enumerate(documents):
        if (earlier := first.setdefault(document.id, position)) != position:
            raise BadJson(
                f"the document id {printable(document.id)!r} is that of documents[{earlier}] already",
                expectation="every document once a query",
                remedy="drop one of the two, or give them different ids",
                field=f"documents[{position}].id",
            )


def _typed(value: Any, kind: type, path: str, expectation: str, remedy: str) -> Any:
    if isinstance(value, kind) and not (kind is not bool and isinstance(value, bool)):
        return value
    raise BadJson(f"is {_named(value)}", expectation=expectation, remedy=remedy, field=path)


def _named(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _member(owner: dict[str, Any], key: str, path: str) -> Any:
    if key in owner:
        return owner[key]
    field = f"{path}.{key}" if path else key
    raise BadJson("is missing", expectation=f"the key {key!r}", remedy=_SHAPE, field=field)


def _text(owner: dict[str, Any], key: str, path: str) -> str:
    field = f"{path}.{key}"
    text: str = _typed(_member(owner, key, path), str, field, "a string", "write the text in double quotes")
    if not text or text.isspace():
        raise BadJson(
            "is empty", expectation="a text with at least one visible character", remedy="leave it out", field=field
        )
    return text


def _identifier(owner: dict[str, Any], path: str) -> str:
    field = f"{path}.id"
    value: str = _typed(_member(owner, "id", path), str, field, "a string", "write ids in double quotes, numbers too")
    _check_identifier(value, field)
    return value


def _check_identifier(value: str, field: str) -> None:
    expectation = f"an id of 1 to {MAX_ID_CHARACTERS} characters"
    if not value or value.isspace():
        raise BadJson("is empty", expectation=expectation, remedy="give it an id of its own", field=field)
    if len(value) > MAX_ID_CHARACTERS:
        raise BadJson(
            f"has {len(value)} characters", expectation=expectation, remedy="shorten or hash the id", field=field
        )


def _metadata(owner: dict[str, Any], path: str) -> dict[str, Any]:
    if "metadata" not in owner:
        return {}
    value: dict[str, Any] = _typed(
        owner["metadata"], dict, f"{path}.metadata", "a JSON object", "write {} or leave metadata out"
    )
    return value


def _rank(owner: dict[str, Any], path: str) -> int | None:
    if owner.get("rank") is None:
        return None
    rank: int = _typed(
        owner["rank"], int, f"{path}.rank", "an integer", "write the first stage's rank, or leave it out"
    )
    if not 1 <= rank <= MAX_RANK:
        raise BadJson(
            f"is {rank}",
            expectation=f"a rank from 1 to {MAX_RANK}",
            remedy="count ranks from 1",
            field=f"{path}.rank",
        )
    return rank


def _score(owner: dict[str, Any], path: str) -> float | None:
    value = owner.get("score")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadJson(
            f"is {_named(value)}",
            expectation="a finite number",
            remedy="write the first stage's score, or leave it out",
            field=f"{path}.score",
        )
    return float(value)


@register
class TrecQrels(LineImporter):
    """Human grades in TREC's four columns. A grade below 0 (TREC's mark for spam) is read as 0."""

    name = "trec-qrels"
    label = "TREC qrels (grades)"
    format_help = "Four columns a line, separated by blanks or tabs: query id, 0, document id, grade (an integer)."
    example = b"q1 0 d1 3\nq1 0 d2 0\nq2 0 d2 2\n"

    _GRADE = re.compile(r"[+-]?[0-9]{1,6}")

    def parse_line(self, body: bytes, line: int) -> ImportedGrade:
        columns = _decoded(body, line).split()
        if len(columns) != 4:
            raise RowError(
                f"has {len(columns)} columns",
                line=line,
                expectation="four: query id, 0, document id, grade",
                remedy="ids must not contain blanks; a run file (six columns) holds no grades",
            )
        for field, identifier in (("query id", columns[0]), ("document id", columns[2])):
            try:
                check_text(identifier)
                _check_identifier(identifier, field)
            except BadJson as error:
                raise RowError(
                    error.problem, line=line, field=field, expectation=error.expectation, remedy=error.remedy
                ) from None
        return ImportedGrade(
            query_id=columns[0], document_id=columns[2], grade=self._grade(columns[3], line), line=line
        )

    def _grade(self, text: str, line: int) -> int:
        if not self._GRADE.fullmatch(text) or int(text) > MAX_GRADE:
            raise RowError(
                f"is {printable(text)!r}",
                line=line,
                field="grade",
                expectation=f"an integer up to {MAX_GRADE}",
                remedy="round the grade, and let larger mean more relevant",
            )
        return max(int(text), 0)


def _decoded(body: bytes, line: int) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            f"byte {error.start + 1} of the line (0x{body[error.start]:02x}) is not UTF-8",
            line=line,
            expectation="UTF-8 text",
            remedy="save or convert the file as UTF-8",
        ) from None


# --- across lines ------------------------------------------------------------------------


class RowChecks:
    """What must hold across the rows of one file: ids mean one thing throughout.

    Keeps digests rather than texts: about 250 bytes for each distinct document, query and grade.
    """

    def __init__(self) -> None:
        self._queries: dict[bytes, int] = {}
        self._documents: dict[bytes, bytes] = {}
        self._grades: dict[bytes, tuple[int, int]] = {}

    def check(self, row: Row) -> list[bool]:
        """Raise RowError that names both lines; returns, for each document of a query, whether the
        file had it before (for a grade, one element: whether it is a repetition).
        """
        if isinstance(row, ImportedGrade):
            return [self._check_grade(row)]
        key = _digest(row.id)
        if key in self._queries:
            raise RowError(
                f"the query id {printable(row.id)!r} is that of line {self._queries[key]} already",
                line=row.line,
                field="query.id",
                expectation="every query once a file",
                remedy="put all documents of a query on one line, or give the queries different ids",
            )
        self._queries[key] = row.line
        return [self._check_document(document, position, row.line) for position, document in enumerate(row.documents)]

    def _check_document(self, document: ImportedDocument, position: int, line: int) -> bool:
        entry = _digest(document.text) + line.to_bytes(8)
        earlier = self._documents.setdefault(_digest(document.id), entry)
        if earlier[:16] != entry[:16]:
            raise RowError(
                f"the document {printable(document.id)!r} has another text than on line {int.from_bytes(earlier[16:])}",
                line=line,
                field=f"documents[{position}].content",
                expectation="one text for each document id",
                remedy="give the two texts different ids, or make them equal",
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


def make_importer(
    plugin: type[Plugin],
    *,
    max_line_bytes: int,
    max_total_bytes: int = DEFAULT_MAX_TOTAL_BYTES,
    options: dict[str, Any] | None = None,
) -> Importer:
    """An importer with the installation's limits, unless `options` state others."""
    given = dict(options or {})
    for name, limit in (("max_line_bytes", max_line_bytes), ("max_total_bytes", max_total_bytes)):
        if name in plugin.Options.model_fields:
            given.setdefault(name, limit)
    made = plugin.from_dict(given)
    if not isinstance(made, Importer):
        raise TypeError(f"{plugin.__qualname__} is a {plugin.kind or 'plugin'}; expected an importer")
    return made
