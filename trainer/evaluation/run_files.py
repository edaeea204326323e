"""Reads run files of existing systems: TREC runs and the variants that toolkits write. Imports no Django.

`trainer.evaluation.rankers.RunFile` turns a run into an order, `trainer.evaluation.entries` stores the file.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np

from labeling.importing.formats.run_ranks import RankColumn, third_is_rank
from labeling.importing.lines import RowError, damaged, is_spread, numbered_lines, open_stream, spread_over_lines

Run = dict[str, dict[str, float]]

RUN_LINE = "query Q0 document rank score tag"
NAMED = "query_id, doc_id and score (or rank)"
DIALECTS = (
    f"a TREC run ({RUN_LINE}; the tag may be missing), query document score, query document rank, each separated by blanks, tabs, "
    f"commas or semicolons, a header that names {NAMED}, JSON Lines with these fields, or JSON {{query: {{document: score}}}}"
)
MOST_LINE_BYTES = 16 * 1024 * 1024  # rows may hold the texts
MOST_RUN_BYTES = 4 * 1024 * 1024 * 1024
MOST_JSON_BYTES = 512 * 1024 * 1024
_LARGEST = float(np.finfo(np.float32).max)
_BLANKS = re.compile(r"[ \t\x0b\x0c]+")
_LINE_END = re.compile(r"\r\n?|\n")
_SEPARATORS = (",", ";")
# Names without case, blanks, - and _; ids before names that other columns may have for texts.
_QUERY = ("queryid", "qid", "topicid", "topic", "query")
_DOCUMENT = ("corpusid", "docno", "docid", "documentid", "passageid", "pid", "document", "doc")
_SCORE, _RANK = ("score", "sim", "similarity", "relevancescore"), ("rank", "position")
_OF_ROW = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*[^\s{]')
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_JSON = "export the run in TREC's format"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Positions of the fields in a line; `is_rank` None where the third column may be a score or a rank; `rank`: that beside a score."""

    columns: int
    query: int
    document: int
    value: int
    is_rank: bool | None
    rank: int | None = None
    has_names: bool = False

    @property
    def is_fourth(self) -> bool:
        return self.columns == 4 and not self.has_names


_LAYOUTS = {
    6: _Layout(6, 0, 2, 4, False, rank=3),
    5: _Layout(5, 0, 2, 4, False, rank=3),
    4: _Layout(4, 0, 1, 3, False, rank=2),
    3: _Layout(3, 0, 1, 2, None),
}


@dataclass(slots=True)
class _Reader:
    run: Run = field(default_factory=dict)
    layout: _Layout | None = None
    ranks: RankColumn = field(default_factory=RankColumn)

    def add(self, words: list[str], line: int) -> None:
        is_first = self.layout is None
        if self.layout is None:
            self.layout = _header(words)
            if self.layout is not None:
                _check_header(words, self.layout, line)
                return
            self.layout = _LAYOUTS.get(len(words))
        if self.layout is None or len(words) != self.layout.columns:
            expected = DIALECTS if self.layout is None else f"{self.layout.columns} columns as in the first line"
            raise RowError(
                f"the line has {len(words)} column{'' if len(words) == 1 else 's'}: {' '.join(words)[:100]!r}",
                line=line, field="columns", expectation=expected, remedy="export the run in TREC's format",
            )  # fmt: skip
        if is_first and not _is_plain(words):
            raise RowError(
                f"is neither a row of a run nor a known header: {' '.join(words)[:100]!r}",
                line=line, field="columns", expectation=f"a header that names {NAMED}", remedy="rename the columns",
            )  # fmt: skip
        query, document = words[self.layout.query], words[self.layout.document]
        score = _number(words[self.layout.value], line)
        self.store(query, document, _rank(score, line) if self.layout.is_rank else score, line)
        if self.layout.rank is not None:
            self.ranks.add(query, words[self.layout.rank], score, line, is_fourth=self.layout.is_fourth)

    def add_object(self, pairs: list[tuple[str, Any]], line: int) -> None:
        """A row of JSON; the first one says whether scores or ranks count."""
        names = [_plain_name(name) for name, _ in pairs]
        found = dict(zip(names, (value for _, value in pairs), strict=True))
        if self.layout is None:
            is_rank = not any(name in found for name in _SCORE)
            self.layout = _Layout(0, 0, 0, 0, is_rank, has_names=True)
        places = {"query": _QUERY, "document": _DOCUMENT, "score": _RANK if self.layout.is_rank else _SCORE}
        values = {}
        for field_name, known in places.items():
            name = next((each for each in known if each in found), None)
            if name is None:
                raise RowError(
                    f"the row has no {'rank' if known is _RANK else field_name}: its fields are {', '.join(n for n, _ in pairs)[:100]}",
                    line=line, field=field_name, expectation=f"the fields {NAMED}, the same in every row",
                    remedy="rename the fields",
                )  # fmt: skip
            if names.count(name) > 1:
                raise _twice(f"the field {name!r}", line)
            values[field_name] = found[name]
        query, document = (_identifier(values[name], name, line) for name in ("query", "document"))
        score = _json_number(values["score"], line)
        self.store(query, document, _rank(score, line) if self.layout.is_rank else score, line)
        if (beside := next((found[each] for each in _RANK if each in found), None)) is not None:
            self.ranks.add(query, beside, -score if self.layout.is_rank else score, line, is_fourth=False)

    def store(self, query: str, document: str, score: float, line: int) -> None:
        if not query or not document:
            raise RowError(
                "is empty", line=line, field="document" if query else "query", expectation="an imported id",
                remedy="write the id, or leave out the line",
            )  # fmt: skip
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
        self.ranks.finish(line, is_fourth=self.layout is not None and self.layout.is_fourth)
        is_rank = self.layout.is_rank if self.layout is not None else False
        if third_is_rank(self.run, line) if is_rank is None else is_rank:
            return {query: {document: -rank for document, rank in own.items()} for query, own in self.run.items()}
        return self.run


