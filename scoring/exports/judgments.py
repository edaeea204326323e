"""The exporters of answers: judgments as JSON lines, CSV and Parquet, with the same columns, and raters' grades. Imports no Django.

The importer `preferences` reads all three back.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from typing import IO, Any

import pydantic

from labeling.importing.answers.rows import ExportedJudgment, ImportedRating
from labeling.importing.formats.tables.formulas import harmless
from labeling.plugins import Exporter, register
from scoring.exports.parquet import write_parquet

COLUMNS = tuple(each.name for each in dataclasses.fields(ExportedJudgment))


class _Judgments(Exporter):
    reads = "judgments"


@register
class JudgmentsJsonl(_Judgments):
    """Live judgments, oldest first. `preference` is P(a is the more relevant), null where the answer is none."""

    name = "judgments-jsonl"
    label = "Judgments as JSON lines"
    format_help = "Live judgments with rationales, oldest first."
    suffix = ".judgments.jsonl"
    content_type = "application/x-ndjson"

    def write(self, rows: Iterable[ExportedJudgment], stream: IO[bytes]) -> None:
        for row in rows:
            stream.write(json.dumps(_values(row), ensure_ascii=False, allow_nan=False).encode() + b"\n")


@register
class JudgmentsCsv(_Judgments):
    """Live judgments, oldest first, in UTF-8 with a header. Numbers keep all their digits."""

    name = "judgments-csv"
    label = "Judgments as CSV"
    format_help = "Live judgments with rationales, oldest first."
    suffix = ".judgments.csv"
    content_type = "text/csv; charset=utf-8"

    def write(self, rows: Iterable[ExportedJudgment], stream: IO[bytes]) -> None:
        stream.write(_line(COLUMNS))
        for row in rows:
            stream.write(_line([_cell(value) for value in _values(row).values()]))


@register
class JudgmentsParquet(_Judgments):
    """Live judgments, oldest first, in Parquet with zstd compression."""

    name = "judgments-parquet"
    label = "Judgments as Parquet"
    format_help = "Live judgments with rationales, oldest first."
    suffix = ".judgments.parquet"
    content_type = "application/vnd.apache.parquet"

    def write(self, rows: Iterable[ExportedJudgment], stream: IO[bytes]) -> None:
        write_parquet(map(_values, rows), stream, _schema())


@register
class RaterGradesCsv(Exporter):
    """The grades of single people, as the importer `table` reads them; with `models` those of models instead."""

    name = "rater-grades-csv"
    label = "Grades of single raters as CSV"
    format_help = "Imported grades, one row for each rater and document."
    suffix = ".rater-grades.csv"
    content_type = "text/csv; charset=utf-8"
    reads = "ratings"

    class Options(Exporter.Options):
        models: bool = pydantic.Field(default=False, description="Write the grades of models instead of people's.")

    options: Options

    def write(self, rows: Iterable[ImportedRating], stream: IO[bytes]) -> None:
        stream.write(_line(("query_id", "document_id", "grade", "rater")))
        for row in rows:
            if row.by_person is not self.options.models:
                stream.write(_line(map(_cell, (row.query_id, row.document_id, row.grade, row.annotator))))


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"annotator_id": pa.int64(), "by_person": pa.bool_(), "swapped": pa.bool_(), "preference": pa.float64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def _values(row: ExportedJudgment) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}


def _cell(value: Any) -> Any:
    return (
        str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else harmless(value)
    )


def _line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()
