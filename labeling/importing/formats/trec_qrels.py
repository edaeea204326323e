"""The format `trec-qrels`: human grades in four columns. Imports no Django."""

from __future__ import annotations

import re

from labeling.importing.formats.line_importer import LineImporter, check_identifier
from labeling.importing.lines import RowError
from labeling.importing.strict_json import BadJson, check_text, printable
from labeling.plugins import register
from labeling.records import ImportedGrade

MAX_GRADE = 2**15 - 1


@register
class TrecQrels(LineImporter):
    """Human grades in TREC's four columns. A grade below 0 (TREC's mark for spam) becomes 0."""

    name = "trec-qrels"
    label = "TREC qrels (grades)"
    format_help = "Four columns per line, separated by spaces or tabs: query id, 0, document id, grade (an integer)."
    example = b"q1 0 d1 3\nq1 0 d2 0\nq2 0 d2 2\n"

    _GRADE = re.compile(r"[+-]?[0-9]{1,6}")

    def parse_line(self, body: bytes, line: int) -> ImportedGrade:
        columns = _decoded(body, line).split()
        if len(columns) != 4:
            raise RowError(
                f"has {len(columns)} columns",
                line=line,
                expectation="four: query id, 0, document id, grade",
                remedy="remove spaces from ids; a run file (six columns) holds no grades",
            )
        for field, identifier in (("query id", columns[0]), ("document id", columns[2])):
            try:
                check_text(identifier)
                check_identifier(identifier, field)
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
                remedy="round the grade; a larger grade means more relevant",
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
