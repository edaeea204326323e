"""The formats `trec-run` and `ms-marco-run`: the first stage's candidates by id. Imports no Django."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO

from labeling.importing.formats import fields
from labeling.importing.formats.fields import decoded, text_lines
from labeling.importing.formats.line_importer import LineImporter, Row
from labeling.importing.formats.run_ranks import RankColumn
from labeling.importing.lines import RowError
from labeling.plugins import register
from labeling.records import ImportedCandidate

_SCORE_NAMES = ("score", "sim", "similarity")


def _split(text: str) -> list[str]:
    """At tabs where a line has any, else at ASCII blanks."""
    return [each.strip(" ") for each in text.split("\t")] if "\t" in text else re.findall(r"[^ \r\v\f]+", text)


@register
class TrecRun(LineImporter):
    """The candidates of the project's queries from a run, `query Q0 document rank score tag`, as the first stage.

    The order comes from the scores, ties by document id, as in trec_eval, which ignores the rank column. The texts must be
    in the project already.
    """

    name = "trec-run"
    label = "TREC run (candidates)"
    format_help = "Six columns: query id, Q0, document id, rank, score, name of the run. Import the texts first."
    example = b"q1 Q0 d1 1 12.5 bm25\nq1 Q0 d2 2 11.25 bm25\n"

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        rows = [_split(line) for line in text_lines(head)[:20] if not line.startswith("#")]
        good = [len(row) == 6 and fields.number(row[4]) is not None for row in rows]
        known = [len(row) in (5, 6, 7) and row[1] in ("Q0", "0") for row in rows]
        return 0.95 if good and all(good) else 0.3 if known and 2 * sum(known) >= len(known) else 0.0

    _ranks: RankColumn | None = None

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        """As every format of lines; the last one is an error where the scores are distances."""
        ranks = self._ranks = RankColumn()
        line = 1
        for row in super().read_all(stream, parts=parts):
            line = row.line
            yield row
        try:
            ranks.finish(line, is_fourth=False)
        except RowError as error:
            yield error

    def parse_line(self, body: bytes, line: int) -> ImportedCandidate | None:
        text = decoded(body, line)
        columns = _split(text)
        is_header = len(columns) == 6 and columns[4].lower() in _SCORE_NAMES
        if is_header or (text.startswith("#") and len(columns) != 6):
            return None
        if len(columns) != 6:
            raise RowError(
                fields.width_problem(len(columns), text),
                line=line,
                expectation="six: query id, Q0, document id, rank, score, name of the run",
                remedy="separate the columns by tabs if ids contain blanks",
            )
        found = ImportedCandidate(
            query_id=fields.identifier(columns[0], "query id", line),
            document_id=fields.identifier(columns[2], "document id", line),
            score=fields.score(columns[4], line),
            line=line,
        )
        if self._ranks is not None and found.score is not None:
            self._ranks.add(found.query_id, columns[3], found.score, line, is_fourth=False)
        return found


@register
class MsMarcoRun(LineImporter):
    """The candidates of the project's queries from MS MARCO's run, `query document rank`, as the first stage."""

    name = "ms-marco-run"
    label = "MS MARCO run (candidates)"
    format_help = "Three columns separated by tabs: query id, document id, rank from 1. Import the texts first."
    example = b"1048585\t7187158\t1\n1048585\t7187157\t2\n"

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        rows = [line.split("\t") for line in text_lines(head)[:50]]
        ranks = [row[2] for row in rows if len(row) == 3]
        # Ranks of a query count up from 1, which grades do not.
        counts_up = len(ranks) > 1 and ranks[:3] == ["1", "2", "3"][: len(ranks)]
        return 0.8 if len(ranks) == len(rows) and counts_up else 0.0

    def parse_line(self, body: bytes, line: int) -> ImportedCandidate:
        columns = decoded(body, line).split("\t")
        if len(columns) != 3:
            raise RowError(
                f"has {len(columns)} columns",
                line=line,
                expectation="three, separated by tabs: query id, document id, rank",
                remedy="choose the format TREC run for six columns",
            )
        return ImportedCandidate(
            query_id=fields.identifier(columns[0], "query id", line),
            document_id=fields.identifier(columns[1], "document id", line),
            rank=fields.rank(columns[2], line),
            line=line,
        )
