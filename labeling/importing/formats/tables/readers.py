"""Rows of tables as dictionaries: CSV and TSV, JSON lines, a JSON array, Parquet. Imports no Django."""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, cast

from labeling.importing.archives import Unclosed, refused
from labeling.importing.formats.fields import decoded, row_error
from labeling.importing.formats.tables.batches import plain_schema, rows_of
from labeling.importing.formats.tables.formulas import are_ours, original
from labeling.importing.json_stream import json_members
from labeling.importing.lines import RowError, is_spread, numbered_lines, spread_over_lines
from labeling.importing.strict_json import BadJson, check_part, parse, quoted

TableRow = tuple[int, dict[str, Any] | RowError]
Kind = Literal["csv", "jsonl", "json", "parquet"]
PARQUET_MAGIC = b"PAR1"
DELIMITERS = ",;\t|"
_SEP_LINE = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
ROWS_AT_ONCE = 1_000
MOST_COLUMNS = 1_000


def kind_of(head: bytes) -> Kind:
    """The kind of a table by its first bytes; CSV for anything that is not one of the others."""
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return "json" if start == b"[" else "jsonl" if start == b"{" else "csv"


def delimiter_of(header: str) -> str:
    """The separator that splits the header into most columns; a comma if there is none."""
    counts = {each: header.count(each) for each in DELIMITERS}
    best = max(DELIMITERS, key=lambda each: (counts[each], -DELIMITERS.index(each)))
    return best if counts[best] else ","


def stands_before_a_header(line: str) -> bool:
    """Blank lines, comments without a separator, and the line `sep=;` that spreadsheets read."""
    return not line.strip() or bool(_SEP_LINE.fullmatch(line.strip(" \r\n"))) or _is_comment(line)


def _is_comment(line: str) -> bool:
    return line.startswith("#") and not any(each in line for each in DELIMITERS)


def csv_rows(
    stream: IO[bytes], max_row_bytes: int, max_total_bytes: int, *, delimiter: str = "", quoted: bool = True
) -> Iterator[TableRow]:
    """Rows below a header. A field in double quotes may hold separators, line ends and doubled quotes, if `quoted`."""
    source = _CsvLines(numbered_lines(stream, max_row_bytes, max_total_bytes, blank=quoted))
    try:
        first = next(source, None)
        while first is not None and stands_before_a_header(first):
            delimiter = delimiter or "".join(_SEP_LINE.findall(first))
            first = next(source, None)
    except RowError as error:
        yield error.line, error
        return
    if first is None:
        return
    source.put_back(first)
    # A quote has no meaning in tab-separated files unless it opens the header's first field.
    delimiter = delimiter or delimiter_of(first)
    is_quoted = quoted and (delimiter != "\t" or first.startswith('"'))
    csv.field_size_limit(max(max_row_bytes, csv.field_size_limit()))
    reader = csv.reader(
        source, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE, strict=True
    )
    header: list[str] | None = None
    is_ours = False
    while True:
        source.begin()
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield source.first, _csv_error(error, source.first)
            continue
        except RowError as error:
            yield source.first, error
            if error.ends_file:
                return
            continue
        if row is None:
            return
        if header is None:
            header = checked_header(row)
            is_ours = are_ours(header)
        elif not any(cell.strip() for cell in row):
            continue  # spreadsheets write separators alone below the last row
        elif len(row) == len(header):
            cells = row if is_quoted else map(_unquoted, row)
            yield source.first, dict(zip(header, map(original, cells) if is_ours else cells, strict=True))
        else:
            has_quotes = not is_quoted and any(cell[:1] == '"' or cell[-1:] == '"' for cell in row)
            yield source.first, _width_error(len(row), len(header), source.first, has_quotes=has_quotes)


class _CsvLines:
    """Decoded lines for csv.reader, which joins those of a quoted field; `first` is the line where its row began."""

    def __init__(self, lines: Iterator[tuple[int, bytes | RowError]]) -> None:
        self._lines = lines
        self._waiting: list[str] = []
        self._is_new = True
        self._line = self.first = 1

    def __iter__(self) -> _CsvLines:
        return self

    def begin(self) -> None:
        """The next line begins a row."""
        self._is_new = True

    def put_back(self, line: str) -> None:
        self._waiting.append(line)

    def __next__(self) -> str:
        if self._waiting:
            return self._waiting.pop()
        self._line, body = next(self._lines)
        if self._is_new:
            self.first, self._is_new = self._line, False
        if isinstance(body, RowError):
            raise body
        text = decoded(body, self._line)
        if "\x00" in text:
            raise RowError(
                f"contains a NUL character at position {text.index(chr(0)) + 1}",
                line=self._line,
                expectation="text without NUL",
                remedy="remove the character, or save the file as UTF-8",
            )
        return text + "\n"


def checked_header(row: Sequence[str]) -> list[str]:
    header = [each.strip() for each in row]
    twice = sorted({each for each in header if each and header.count(each) > 1})
    if twice or len(header) > MOST_COLUMNS:
        raise refused(
            f"has the column {quoted(twice[0])} twice" if twice else f"has {len(header)} columns",
            expectation=f"a header with up to {MOST_COLUMNS} different names in the first line",
            remedy="rename or remove a column",
        )
    return header


