"""The format `datasets-folder`: a Hugging Face data set on disk, as Arrow or Parquet files in a folder or zip.

It reads `Dataset.save_to_disk` and `DatasetDict.save_to_disk`, a downloaded repository of Parquet files, and the project's own
export, without the library datasets. Imports no Django.
"""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import pydantic

from labeling.importing.archives import ZIP_MAGIC, DataFile, named_damage, open_files, refused
from labeling.importing.formats.line_importer import Row
from labeling.importing.formats.pair_rows import Pair, PairRows
from labeling.importing.formats.tables import readers
from labeling.importing.formats.tables.batches import plain_schema, rows_of
from labeling.importing.formats.tables.columns import ColumnMapping
from labeling.importing.formats.tables.table import Table, TableOptions
from labeling.importing.lines import Bounded, RowError
from labeling.importing.strict_json import BadJson, parse
from labeling.plugins import register

_DATA = (".arrow", ".parquet")
_IN_MEMORY = 16 * 1024 * 1024


class _Example:
    """The example, made when it is read: pyarrow makes tables with pandas, which no process needs for anything else."""

    def __get__(self, instance: object, owner: type) -> bytes:
        return _example()


@functools.cache
def _example() -> bytes:
    import pyarrow as pa

    table = pa.table(
        {
            "query_id": ["q1", "q1"],
            "query": ["do goldfish grow"] * 2,
            "document_id": ["d1", "d2"],
            "text": ["All their life.", "Bread."],
        }
    )
    data = io.BytesIO()
    with pa.ipc.new_stream(data, table.schema) as writer:
        writer.write_table(table)
    return _zipped({"set/dataset_info.json": b"{}", "set/data-00000-of-00001.arrow": data.getvalue()})


def _zipped(files: dict[str, bytes]) -> bytes:
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


class DatasetsFolderOptions(TableOptions):
    split: str = pydantic.Field(
        default="", max_length=100, description="The split or configuration, for example train. Empty: all of them."
    )


@register
class DatasetsFolder(Table):
    """Hugging Face data sets on disk, with columns as those of the format `table`, in each file.

    Files are read in the order of their names, those of queries and documents before those of pairs. The line of an error is the
    row of its file. A column `metadata` with a JSON object becomes the text's metadata.
    """

    name = "datasets-folder"
    label = "Hugging Face data set (folder or zip)"
    format_help = "A folder on the server, or a zip of it: dataset_info.json with *.arrow files, or *.parquet files."
    example = cast(bytes, _Example())
    Options = DatasetsFolderOptions
    options: DatasetsFolderOptions

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        if not head.startswith(ZIP_MAGIC):
            return 0.0
        return (
            0.97
            if any(each in head for each in (b"dataset_info.json", b"dataset_dict.json", b".arrow", b".parquet"))
            else 0.0
        )

    def read_all(self, stream: IO[bytes] | Path, *, parts: bool = False) -> Iterator[Row | RowError]:
        with open_files(stream, self.options.max_total_bytes) as files:
            chosen = self._chosen(files)
            made = PairRows()
            for each in chosen:
                yield from self._of_file(each, made)

    def _chosen(self, files: list[DataFile]) -> list[DataFile]:
        data = [
            each
            for each in files
            if each.name.endswith(_DATA) and not PurePosixPath(each.name).name.startswith("cache-")
        ]
        if not data:
            names = ", ".join(each.name for each in files[:5]) or "nothing"
            raise refused(
                f"holds {names}",
                expectation="*.arrow or *.parquet files, as Dataset.save_to_disk writes them",
                remedy="choose the folder of the data set, or another format",
            )
        if self.options.split:
            chosen = [each for each in data if self.options.split in _names(each.name)]
            if not chosen:
                known = sorted({name for each in data for name in _names(each.name)})
                raise refused(
                    f"has no split {self.options.split[:80]!r}",
                    expectation=f"one of {', '.join(known[:20])}",
                    remedy="change the option split, or leave it empty",
                )
            data = chosen
        return sorted(data, key=lambda each: (not _names(each.name) & {"corpus", "queries"}, each.name))

    def _of_file(self, file: DataFile, made: PairRows) -> Iterator[Row | RowError]:
        mapping: ColumnMapping | None = None
        are_candidates = "candidates" in _names(file.name)
        for line, cells in self._rows(file):
            try:
                if isinstance(cells, RowError):
                    raise cells
                mapping = mapping or self._mapping_of(file, list(cells))
                pair = _with_metadata(self._pair(mapping, cells, line), cells, line)
                yield from list(made.rows(replace(pair, is_candidate=are_candidates), line))
            except RowError as error:
                yield _in_file(error, file)
                if error.ends_file:
                    return

    def _mapping_of(self, file: DataFile, columns: list[str]) -> ColumnMapping:
        """The mapping of a file's columns. In a file named queries, as those of BEIR, a text without a document is a query."""
        mapping = self._mapping(columns, None)
        if "queries" not in _names(file.name) or "query" in mapping.of or "document" not in mapping.of:
            return mapping
        renamed = {"document": "query", "document_id": "query_id"}
        return ColumnMapping({renamed.get(role, role): name for role, name in mapping.of.items() if role != "title"})

    def _rows(self, file: DataFile) -> Iterator[readers.TableRow]:
        """Rows of a file. Arrow is a stream; Parquet needs to seek, so members of archives go through a temporary file."""
        limits = self.options.max_line_bytes, self.options.max_total_bytes
        try:
            with named_damage(file.name), file.open() as stream:
                if file.name.endswith(".arrow"):
                    yield from arrow_rows(stream, *limits)
                    return
                with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as copy:
                    while block := stream.read(1024 * 1024):
                        copy.write(block)
                    copy.seek(0)
                    yield from readers.parquet_rows(cast(IO[bytes], copy), *limits)
        except RowError as error:
            yield error.line, error


