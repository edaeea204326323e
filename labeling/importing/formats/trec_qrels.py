"""The format `trec-qrels`: human grades in three or four columns. Imports no Django."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import IO, Literal

import pydantic

from labeling.importing.formats import fields
from labeling.importing.formats.fields import decoded, text_lines
from labeling.importing.formats.line_importer import LineImporter, LineOptions, Row
from labeling.importing.lines import RowError
from labeling.importing.strict_json import quoted
from labeling.plugins import register
from labeling.records import ImportedGrade

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_COMMENT = re.compile(r"[ \t]+#")
MOST_HASHES = 8  # in a line, of which one may begin a comment
_BLANKS = " \t\n\r\v\f"
_FIELD = re.compile(r'"(?:[^"]|"")*"(?=[ \r\v\f]|$)|[^ \r\v\f]+')
_ITERATION = re.compile(r"Q?[0-9]+")
_ITERATION_AND_BLANK = re.compile(r"Q?[0-9]+ ")

# Column names of headers, after lower() and without blanks, hyphens and underscores.
_QUERY_NAMES = re.compile(r"(?:query|topic|q|question|search)(?:s?id|no|num|number)?")
_DOCUMENT_NAMES = re.compile(
    r"(?:corpus|doc|document|passage|product|item|para|paragraph|p|d|docs)(?:id|no|num|number)?"
)
_GRADE_NAMES = re.compile(r"(?:score|rel|relevance|relevancy|grade|label|judge?ment|rating|qrel|gain)s?")


class QrelsOptions(LineOptions):
    negative: Literal["irrelevant", "ungraded"] = pydantic.Field(
        default="irrelevant", description="Grades below 0: irrelevant (grade 0), or ungraded (left out)."
    )
    repeated: Literal["refuse", "maximum"] = pydantic.Field(
        default="refuse",
        description="Different grades of one document, for example one for each subtopic: refuse them, or keep the maximum.",
    )


@register
class TrecQrels(LineImporter):
    """Human grades in TREC's four columns, or in three (query, document, grade).

    Columns are split at tabs if a line has any, else at ASCII blanks; a field may be quoted. Header lines and comments
    (`#`) are skipped. Grades are whole numbers, `1.0` too.
    """

    name = "trec-qrels"
    label = "TREC qrels (grades)"
    format_help = (
        "Columns separated by tabs or blanks: query id, 0, document id, grade (a whole number); the 0 may be left out, "
        "and a header line is skipped."
    )
    example = b"q1 0 d1 3\nq1 0 d2 0\nq2 0 d2 2\n"

    Options = QrelsOptions
    options: QrelsOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        rows = [_columns(line) for line in text_lines(head)[:20] if not line.startswith("#")]
        rows = rows[1:] if rows and _is_header(rows[0]) else rows
        looks = [len(row) in (3, 4) and _NUMBER.fullmatch(row[-1]) is not None for row in rows]
        if not looks or 2 * sum(looks) < len(looks):
            return 0.0
        if not all(looks):
            return 0.3  # its bad lines are named
        return 0.9 if all(len(row) == 4 for row in rows) or "qrel" in filename.lower() else 0.6

    _width = 0  # columns of the rows since the last header, 0 before the first row
    _iteration = ""  # the second of four columns in the first row

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        """Rows in the order of the file; with `repeated: maximum` all errors first, then one row a document."""
        self._width, self._iteration = 0, ""
        rows = super().read_all(stream, parts=parts)
        return rows if self.options.repeated == "refuse" else _largest_grades(rows)

    def parse_line(self, body: bytes, line: int) -> ImportedGrade | None:
        text = decoded(body, line).strip(_BLANKS)
        columns = _columns(text)
        if _is_header(columns):
            self._width = len(columns)
            return None
        if text.startswith("#") and not _is_row(columns):
            return None
        query, document, grade = _three(columns, text, line)
        self._check_width(len(columns), line)
        if len(columns) == 4:
            self._check_iteration(columns[1], document, line)
        for field, identifier in (("query id", query), ("document id", document)):
            fields.identifier(identifier, field, line)
        value = fields.grade(grade, line)
        if value < 0 and self.options.negative == "ungraded":
            return None
        return ImportedGrade(query_id=query, document_id=document, grade=max(value, 0), line=line)

    def _check_iteration(self, iteration: str, document: str, line: int) -> None:
        """A run of query, document, rank and score would be read as grades of documents that have the ranks as ids."""
        self._iteration = self._iteration or iteration
        if iteration != self._iteration and document.isdigit() and not _ITERATION.fullmatch(iteration):
            raise RowError(
                f"has {quoted(iteration)} in the second of four columns and a number in the third, as a run has",
                line=line,
                expectation="query id, 0, document id, grade",
                remedy="import a run as TREC run, in six columns",
                ends_file=True,
            )

    def _check_width(self, width: int, line: int) -> None:
        """A row of four columns that lost one would be read as a row of three, with another id."""
        self._width = self._width or width
        if width != self._width:
            raise RowError(
                f"has {width} columns, where the lines before have {self._width}",
                line=line,
                expectation="the same columns in every line",
                remedy="add the missing column, or import the lines as two files",
            )


def _largest_grades(rows: Iterator[Row | RowError]) -> Iterator[Row | RowError]:
    largest: dict[tuple[str, str], ImportedGrade] = {}
    for row in rows:
        if not isinstance(row, ImportedGrade):
            yield row
            continue
        kept = largest.setdefault((row.query_id, row.document_id), row)
        if row.grade > kept.grade:
            largest[row.query_id, row.document_id] = row
    yield from largest.values()


def _columns(text: str) -> list[str]:
    """The columns of a row, without a comment behind it where they do not fit with it."""
    found = _split(text)
    return found if "#" not in text or _is_row(found) else _split(_without_comment(text))


def _split(text: str) -> list[str]:
    """Split at tabs if there are any and they give three or four columns, else at ASCII blanks."""
    if "\t" in text:
        for found in (text.split("\t"), re.split("\t+", text)):
            if len(found) in (3, 4):
                return [_unquoted(field.strip(_BLANKS)) for field in found]
    return [_unquoted(field) for field in _FIELD.findall(text.replace("\t", " ").replace("\n", " "))]


def _without_comment(text: str) -> str:
    """A row without a comment behind its grade; a `#` elsewhere may belong to an id."""
    for mark in itertools.islice(_COMMENT.finditer(text), MOST_HASHES):
        if _is_row(_split(text[: mark.start()])):
            return text[: mark.start()]
    return text


def _unquoted(field: str) -> str:
    if len(field) >= 2 and field[0] == field[-1] == '"':
        return field[1:-1].replace('""', '"')
    return field


def _is_header(columns: list[str]) -> bool:
    if len(columns) not in (3, 4):
        return False
    query, document, grade = (re.sub("[-_ ]", "", columns[place].lower()) for place in (0, -2, -1))
    return bool(_QUERY_NAMES.fullmatch(query) and _DOCUMENT_NAMES.fullmatch(document) and _GRADE_NAMES.fullmatch(grade))


def _is_row(columns: list[str]) -> bool:
    """True for a row whose query id begins with `#`."""
    return len(columns) in (3, 4) and columns[0] != "#" and bool(_NUMBER.fullmatch(columns[-1]))


def _three(columns: list[str], text: str, line: int) -> tuple[str, str, str]:
    """Query id, document id and grade. Raises RowError for another number of columns."""
    if len(columns) not in (3, 4):
        raise RowError(
            fields.width_problem(len(columns), text),
            line=line,
            expectation="four: query id, 0, document id, grade, or three without the 0",
            remedy="separate the columns by tabs if ids contain blanks; a run file (six columns) holds no grades",
        )
    if len(columns) == 3 and "\t" in text and _ITERATION_AND_BLANK.match(columns[1]):
        raise RowError(
            f"separates columns by tabs and by blanks ({quoted(columns[1])})",
            line=line,
            expectation="one kind of separator in a line",
            remedy="separate all columns by tabs",
        )
    return columns[0], columns[-2], columns[-1]