def _csv_error(error: csv.Error, line: int) -> RowError:
    return RowError(
        f"is not well-formed CSV ({error})",
        line=line,
        expectation="fields with quotes, separators or line ends in double quotes, and quotes inside them doubled",
        remedy="export the file again with a spreadsheet or a CSV library",
    )


def _unquoted(cell: str) -> str:
    """The text of a cell in quotes whose inner quotes are all doubled, as libraries write it; any other cell as it is."""
    inner = cell[1:-1]
    is_written = len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_written else cell


def _width_error(found: int, expected: int, line: int, *, has_quotes: bool) -> RowError:
    return RowError(
        f"has {'one field' if found == 1 else f'{found} fields'}, the header {expected}",
        line=line,
        expectation="as many fields as the header has names",
        remedy="put the header's first name in double quotes as well: without it, quotes in a file with tabs are text"
        if has_quotes
        else "put texts with separators or line ends in double quotes",
    )


def jsonl_rows(stream: IO[bytes], max_row_bytes: int, max_total_bytes: int) -> Iterator[TableRow]:
    """An object a line."""
    for line, body in numbered_lines(stream, max_row_bytes, max_total_bytes):
        if isinstance(body, RowError):
            yield line, body
            continue
        if is_spread(body):
            yield line, spread_over_lines(line)
            continue
        try:
            yield line, _object(parse(body), line)
        except BadJson as error:
            yield line, row_error(error, line)
        except RowError as error:
            yield line, error


def json_rows(stream: IO[bytes], max_row_bytes: int, max_total_bytes: int) -> Iterator[TableRow]:
    """The objects of an array; the line is the number of the object."""
    for number, value in json_members(stream, max_row_bytes, max_total_bytes, kind="array"):
        try:
            yield number, value if isinstance(value, RowError) else _object(value, number)
        except RowError as error:
            yield number, error


def _object(value: Any, line: int) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise RowError(
        "is not an object",
        line=line,
        expectation="a JSON object with columns as keys",
        remedy='write {"query": "...", ...}',
    )


def parquet_rows(stream: IO[bytes], max_row_bytes: int, max_total_bytes: int) -> Iterator[TableRow]:
    """Rows of a Parquet file, counted from 1; nested columns become lists and objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not stream.seekable():
        stream = io.BytesIO(stream.read(max_total_bytes))
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps what it freed
    try:
        file = pq.ParquetFile(cast(Any, Unclosed(stream)))
        size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
        if size > max_total_bytes:
            raise refused(
                f"unpacks to {size} bytes",
                expectation=f"at most {max_total_bytes} bytes a file",
                remedy="split the file, or raise ZELO_MAX_IMPORT_MB",
            )
        checked_header(file.schema_arrow.names)
        numbers, schema = itertools.count(1), plain_schema(file.schema_arrow)
        packed = pq.ParquetFile(cast(Any, Unclosed(stream)), read_dictionary=_text_columns(file))
        # Arrow's threads read ahead through the file and keep what they freed: they need three times the memory.
        batches = (
            batch
            for group in range(packed.num_row_groups)
            for batch in packed.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group], use_threads=False)
        )
        for batch in batches:
            for row in rows_of(batch, schema, max_row_bytes):
                number = next(numbers)
                yield number, checked_cells(row, number)
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, RowError):
            raise
        raise refused(
            f"is not a readable Parquet file ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})",
            expectation="a complete Parquet file",
            remedy="write the file again, or export it as JSON lines",
        ) from None


def _text_columns(file: Any) -> list[str]:
    """The paths of the columns whose texts may be stored once for many rows."""
    columns = [file.metadata.schema.column(number) for number in range(file.metadata.num_columns)]
    return [
        each.path
        for each in columns
        if each.physical_type == "BYTE_ARRAY" and each.logical_type.type in ("STRING", "JSON", "ENUM", "NONE")
    ]


def parquet_columns(stream: IO[bytes]) -> list[str]:
    """The names of the columns; empty if the file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(cast(Any, Unclosed(stream))).names)
    except (pa.ArrowException, OSError, ValueError):
        return []


def checked_cells(row: dict[str, Any], line: int) -> dict[str, Any] | RowError:
    """The row in JSON's types, without what is no number; the error of values that cannot be stored."""
    whole = {name: _plain(cell) for name, cell in row.items()}
    try:
        for name, cell in whole.items():
            if isinstance(cell, str | dict | list | float):
                check_part(cell, name)
    except BadJson as error:
        return row_error(error, line)
    return whole


def _plain(cell: Any) -> Any:
    """A value of Arrow's types as JSON has it: numbers, ISO 8601 for times, text for its bytes; others stay."""
    if isinstance(cell, float):
        return None if math.isnan(cell) else cell
    if isinstance(cell, decimal.Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    if isinstance(cell, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return cell.decode()
    if isinstance(cell, list | tuple):
        return [_plain(each) for each in cell]
    return {str(key): _plain(each) for key, each in cell.items()} if isinstance(cell, dict) else cell
