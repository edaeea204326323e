"""The record of each import, and the download of the rows that it left out, as CSV or JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

from labeling.importing.formats.tables.formulas import harmless
from labeling.importing.left_out import LeftOutRows
from labeling.models import DatasetImport, Project

ReportFormat = Literal["csv", "jsonl"]
COLUMNS = ("line", "field", "problem", "expected", "remedy")


def store_report(
    project: Project, *, file: str, importer: str, summary: str, left_out: LeftOutRows | None, by: Any
) -> DatasetImport:
    """Store the record of an import in its transaction."""
    known = by if getattr(by, "is_authenticated", False) else None
    rows = left_out.rows if left_out is not None else []
    return DatasetImport.objects.create(
        project=project,
        file=file.replace("\x00", "")[:200],
        importer=importer,
        summary=summary,
        left_out=left_out.total if left_out is not None else 0,
        left_out_rows=_packed(rows),
        imported_by=known,
    )


def _packed(rows: list[dict[str, Any]]) -> bytes:
    if not rows:
        return b""
    return gzip.compress(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows), mtime=0)


def left_out_file(report: DatasetImport, form: ReportFormat) -> Iterator[bytes]:
    """The rows that the import left out, in the order of the file: line, field, problem, expected, remedy."""
    if form == "csv":
        yield _csv_line(COLUMNS)
    if not report.left_out_rows:
        return
    with gzip.open(io.BytesIO(bytes(report.left_out_rows))) as lines:
        for line in lines:
            yield line if form == "jsonl" else _csv_line([json.loads(line)[name] for name in COLUMNS])


def _csv_line(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow([harmless(cell) for cell in cells])
    return text.getvalue().encode()
