"""The formats `table` and `quepid-csv`. Imports no Django."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, Any, Literal

import pydantic

from labeling.importing.formats.fields import text_lines
from labeling.importing.formats.line_importer import LineOptions, Row, RowImporter
from labeling.importing.formats.pair_rows import Pair, PairRows
from labeling.importing.formats.tables import readers
from labeling.importing.formats.tables.cells import table_cells, table_columns
from labeling.importing.formats.tables.columns import NONE, ROLES, ColumnMapping, mapping_of
from labeling.importing.formats.value_checks import is_blank
from labeling.importing.lines import RowError
from labeling.plugins import register
from labeling.records import ImportedCandidate

_COLUMN = f'Its column. Empty: guessed from the names; "{NONE}": none.'


class TableOptions(LineOptions):
    query_id: str = pydantic.Field(default="", max_length=200, description=_COLUMN)
    query: str = pydantic.Field(default="", max_length=200, description=_COLUMN)
    document_id: str = pydantic.Field(default="", max_length=200, description=_COLUMN)
    document: str = pydantic.Field(default="", max_length=200, description=_COLUMN)
    title: str = pydantic.Field(default="", max_length=200, description=f"Put before the document. {_COLUMN}")
    rank: str = pydantic.Field(default="", max_length=200, description=f"The first stage's rank. {_COLUMN}")
    score: str = pydantic.Field(default="", max_length=200, description=f"The first stage's score. {_COLUMN}")
    grade: str = pydantic.Field(default="", max_length=200, description=f"A person's grade. {_COLUMN}")
    rater: str = pydantic.Field(
        default="", max_length=200, description=f"Rater of the grade, where there are several. {_COLUMN}"
    )
    raters_are: Literal["people", "models"] = pydantic.Field(
        default="people",
        description="Grades of people are combined into the project's grades; those of models are not.",
    )
    negative: Literal["irrelevant", "ungraded"] = pydantic.Field(
        default="irrelevant", description="Grades below 0: irrelevant (grade 0), or ungraded (left out)."
    )


@register
class Table(RowImporter):
    """A table with a query, a document or both in each row: CSV, TSV, a JSON array, JSON lines or Parquet.

    The columns are guessed from their names, and the options correct the guess. A text without an id gets one that is made
    from the text. Columns that are not used become metadata of texts that stand alone.
    """

    name = "table"
    label = "Table (CSV, TSV, JSON, Parquet)"
    format_help = "A header line, then one query, document or pair a row. The column mapping can be corrected."
    example = (
        b'query_id,query,doc_id,text,grade\nq1,do goldfish grow,d1,"They grow, as long as they live.",3\n'
        b"q1,do goldfish grow,d2,Bread is baked from flour.,\n"
    )
    Options = TableOptions
    options: TableOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        kind = readers.kind_of(head)
        if kind == "parquet":
            return 0.9
        try:
            columns = next(iter(cls.columns(head)), [])
            return 0.65 if mapping_of(columns, {}).of else 0.0
        except RowError:
            is_named = kind == "csv" and filename.lower().endswith((".csv", ".tsv"))
            # Any other file with columns is read as a table, whose error lists them.
            return 0.2 if is_named else 0.1 if _is_list_of_objects(head) or _has_columns(head) else 0.0

    @classmethod
    def columns(cls, head: bytes) -> Iterator[list[str]]:
        """The columns of a file by its first bytes; nothing if they show none."""
        if found := table_columns(head):
            yield found

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        made, mapping, seen, shown = PairRows(), None, dict[str, None](), set[tuple[str, str]]()
        for line, cells in table_cells(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            if isinstance(cells, RowError):
                yield cells
                continue
            try:
                if mapping is None or not cells.keys() <= seen.keys():
                    seen |= dict.fromkeys(cells)
                    mapping = self._mapping(list(seen), mapping)
                pair = self._pair(mapping, cells, line)
                pairs = [pair, *mapping.negatives(cells, pair, line)]
                rows = [row for each in pairs for row in made.rows(each, line)]
                # Training texts repeat their query and its relevant document for each other one.
                yield from _once(rows, shown) if mapping.has_negatives else rows
            except RowError as error:
                yield error
                if error.ends_file:
                    return

    def _mapping(self, columns: list[str], known: ColumnMapping | None) -> ColumnMapping:
        """The mapping; a key that only later objects of a JSON file have gets a role which is still free."""
        given = {role: getattr(self.options, role) for role in ROLES}
        return mapping_of(columns, given | dict(known.of) if known else given)

    def _pair(self, mapping: ColumnMapping, cells: dict[str, Any], line: int) -> Pair:
        pair = replace(mapping.pair(cells, line), by_person=self.options.raters_are == "people")
        if pair.grade is None or pair.grade >= 0:
            return pair
        return replace(pair, grade=0 if self.options.negative == "irrelevant" else None)


@register
class QuepidCsv(Table):
    """Queries and ratings as Quepid exports them: `Query Text`, `Doc ID`, `Rating`; documents where it has their title.

    Quepid knows a query by its text, so the ids of queries are made from the texts. Unrated documents have no grade.
    """

    name = "quepid-csv"
    label = "Quepid CSV (queries and ratings)"
    format_help = "Quepid's export of a case as CSV: a header with Query Text (or query), Doc ID (or docid) and Rating."
    example = b"Team,Case,Query Text,Doc ID,Doc Position,Title,Rating\nT,C,do goldfish grow,d1,1,Goldfish grow,3\n"

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        try:
            columns = {each.lower().replace(" ", "").replace("_", "") for each in next(iter(cls.columns(head)), [])}
        except RowError:
            return 0.0
        names = {"docid", "rating"} <= columns and bool({"querytext", "query"} & columns)
        return 0.9 if names and not {"queryid", "text", "document"} & columns else 0.0

    def _mapping(self, columns: list[str], known: ColumnMapping | None) -> ColumnMapping:
        found = super()._mapping(columns, known)
        return ColumnMapping({role: name for role, name in found.of.items() if role != "query_id"})

    def _pair(self, mapping: ColumnMapping, cells: dict[str, Any], line: int) -> Pair:
        """The pair; a query without results stands alone in its row."""
        roles = ("document_id", "document", "title", "grade")
        empty = all(is_blank(str(cells.get(mapping.of[role]) or "")) for role in roles if role in mapping.of)
        if empty:
            mapping = ColumnMapping({"query": mapping.of["query"]} if "query" in mapping.of else mapping.of)
        return super()._pair(mapping, cells, line)


def _once(rows: Iterable[Row], shown: set[tuple[str, str]]) -> Iterator[Row]:
    """The rows without candidates that were shown before."""
    for row in rows:
        if not isinstance(row, ImportedCandidate) or (row.query_id, row.document_id) not in shown:
            if isinstance(row, ImportedCandidate):
                shown.add((row.query_id, row.document_id))
            yield row


def _is_list_of_objects(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[" and b"{" in head


def _has_columns(head: bytes) -> bool:
    """Whether the first lines have the same number of separators, and at least two."""
    lines = text_lines(head)[:5]
    counts = {line.count(readers.delimiter_of(lines[0])) for line in lines}
    return len(lines) > 1 and len(counts) == 1 and min(counts) >= 2