def arrow_rows(stream: IO[bytes], max_row_bytes: int, max_total_bytes: int) -> Iterator[readers.TableRow]:
    """Rows of an Arrow IPC stream, or of an Arrow file, numbered from 1; memory holds one batch."""
    import pyarrow as pa

    bounded = io.BufferedReader(Bounded(stream, max_total_bytes))
    try:
        if bounded.peek(6)[:6] == b"ARROW1":  # the file format: the stream stands behind eight bytes
            bounded.read(8)
        reader = pa.ipc.open_stream(bounded)
        readers.checked_header(reader.schema.names)
        number, schema = 0, plain_schema(reader.schema)
        for batch in reader:
            for start in range(0, batch.num_rows, readers.ROWS_AT_ONCE):
                for row in rows_of(batch.slice(start, readers.ROWS_AT_ONCE), schema, max_row_bytes):
                    number += 1
                    yield number, readers.checked_cells(row, number)
    except RowError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise refused(
            f"is not a readable Arrow file ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})",
            expectation="a complete Arrow file, as Dataset.save_to_disk writes it",
            remedy="save the data set again, or export it as Parquet",
        ) from None


def _names(name: str) -> set[str]:
    """The split and the configuration that a path can mean: its folders, and the beginning of the file's name."""
    path = PurePosixPath(name)
    return {*path.parts[:-1], path.name.split("-")[0].split(".")[0]}


def _with_metadata(pair: Pair, cells: dict[str, Any], line: int) -> Pair:
    """The pair with the object in the column `metadata` in place of the text of that column."""
    given = cells.get("metadata")
    if given is None or "metadata" not in cells:
        return pair
    rest = {name: value for name, value in pair.metadata.items() if name != "metadata"}
    if isinstance(given, str):
        try:
            given = parse(given.encode("utf-8", "surrogatepass"))
        except BadJson as error:
            raise RowError(
                error.problem,
                line=line,
                field="metadata",
                expectation="a JSON object",
                remedy="write the metadata as JSON, or leave the column out",
            ) from None
    return replace(pair, metadata={**rest, **given}) if isinstance(given, dict) else pair


def _in_file(error: RowError, file: DataFile) -> RowError:
    where = f"{file.name}: {error.field}" if error.field and error.field != file.name else file.name
    return RowError(
        error.problem,
        line=error.line,
        field=where,
        expectation=error.expectation,
        remedy=error.remedy,
        ends_file=error.ends_file,
    )
