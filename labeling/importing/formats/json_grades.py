"""The format `qrels-json`: grades, or a run, as ranx and MTEB write them, {"q1": {"d1": 2}}. Imports no Django."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Any, Literal

import pydantic

from labeling.importing.formats import fields
from labeling.importing.formats.line_importer import LineOptions, Row, RowImporter
from labeling.importing.json_stream import json_members
from labeling.importing.lines import RowError
from labeling.plugins import register
from labeling.records import ImportedCandidate, ImportedGrade

_START = re.compile(rb'\{\s*"[^"]*"\s*:\s*\{\s*"[^"]*"\s*:\s*(?:-?[0-9]|"-?[0-9.]+"|null|true|false|NaN)')


class JsonGradesOptions(LineOptions):
    values: Literal["grades", "scores"] = pydantic.Field(
        default="grades", description="Whether the numbers are a person's grades, or the scores of a run."
    )
    negative: Literal["irrelevant", "ungraded"] = pydantic.Field(
        default="irrelevant", description="Grades below 0: irrelevant (grade 0), or ungraded (left out)."
    )


@register
class JsonGrades(RowImporter):
    """A JSON object of queries, each an object of documents with numbers: qrels or a run of ranx, MTEB or pytrec_eval.

    Numbers are grades; the option `values` makes them the scores of a run, whose order is that of trec_eval. The line of an
    error is the number of the query in the file.
    """

    name = "qrels-json"
    label = "ranx or MTEB JSON (grades or run)"
    format_help = (
        'One JSON object: {"query id": {"document id": grade}}. The option `values` reads scores of a run instead.'
    )
    example = b'{"q1": {"d1": 3, "d2": 0},\n "q2": {"d2": 2}}\n'
    Options = JsonGradesOptions
    options: JsonGradesOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        start = head.lstrip(b"\xef\xbb\xbf \r\n\t")[:2000]
        return 0.9 if _START.match(start) else 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        limits = self.options.max_line_bytes, self.options.max_total_bytes
        for number, member in json_members(stream, *limits, kind="object"):
            if isinstance(member, RowError):
                yield member
                continue
            query, documents = member
            try:
                yield from list(self._rows(query, documents, number))
            except RowError as error:
                yield error

    def _rows(self, query: str, documents: Any, line: int) -> Iterator[Row]:
        query_id = fields.identifier(query, "query id", line)
        if not isinstance(documents, dict):
            raise RowError(
                f"the query {query_id[:80]!r} has no object of documents",
                line=line,
                expectation="an object of document ids with numbers",
                remedy='write {"query id": {"document id": 1}}',
            )
        for document, value in documents.items():
            document_id = fields.identifier(document, "document id", line)
            if self.options.values == "scores":
                yield ImportedCandidate(query_id, document_id, score=fields.score(value, line), line=line)
                continue
            grade = fields.grade(value, line)
            if grade >= 0 or self.options.negative == "irrelevant":
                yield ImportedGrade(query_id, document_id, max(grade, 0), line=line)
