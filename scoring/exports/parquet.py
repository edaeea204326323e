"""Writes Parquet, row group by row group, into streams that cannot seek. Imports no Django."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from typing import IO, Any, cast

ROWS_A_GROUP = 5_000


class _Counting(io.RawIOBase):
    """The caller's stream, which stays open, with the position that a Parquet writer asks for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written


def write_parquet(rows: Iterable[dict[str, Any]], stream: IO[bytes], schema: Any) -> None:
    """Write dictionaries with the columns of a pyarrow schema; memory holds one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    iterator = iter(rows)
    with pq.ParquetWriter(cast(Any, _Counting(stream)), schema, compression="zstd") as writer:
        while batch := list(itertools.islice(iterator, ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