def read_run(stream: IO[bytes]) -> Run:
    """Scores by query and document of a run file, plain or gzipped; a rank becomes the negated rank.

    Columns are separated by commas or semicolons if the first line is read so, else by tabs if the line has any, else by
    blanks; between tabs, quotes are left out where a CSV writer has put them. A header, comments (#) and byte order marks are
    left out. TREC's rank column does not count, as in trec_eval.
    JSON is one object by query, rows in a list, or rows one a line. Raises RowError that names the line.
    """
    csv.field_size_limit(max(MOST_LINE_BYTES, csv.field_size_limit()))
    try:
        return _read(open_stream(stream, MOST_RUN_BYTES))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged(1, error) from None


def _read(whole: io.BufferedReader) -> Run:
    start = whole.peek(4096)[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"{" and _OF_ROW.match(start.decode("utf-8", errors="replace")):
        return _of_json_lines(whole)
    if start[:1] in (b"{", b"["):
        return _of_json(whole)
    reader, number = _Reader(), 1
    separator: str | None = None
    for number, text in _texts(whole):
        if reader.layout is None:
            separator = _separator(text)
        elif not reader.run and "\t" in text and _is_quoted(text):  # below a header without quotes
            separator = "\t"
        words = _cells(text, separator, number) if separator and not text.startswith("# ") else _words(text)
        if not (
            text.startswith("#") and _is_comment(words, reader.layout, by_blanks=not separator and "\t" not in text)
        ):
            reader.add(words, number)
    return reader.finished(number)


def _is_comment(words: list[str], layout: _Layout | None, *, by_blanks: bool) -> bool:
    """Whether a line that begins with # is no row: ids may begin with # too."""
    if words[0] == "#":
        return True
    if layout is not None:
        return len(words) != layout.columns or not _reads_as_number(words[layout.value])
    # Before the first row, few words separated by blanks may be a comment such as "#depth = 1000".
    return not (len(words) in _LAYOUTS and _is_plain(words)) or (by_blanks and len(words) != 6)


def _words(text: str) -> list[str]:
    has_tabs = "\t" in text
    words = (_written_cells(text) or text.split("\t")) if has_tabs else _BLANKS.split(text.strip(" \x0b\x0c"))
    return [word.strip(" ") for word in words]


def _written_cells(text: str) -> list[str] | None:
    """The cells of a line with tabs if a CSV writer would have written it so: all quoted, or those that need quotes.

    Other quotes belong to the ids.
    """
    if '"' not in text:
        return None
    try:
        (cells,) = csv.reader([text], delimiter="\t", strict=True)
    except csv.Error:
        return None
    return cells if text in (_written(cells, csv.QUOTE_MINIMAL), _written(cells, csv.QUOTE_ALL)) else None


def _written(cells: list[str], quoting: Literal[0, 1]) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter="\t", quoting=quoting, lineterminator="").writerow(cells)
    return line.getvalue()


