"""The formats `ms-marco-texts`, `ms-marco-top` and `ms-marco-triples`: MS MARCO's TSV files. Imports no Django."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Literal

import pydantic

from labeling.importing.formats import fields
from labeling.importing.formats.fields import decoded, text_lines
from labeling.importing.formats.line_importer import LineImporter, LineOptions, Row
from labeling.importing.formats.pair_rows import Pair, PairLineImporter
from labeling.importing.formats.value_checks import MAX_GRADE
from labeling.importing.lines import RowError
from labeling.importing.strict_json import printable
from labeling.plugins import register
from labeling.records import ImportedCandidate, ImportedDocument, ImportedQuery

_ID_NAMES = re.compile(r"(?:q|p|d|query|doc|document|passage)?[-_ ]?id")
_TEXT_NAMES = ("text", "query", "passage", "document", "body", "content", "contents")


def _columns(body: bytes, line: int, expected: tuple[str, ...]) -> list[str]:
    found = decoded(body, line).split("\t")
    if len(found) != len(expected):
        raise RowError(
            fields.width_problem(len(found), ""),
            line=line,
            expectation=f"{len(expected)} columns separated by tabs: {', '.join(expected)}",
            remedy="choose the format of the file, or replace tabs inside texts by blanks",
        )
    return found


class TextsOptions(LineOptions):
    texts: Literal["documents", "queries"] = pydantic.Field(
        default="documents", description="Whether the lines are documents (collection.tsv) or queries (queries.tsv)."
    )


@register
class MsMarcoTexts(LineImporter):
    """Documents alone (`collection.tsv`) or queries alone (`queries.tsv`), `id text` separated by a tab."""

    name = "ms-marco-texts"
    label = "MS MARCO texts (collection or queries)"
    format_help = (
        "Two columns separated by a tab: id, text. The option `texts` says whether they are documents or queries."
    )
    example = b"7187158\tGoldfish grow as long as they live.\n7187157\tBread is baked from flour.\n"
    Options = TextsOptions
    options: TextsOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        rows = [line.split("\t") for line in text_lines(head)[:20]]
        if not rows or not all(len(row) == 2 and " " not in row[0].strip() for row in rows):
            return 0.0
        name, text = (each.strip().lower() for each in rows[0])
        is_table = name == "sep=" or (name.isalpha() and not _ID_NAMES.fullmatch(name) and text in _TEXT_NAMES)
        return 0.0 if is_table else 0.7  # a table of two columns has no id in its header

    def parse_line(self, body: bytes, line: int) -> ImportedQuery | ImportedDocument | None:
        identifier, text = _columns(body, line, ("id", "text"))
        if line == 1 and _ID_NAMES.fullmatch(identifier.lower()) and text.lower().strip() in _TEXT_NAMES:
            return None  # a header
        identifier, text = fields.identifier(identifier, "id", line), fields.text(text, "text", line)
        if self.options.texts == "queries":
            return ImportedQuery(id=identifier, text=text, documents=(), line=line)
        return ImportedDocument(id=identifier, text=text, line=line)


@register
class MsMarcoTop(PairLineImporter):
    """Queries with their candidates (`top1000.dev.tsv`), `query id, document id, query, document` separated by tabs."""

    name = "ms-marco-top"
    label = "MS MARCO top 1000 (queries with candidates)"
    format_help = "Four columns separated by tabs: query id, document id, query, document."
    example = (
        b"q1\td1\tdo goldfish grow\tGoldfish grow as long as they live.\nq1\td2\tdo goldfish grow\tBread is baked.\n"
    )

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        rows = [line.split("\t") for line in text_lines(head)[:20]]
        # msmarco-docs.tsv has four columns too: id, address, title, body.
        long = [row for row in rows if len(row) == 4 and " " in row[3] and not re.search(r" |://", row[0] + row[1])]
        return 0.8 if rows and len(long) == len(rows) else 0.0

    def pairs(self, body: bytes, line: int) -> Iterator[Pair]:
        query_id, document_id, query, document = _columns(body, line, ("query id", "document id", "query", "document"))
        yield Pair(
            query_id=fields.identifier(query_id, "query id", line),
            query=fields.text(query, "query", line),
            document_id=fields.identifier(document_id, "document id", line),
            document=fields.text(document, "document", line),
        )


@register
class MsMarcoTriples(PairLineImporter):
    """Training triples of texts, `query, relevant document, other document` separated by tabs.

    The relevant document gets grade 1. The other one is a candidate without a grade, since nobody has judged it. Ids are
    made from the texts, so that a text that repeats is stored once.
    """

    name = "ms-marco-triples"
    label = "MS MARCO triples (texts)"
    format_help = "Three columns of texts separated by tabs: query, relevant document, other document."
    example = b"do goldfish grow\tGoldfish grow as long as they live.\tBread is baked from flour.\n"

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        rows = [line.split("\t") for line in text_lines(head)[:20]]
        texts = [row for row in rows if len(row) == 3 and all(" " in each.strip() for each in row[1:])]
        # Triples of ids are told from grades by their third number, and refused by name.
        ids = [row for row in rows if len(row) == 3 and all(map(str.isdecimal, row)) and int(row[2]) > MAX_GRADE]
        return 0.8 if rows and len(texts) == len(rows) else 0.95 if ids and 2 * len(ids) > len(rows) else 0.0

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        """Rows without repeated candidates: a relevant document has a line for each other one."""
        seen: set[tuple[str, str]] = set()
        for row in super().read_all(stream, parts=parts):
            if isinstance(row, ImportedCandidate):
                if (row.query_id, row.document_id) in seen:
                    continue
                seen.add((row.query_id, row.document_id))
            yield row

    def pairs(self, body: bytes, line: int) -> Iterator[Pair]:
        query, *documents = _columns(body, line, ("query", "relevant document", "other document"))
        if all(map(str.isdecimal, (query, *documents))):
            raise RowError(
                f"holds the ids {printable(query)}, {', '.join(map(printable, documents))}",
                line=line,
                expectation="three texts",
                remedy="join the ids with their texts first, or import the texts and a run or qrels file of the ids",
            )
        query = fields.text(query, "query", line)
        for document, field, grade in zip(documents, ("relevant document", "other document"), (1, None), strict=True):
            yield Pair(query=query, document=fields.text(document, field, line), grade=grade)
