"""A judge that flips coins and an importer of CSV: what a third party writes to extend zelo.

Copy the folder to begin a plugin of your own; it uses nothing but the public surface.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from typing import IO

import pydantic

from labeling.importing.formats import RowError
from labeling.plugins import Importer, Judge, register
from labeling.records import Collection, Comparison, Failure, ImportedDocument, ImportedQuery, Verdict


@register
class CoinFlip(Judge):
    """Prefers either document with equal chances; the same pair always falls the same way."""

    name = "coin-flip"
    label = "Coin flip"

    class Options(Judge.Options):
        seed: int = pydantic.Field(default=0, description="Another seed, other coins.")
        sureness: float = pydantic.Field(default=0.5, ge=0, le=1, description="0 makes every answer a tie.")

    options: Options

    def prepare(self, collection: Collection) -> None:
        """A coin needs no preparation."""

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Verdict(preference=self._preference(comparison)) for comparison in comparisons]

    def _preference(self, comparison: Comparison) -> float:
        coin = f"{self.options.seed} {comparison.query_a.id} {comparison.a.id} {comparison.b.id}"
        heads = hashlib.sha256(coin.encode()).digest()[0] % 2 == 0
        return 0.5 + (0.5 if heads else -0.5) * self.options.sureness


COLUMNS = ["query_id", "query", "document_id", "text"]


@register
class CsvPairs(Importer):
    """One candidate a row under the header query_id,query,document_id,text; rows of a query together."""

    name = "csv-pairs"
    label = "CSV, one candidate a row"
    example = b'query_id,query,document_id,text\nq1,ponds,d1,"deep, cold"\nq1,ponds,d2,shallow\nq2,bread,d2,shallow\n'

    def read(self, stream: IO[bytes]) -> Iterator[ImportedQuery]:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        table = csv.reader(text, strict=True)
        try:
            yield from self._queries(table)
        except (UnicodeDecodeError, csv.Error) as error:
            raise _error(table.line_num + 1, f"is no CSV in UTF-8 ({error})") from None
        finally:
            text.detach()  # or the wrapper would close the caller's stream

    def _queries(self, table: Iterator[list[str]]) -> Iterator[ImportedQuery]:
        header = next(table, COLUMNS)
        if header != COLUMNS:
            raise _error(1, f"has the columns {header}")
        numbered = enumerate((_checked(row, line) for line, row in enumerate(table, start=2)), start=2)
        for (query_id, text), rows in itertools.groupby(numbered, key=lambda item: (item[1][0], item[1][1])):
            of_query = list(rows)
            line = of_query[0][0]
            documents = {row[2]: ImportedDocument(row[2], row[3]) for _, row in of_query}
            if len(documents) < len(of_query):
                raise _error(line, "begins a query with one document twice")
            yield ImportedQuery(query_id, text, tuple(documents.values()), line=line)


def _checked(row: list[str], line: int) -> list[str]:
    if len(row) != len(COLUMNS) or any(not cell.strip() or "\x00" in cell for cell in row):
        raise _error(line, "has a missing, empty or broken cell")
    if max(len(row[0]), len(row[2])) > 500:
        raise _error(line, "has an id of more than 500 characters")
    return row


def _error(line: int, problem: str) -> RowError:
    return RowError(problem, line=line, expectation=",".join(COLUMNS), remedy="export the table as CSV in UTF-8")