def _cells(text: str, separator: str, line: int) -> list[str]:
    """The cells of a CSV line; quotes may hold the separator."""
    try:
        (cells,) = csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise RowError(
            f"is not CSV: {error}", line=line, expectation="quotes that are closed in the same line",
            remedy=_JSON,
        ) from None  # fmt: skip
    return [cell.strip(" ") for cell in cells]


def _separator(text: str) -> str | None:
    """The separator of a first line that is CSV; None for other dialects, whose ids may have commas and semicolons."""
    words = _words(text)
    is_row = len(words) in _LAYOUTS and _is_plain(words)
    if "\t" in text:
        with contextlib.suppress(RowError):
            cells = _cells(text, "\t", 1)
            if _is_quoted(text) and (_header(cells) or (len(cells) in _LAYOUTS and _is_plain(cells))):
                return "\t"
        if is_row or _header(words):
            return None
    split: dict[str, list[str]] = {}
    for each in _SEPARATORS:
        with contextlib.suppress(RowError):
            split[each] = _cells(text, each, 1)
    likely = (
        sep for sep, cells in split.items()
        if _header(cells) or (len(cells) in _LAYOUTS and _is_plain(cells) and not _has_tag_with(sep, words))
    )  # fmt: skip
    if (sure := next(likely, None)) is not None or is_row:
        return sure
    return next((each for each in _SEPARATORS if text.count(each) > 1), None)  # an unknown header, or a bad row


def _is_quoted(text: str) -> bool:
    """Whether all cells between tabs stand in quotes, but for numbers and empty ones."""
    rest = _QUOTED.sub("", text)
    return rest != text and all(not cell or _reads_as_number(cell) for cell in rest.split("\t"))


def _has_tag_with(separator: str, words: list[str]) -> bool:
    """Whether the words are a row of TREC that has the separator, but for a decimal comma, in its tag alone."""
    return len(words) == 6 and all(map(_reads_as_number, words[3:5])) and separator not in "".join(words[:4])


def _is_plain(words: list[str]) -> bool:
    """Whether a line without a header can be a row: its score is a number, and so is the rank of four columns."""
    layout = _LAYOUTS.get(len(words))
    numbers = [] if layout is None else [words[layout.value], *([words[2]] if layout.columns == 4 else [])]
    return all(map(_reads_as_number, numbers))


def _reads_as_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))  # a decimal comma has an error of its own
    except ValueError:
        return False
    return True


