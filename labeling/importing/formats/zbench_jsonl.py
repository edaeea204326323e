"""The format `zbench-jsonl`: one query with its documents per line. Imports no Django."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import IO, Any

from labeling.importing.formats.line_importer import LineImporter, Row
from labeling.importing.formats.value_checks import MAX_GRADE, check_identifier, is_blank, is_plain_identifier
from labeling.importing.json_stream import json_members
from labeling.importing.lines import RowError, is_spread, rejoined, spread_over_lines
from labeling.importing.strict_json import BadJson, check_part, has_odd_texts, is_plain, parse, printable, quoted
from labeling.plugins import register
from labeling.records import ImportedDocument, ImportedQuery

MAX_RANK = 2**31 - 1


@register
class ZbenchJsonl(LineImporter):
    """A query with its documents on each line, as the annotator zbench reads it.

    Documents may have the first-stage `rank` (from 1) and `score`, and a person's `grade`. A document with `elo` comes from
    an export: its `score` is a result, and the first stage's is `first_stage_score`. Unknown keys are checked as JSON and ignored.
    """

    name = "zbench-jsonl"
    label = "zbench JSONL"
    format_help = (
        'One JSON object per line: {"query": {"id", "query"}, "documents": [{"id", "content", "metadata"}]}; '
        'documents may have "rank", "score" and "grade", and may be [] if a retriever finds the candidates.'
    )
    example = (
        b'{"query": {"id": "q1", "query": "do goldfish grow"}, "documents": [{"id": "d1", "content": '
        b'"Goldfish grow as long as they live.", "metadata": {"source": "pond"}}, {"id": "d2", "content": '
        b'"Bread is baked from flour.", "rank": 2, "score": 0.5}]}\n'
        b'{"query": {"id": "q2", "query": "what is bread made of"}, "documents": [{"id": "d2", "content": '
        b'"Bread is baked from flour."}]}\n'
    )

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        start = head.lstrip(b"\xef\xbb\xbf \r\n\t")[:2000]
        is_object = start.startswith(b"{") and b'"query"' in start
        return 0.95 if (is_object or _ARRAY.match(start)) and b'"documents"' in head else 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        """Rows and errors; the line of one in a JSON array is the number of the object."""
        head, whole = rejoined(stream, _HEAD_BYTES)
        if not _ARRAY.match(head.lstrip(b"\xef\xbb\xbf \r\n\t")):
            yield from super().read_all(whole, parts=parts)
            return
        limits = self.options.max_line_bytes, self.options.max_total_bytes
        for number, value in json_members(whole, *limits, kind="array"):
            rows = iter([value]) if isinstance(value, RowError) else self._parts(value, number)
            yield from rows if parts else _first_error(rows)

    def parse_line(self, body: bytes, line: int) -> ImportedQuery:
        for part in self.parse_parts(body, line):
            if isinstance(part, RowError):
                raise part
            return part
        raise AssertionError("a line has at least one part")

    def parse_parts(self, body: bytes, line: int) -> Iterator[ImportedQuery | RowError]:
        """Yield the errors of bad documents and the query with the good ones; a bad query spoils its line."""
        if is_spread(body):
            yield spread_over_lines(line)
            return
        try:
            value = parse(body, check=False)
        except BadJson as error:
            yield _row_error(error if body.lstrip()[:1] in _JSON_STARTS else _no_json(body), line)
            return
        yield from self._parts(value, line, has_odd_texts=has_odd_texts(body))

    def _parts(self, value: Any, line: int, *, has_odd_texts: bool = True) -> Iterator[ImportedQuery | RowError]:
        try:
            row, errors = _query(value, line, has_odd_texts=has_odd_texts)
        except BadJson as error:
            yield _row_error(error, line)
            return
        yield from (_row_error(error, line) for error in errors)
        if row is not None:
            yield row


def _first_error(rows: Iterator[ImportedQuery | RowError]) -> Iterator[ImportedQuery | RowError]:
    """The row of a line, or its first error."""
    yield next(rows)


_HEAD_BYTES = 4096
_ARRAY = re.compile(rb'\[\s*\{\s*"query"\s*:\s*\{')
_JSON_STARTS = (b"{", b"[", b'"', b"n")


def _no_json(body: bytes) -> BadJson:
    """The error of a line of another format, which nothing recognised."""
    return BadJson(
        f"begins with {quoted(body[:40].decode('utf-8', 'replace'))}: not JSON",
        expectation="one JSON object on one line",
        remedy="choose the file's format; no format recognises this file automatically",
    )


def _row_error(error: BadJson, line: int) -> RowError:
    return RowError(error.problem, line=line, field=error.field, expectation=error.expectation, remedy=error.remedy)


_SHAPE = 'write {"query": {"id": ..., "query": ...}, "documents": [{"id": ..., "content": ...}]} ([] to retrieve them)'


def _query(value: Any, line: int, *, has_odd_texts: bool) -> tuple[ImportedQuery | None, list[BadJson]]:
    """Return a query with its good documents (None if no document is good), and the errors of the others."""
    top = _typed(value, dict, "", "a JSON object", _SHAPE)
    for key, item in top.items():
        check_part(key, "")
        if key != "documents":
            check_part(item, printable(key))
    query = _typed(_member(top, "query", ""), dict, "query", "a JSON object", _SHAPE)
    listed = _typed(_member(top, "documents", ""), list, "documents", "a list of documents", _SHAPE)
    identifier, text, metadata = _identifier(query, "query"), _text(query, "query", "query"), _metadata(query, "query")
    documents, errors = _documents(listed, has_odd_texts=has_odd_texts)
    if errors and not documents:
        return None, errors
    return ImportedQuery(id=identifier, text=text, documents=documents, metadata=metadata, line=line), errors


def _documents(listed: list[Any], *, has_odd_texts: bool) -> tuple[tuple[ImportedDocument, ...], list[BadJson]]:
    kept: list[ImportedDocument] = []
    errors: list[BadJson] = []
    first: dict[str, int] = {}
    for position, item in enumerate(listed):
        try:
            document = None if has_odd_texts else _plain_document(item)
            if document is None:
                path = f"documents[{position}]"
                check_part(item, path)
                document = _document(item, path)
            _check_once(document.id, position, first)
            kept.append(document)
        except BadJson as error:
            errors.append(error)
    return tuple(kept), errors


def _plain_document(item: Any) -> ImportedDocument | None:
    """The document, if it is as nearly all are; None for those that need a closer look, among them all bad ones."""
    if type(item) is not dict or "elo" in item or not is_plain(item):
        return None
    identifier, text, metadata = item.get("id"), item.get("content"), item.get("metadata")
    rank, score, grade = item.get("rank"), item.get("score"), item.get("grade")
    if (
        type(identifier) is str
        and is_plain_identifier(identifier)
        and type(text) is str
        and "!" <= text[:1] <= "~"
        and (metadata is None or type(metadata) is dict)
        and (rank is None or (type(rank) is int and 1 <= rank <= MAX_RANK))
        and (score is None or type(score) is float)
        and (grade is None or (type(grade) is int and 0 <= grade <= MAX_GRADE))
    ):
        return ImportedDocument(identifier, text, metadata or {}, rank, score, grade)
    return None


def _document(value: Any, path: str) -> ImportedDocument:
    item = _typed(value, dict, path, "a JSON object", _SHAPE)
    return ImportedDocument(
        id=_identifier(item, path),
        text=_text(item, "content", path),
        metadata=_metadata(item, path),
        rank=_rank(item, path),
        score=_score(item, path, "first_stage_score" if "elo" in item else "score"),
        grade=_grade(item, path),
    )


def _check_once(identifier: str, position: int, first: dict[str, int]) -> None:
    if (earlier := first.setdefault(identifier, position)) != position:
        raise BadJson(
            f"the document id {quoted(identifier)} is already used by documents[{earlier}]",
            expectation="every document once in a query",
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
    if is_blank(text):
        raise BadJson(
            "is empty", expectation="a text with at least one visible character", remedy="leave it out", field=field
        )
    return text


def _identifier(owner: dict[str, Any], path: str) -> str:
    field = f"{path}.id"
    given = _member(owner, "id", path)
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    value: str = _typed(given, str, field, "a string or an integer", "write all ids in double quotes")
    check_identifier(value, field)
    return value


def _metadata(owner: dict[str, Any], path: str) -> dict[str, Any]:
    if owner.get("metadata") is None:
        return {}
    value: dict[str, Any] = _typed(
        owner["metadata"], dict, f"{path}.metadata", "a JSON object", "write {} or leave metadata out"
    )
    return value


def _rank(owner: dict[str, Any], path: str) -> int | None:
    given = owner.get("rank")
    if given is None:
        return None
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, float):
        raise BadJson(
            f"is {given}",
            expectation="an integer",
            remedy="write the first stage's rank, or leave it out",
            field=f"{path}.rank",
        )
    rank: int = _typed(given, int, f"{path}.rank", "an integer", "write the first stage's rank, or leave it out")
    if not 1 <= rank <= MAX_RANK:
        raise BadJson(
            f"is {rank}",
            expectation=f"a rank from 1 to {MAX_RANK}",
            remedy="count ranks from 1",
            field=f"{path}.rank",
        )
    return rank


def _grade(owner: dict[str, Any], path: str) -> int | None:
    value = owner.get("grade")
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_GRADE:
        raise BadJson(
            f"is {_named(value)}" if not isinstance(value, int | float) else f"is {value}",
            expectation=f"a whole number from 0 to {MAX_GRADE}",
            remedy="write a person's grade, or leave it out",
            field=f"{path}.grade",
        )
    return value


def _score(owner: dict[str, Any], path: str, key: str) -> float | None:
    value = owner.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadJson(
            f"is {_named(value)}",
            expectation="a finite number",
            remedy="write the first stage's score, or leave it out",
            field=f"{path}.{key}",
        )
    return float(value)
