"""Rows of a table of any kind, for all formats that read tables. Imports no Django."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterator
from typing import IO, Any

from labeling.importing.archives import refused
from labeling.importing.formats.fields import HEAD_BYTES, text_lines
from labeling.importing.formats.tables import readers
from labeling.importing.lines import Rejoined, RowError, TooMuch, open_stream


def table_cells(stream: IO[bytes], line_bytes: int, total: int) -> Iterator[readers.TableRow]:
    """(line, cells by column or RowError) of CSV, TSV, a JSON array, JSON lines or Parquet; damage is a RowError too."""
    try:
        yield from _cells(stream, line_bytes, total)
    except RowError as error:
        yield error.line, error
    except (EOFError, OSError, zlib.error) as error:
        yield (
            0,
            refused(
                f"the compressed file is damaged or truncated ({error})",
                expectation="a complete gzip file",
                remedy="copy or compress the file again",
            ),
        )
    except TooMuch as error:
        yield (
            0,
            refused(
                f"the file is longer than {error.limit} bytes after decompression",
                expectation=f"at most {error.limit} bytes a file",
                remedy="split the file, or raise ZELO_MAX_IMPORT_MB",
            ),
        )


def table_columns(head: bytes) -> list[str]:
    """The columns of a table by its first bytes; empty if they show none. Raises RowError for a bad header."""
    kind = readers.kind_of(head)
    if kind == "csv":
        lines = list(itertools.dropwhile(readers.stands_before_a_header, text_lines(head)))
        if lines and "\n" in head.decode("utf-8", "replace").replace("\r", "\n"):
            twice = io.BytesIO(f"{lines[0]}\n{lines[0]}\n".encode())
            row = next(readers.csv_rows(twice, HEAD_BYTES, HEAD_BYTES * 4), None)
            if row is not None and isinstance(row[1], dict) and len(row[1]) > 1:
                return list(row[1])
        return []
    reader = {"json": readers.json_rows, "jsonl": readers.jsonl_rows}.get(kind)
    first = None if reader is None else next(reader(io.BytesIO(head), HEAD_BYTES, HEAD_BYTES * 4), None)
    return list(first[1]) if first is not None and isinstance(first[1], dict) else []


def _cells(stream: IO[bytes], line_bytes: int, total: int) -> Iterator[readers.TableRow]:
    head = stream.read(4)
    if head == readers.PARQUET_MAGIC:
        if stream.seekable():
            stream.seek(0)
            yield from readers.parquet_rows(stream, line_bytes, total)
        else:
            yield from readers.parquet_rows(io.BytesIO(head + stream.read(total)), line_bytes, total)
        return
    joined: Any = io.BufferedReader(Rejoined(head, stream))
    whole = open_stream(joined, total)
    kind = readers.kind_of(whole.peek(1024)[:1024])
    reader = {"csv": readers.csv_rows, "json": readers.json_rows}.get(kind, readers.jsonl_rows)
    yield from reader(whole, line_bytes, total)
