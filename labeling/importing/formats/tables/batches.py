"""Rows of Arrow batches, so few at a time that their texts fit into memory, even if the file misstates its size.

A dictionary stores a text once for all rows that have it, so a file of some kilobytes may hold gigabytes. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labeling.importing.archives import refused

# The limit of the texts of the rows that are in memory together.
MOST_AT_ONCE = 32 * 1024 * 1024


def rows_of(batch: Any, schema: Any, max_row_bytes: int) -> Iterator[dict[str, Any]]:
    """The rows of a batch, by the types of `schema`, which has no dictionaries. Raises RowError for a row that is too long."""
    waiting = [(0, batch.num_rows)]
    while waiting:
        start, count = waiting.pop()
        part = batch.slice(start, count)
        size = sum(_unpacked_bytes(column) for column in part.columns)
        if count > 1 and size > min(MOST_AT_ONCE, max_row_bytes):
            half = count // 2
            waiting += [(start + half, count - half), (start, half)]
            continue
        if count == 1 and size > max_row_bytes:
            raise refused(
                f"holds a row of {size} bytes",
                expectation=f"at most {max_row_bytes} bytes a row",
                remedy="shorten its texts, or raise ZELO_MAX_LINE_MB",
            )
        yield from part.cast(schema).to_pylist()


def _unpacked_bytes(array: Any) -> int:
    """The bytes of an array's values, each text counted in every row that has it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        if not _is_text(kind.value_type):
            return len(array) * (16 if pa.types.is_primitive(kind.value_type) else int(array.dictionary.nbytes))
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(_unpacked_bytes(each) for each in array.flatten())
    if pa.types.is_nested(kind) and hasattr(array, "flatten"):
        return _unpacked_bytes(array.flatten())
    return int(array.nbytes)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    tests = pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary
    return any(test(kind) for test in tests)


def plain_schema(schema: Any) -> Any:
    """The schema with the values' own type where it has a dictionary."""
    import pyarrow as pa

    return pa.schema([field.with_type(_plain_type(field.type)) for field in schema])


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_plain_type(each.type)) for each in kind])
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    return kind
