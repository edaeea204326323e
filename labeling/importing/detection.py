"""Proposes the format of a file: every importer says how sure it is (`Importer.recognises`). Imports no Django."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from labeling.importing.formats.fields import HEAD_BYTES
from labeling.importing.formats.tables.columns import NONE, ROLES, mapping_of
from labeling.importing.formats.tables.readers import PARQUET_MAGIC, parquet_columns
from labeling.importing.formats.tables.table import Table
from labeling.importing.lines import RowError
from labeling.plugins import Importer, registered

AUTO = "auto"
DEFAULT = "zbench-jsonl"
OF_PARQUET = ("preferences", "quepid-csv", "table")
OF_FOLDERS = ("beir", "datasets-folder")


def detect(head: bytes, filename: str = "") -> str:
    """The name of the importer that is surest of a file with these first bytes; zbench JSONL if none recognises it."""
    plain = _unpacked(head)[:HEAD_BYTES]
    best, importer = 0.0, DEFAULT
    for name, plugin in registered("importer").items():
        sure = cast(type[Importer], plugin).recognises(plain, filename)
        if sure > best:
            best, importer = sure, name
    return importer


def detect_source(source: IO[bytes] | Path, filename: str = "") -> str:
    """As `detect`, for a seekable stream, whose position stays, or a path; a folder is a data set of several files."""
    if isinstance(source, Path):
        if source.is_dir():
            is_beir = any(source.rglob("corpus.jsonl")) or any(source.rglob("queries.jsonl"))
            columns = (each for each in source.rglob("*") if each.suffix in (".arrow", ".parquet"))
            return "datasets-folder" if not is_beir and any(columns) else "beir"
        with source.open("rb") as stream:
            return detect_source(stream, filename or source.name)
    position = source.tell()
    head = source.read(HEAD_BYTES)
    source.seek(position)
    if head.startswith(PARQUET_MAGIC):
        found = _detect_columns(parquet_columns(source))
        source.seek(position)
        return found
    return detect(head, filename)


def _detect_columns(columns: list[str]) -> str:
    """The importer of a Parquet file by its columns, which stand at its end: what a CSV file with these would be."""
    line = ",".join(f'"{each}"' for each in columns if '"' not in each)
    found = detect(f"{line}\n{line}\n".encode("utf-8", "replace"))
    return found if found in OF_PARQUET else "table"


def columns_of(source: IO[bytes]) -> list[str]:
    """The columns of a table by its first bytes; empty if it shows none. The position of the stream stays."""
    position = source.tell()
    head = source.read(HEAD_BYTES)
    try:
        if head.startswith(PARQUET_MAGIC):
            source.seek(position)
            return parquet_columns(source)
        return next(iter(Table.columns(_unpacked(head)[:HEAD_BYTES])), [])
    except RowError:
        return []
    finally:
        source.seek(position)


def guessed_columns(columns: list[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column of each role, "-" for none. Raises RowError for a table of which nothing is known."""
    found = mapping_of(columns, given).of
    return {role: found.get(role, NONE) for role in ROLES}


def _unpacked(head: bytes) -> bytes:
    """The beginning of a gzip file, which is cut off."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    found = b""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(head)) as stream:
            while len(found) < HEAD_BYTES and (more := stream.read1(HEAD_BYTES - len(found))):
                found += more
    except (EOFError, OSError, zlib.error):
        pass
    return found