def _texts(stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    for number, body in numbered_lines(stream, MOST_LINE_BYTES, MOST_RUN_BYTES):
        if isinstance(body, RowError):
            raise body if body.ends_file else _too_long(body)
        for line in body.split(b"\r"):  # files of old Macs have no other line end
            kept = line.removeprefix(b"\xef\xbb\xbf").strip(b"\x1a")
            if kept.strip():
                yield number, _decoded(kept, number)


def _too_long(error: RowError) -> RowError:
    return RowError(
        error.problem,
        line=error.line,
        expectation=error.expectation,
        remedy="leave out the texts; a run needs ids and scores",
    )


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
    names = [_plain_name(word) for word in words]
    places = [
        next((names.index(name) for name in known if name in names), None)
        for known in (_QUERY, _DOCUMENT, _SCORE, _RANK)
    ]
    query, document, score, rank = places
    value = score if score is not None else rank
    if query is None or document is None or value is None:
        return None
    return _Layout(
        len(words), query, document, value, score is None, rank=rank if score is not None else None, has_names=True
    )


def _check_header(words: list[str], layout: _Layout, line: int) -> None:
    """Raise RowError if two columns have the name of one that counts."""
    names = [_plain_name(word) for word in words]
    for place in (layout.query, layout.document, layout.value):
        if names.count(names[place]) > 1:
            raise _twice(f"the column {words[place]!r}", line)


def _twice(what: str, line: int) -> RowError:
    return RowError(f"{what} appears twice", line=line, expectation="each name once", remedy="remove or rename one")


def _plain_name(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.strip(' "').lower())


def _number(text: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # float() reads the digits of all scripts, and 1_0.
    if math.isnan(value) or abs(value) > _LARGEST or "_" in text or not text.isascii():
        raise RowError(
            f"is {text[:40]!r}",
            line=line, field="score", expectation="a finite number in the range of a 32-bit float",
            remedy="write it with a decimal point" if "," in text else "leave out documents without a score",
        )  # fmt: skip
    return value


def _rank(value: float, line: int) -> float:
    if value >= 0.0:
        return value
    raise RowError(
        f"is {value:g}", line=line, field="rank", expectation="a rank from 0 or 1",
        remedy="name the column score if higher is better",
    )  # fmt: skip


def _of_json_lines(stream: IO[bytes]) -> Run:
    """A row of JSON on each line."""
    reader, number = _Reader(), 1
    for number, text in _texts(stream):
        if is_spread(text.encode()):
            raise spread_over_lines(number)
        _add_json(reader, _parsed(text, number), number)
    return reader.finished(number)


def _of_json(stream: IO[bytes]) -> Run:
    """One object by query, one such object a line, or a list of rows."""
    content = stream.read(MOST_JSON_BYTES + 1)
    if len(content) > MOST_JSON_BYTES:
        raise RowError(
            f"the JSON run is longer than {MOST_JSON_BYTES} bytes", line=1, expectation="a shorter file", remedy=_JSON
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RowError("is not UTF-8", line=line, expectation="UTF-8 text", remedy="save the file as UTF-8") from None
    reader, number = _Reader(), 1
    try:
        _add_json(reader, _parsed(text, 1), 1)
    except _MoreJson:
        reader = _Reader()
        for number, row in enumerate(_LINE_END.split(text), start=1):
            if row.strip():
                _add_json(reader, _parsed(row, number), number)
    return reader.finished(number)


class _MoreJson(RowError):
    """Another JSON value follows the first one."""


def _parsed(text: str, line: int) -> Any:
    """The JSON value, its objects as `_Fields`, so that no duplicate is lost. Raises RowError."""
    try:
        return json.loads(text, object_pairs_hook=_Fields)
    except json.JSONDecodeError as error:
        kind = _MoreJson if error.msg == "Extra data" else RowError
        raise kind(
            f"is not JSON: {error.msg}", line=line + error.lineno - 1, expectation=DIALECTS, remedy="export it again"
        ) from None
    except (RecursionError, ValueError) as error:
        raise RowError(f"is not JSON: {error}", line=line, expectation=DIALECTS, remedy=_JSON) from None


class _Fields(list[tuple[str, Any]]):
    """The fields of a JSON object, in order."""


def _add_json(reader: _Reader, found: Any, line: int) -> None:
    """Add an object, or a list of them, whose errors name the place in the list."""
    if isinstance(found, _Fields) or not isinstance(found, list):
        _add_json_object(reader, found, line)
        return
    for place, each in enumerate(found, start=1):
        try:
            _add_json_object(reader, each, line)
        except RowError as error:
            raise RowError(
                f"entry {place} of the list: {error.problem}",
                line=line, field=error.field, expectation=error.expectation, remedy=error.remedy,
            ) from None  # fmt: skip


def _add_json_object(reader: _Reader, found: Any, line: int) -> None:
    if not isinstance(found, _Fields):
        raise RowError(f"is {str(found)[:40]!r}", line=line, expectation=f"an object with {NAMED}", remedy=_JSON)
    is_row = any(not isinstance(value, _Fields) for _, value in found)
    if is_row and {_plain_name(name) for name, _ in found} & {*_QUERY, *_DOCUMENT}:
        reader.add_object(found, line)
    else:
        _add_queries(reader, found, line)


def _add_queries(reader: _Reader, found: _Fields, line: int) -> None:
    for query, own in found:
        if not isinstance(own, _Fields):
            raise RowError(
                f"query {query!r} has no object of scores", line=line, expectation="{query: {document: score}}",
                remedy=_JSON,
            )  # fmt: skip
        if query in reader.run:
            raise RowError(
                f"query {query!r} appears twice", line=line, expectation="each query once", remedy="remove one"
            )
        reader.run[query] = {}
        for document, score in own:
            reader.store(
                query, document, _json_number(score, line, of=f"document {document!r} of query {query!r}"), line
            )


def _json_number(score: Any, line: int, *, of: str = "the row") -> float:
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise RowError(
            f"{of} has the score {str(score)[:40]!r}",
            line=line, field="score", expectation="a number", remedy="leave out documents without a score",
        )  # fmt: skip
    return _number(repr(score), line)


def _identifier(value: Any, name: str, line: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(
            f"is {str(value)[:40]!r}",
            line=line, field=name, expectation="an id, a text or a whole number", remedy="write the imported id",
        )  # fmt: skip
    return str(value)
