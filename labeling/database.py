"""Cursors that bind values on the server, and the errors of a lost connection.

Such cursors have prepared statements, for the few that run thousands of times, and take numpy arrays.

Django binds values on the client, so that the server parses every execution. A prepared statement is parsed once a
connection; each of its values needs a cast, or a place from which PostgreSQL can infer its type.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psycopg
from django.db import InterfaceError, InternalError, OperationalError, connection
from django.db.backends.utils import CursorWrapper
from psycopg.abc import Buffer, PyFormat
from psycopg.adapt import Dumper
from psycopg.errors import IdleInTransactionSessionTimeout
from psycopg.pq import Format


class PreparedCursor(psycopg.Cursor[Any]):
    """A cursor that binds on the server and prepares at the first execution; it raises Django's errors."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        with connection.wrap_database_errors:
            return super().execute(query, params, prepare=True, **options)


Cursor = CursorWrapper | PreparedCursor


@contextlib.contextmanager
def prepared_cursor() -> Iterator[PreparedCursor]:
    """A prepared cursor on Django's connection, in its current transaction; its values may be numpy arrays."""
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    if connection.connection.prepare_threshold is None:  # Django switches preparing off; its own cursors never prepare
        connection.connection.prepare_threshold = 5
    with PreparedCursor(connection.connection) as cursor:
        cursor.adapters.register_dumper(np.ndarray, _ArrayDumper)
        yield cursor


class _ArrayDumper(Dumper):
    """A numpy array of one dimension, int64, float64 or bool, as PostgreSQL's binary array: no Python code runs for each value."""

    format = Format.BINARY
    element_oid, width, kind = 0, 0, ""

    def get_key(self, obj: Any, format: PyFormat) -> tuple[type, ...]:
        return (self.cls, type(obj.dtype))

    def upgrade(self, obj: Any, format: PyFormat) -> _ArrayDumper:
        if obj.ndim != 1 or obj.dtype.kind not in _DUMPERS:
            raise TypeError(
                f"an array of {obj.dtype} with {obj.ndim} dimensions; expected int64, float64 or bool with one"
            )
        return _DUMPERS[obj.dtype.kind](self.cls)

    def dump(self, obj: Any) -> Buffer:
        rows = np.empty(len(obj), dtype=[("width", ">i4"), ("value", self.kind)])
        rows["width"], rows["value"] = self.width, obj
        dimensions = 1 if len(obj) else 0  # an empty array has none
        return (
            struct.pack(">iiIii", dimensions, 0, self.element_oid, len(obj), 1)[: 20 if dimensions else 12]
            + rows.tobytes()
        )


class _Int64Dumper(_ArrayDumper):
    oid, element_oid, width, kind = 1016, 20, 8, ">i8"


class _Float64Dumper(_ArrayDumper):
    oid, element_oid, width, kind = 1022, 701, 8, ">f8"


class _BoolDumper(_ArrayDumper):
    oid, element_oid, width, kind = 1000, 16, 1, "?"


_DUMPERS: dict[str, type[_ArrayDumper]] = {"i": _Int64Dumper, "f": _Float64Dumper, "b": _BoolDumper}


def names_and_places(values: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the distinct texts, and the place of each value among them from 1: an array of texts is slow to write and to read."""
    names = sorted(set(values))
    places = {name: place for place, name in enumerate(names, start=1)}
    return names, np.array([places[value] for value in values], dtype=np.int64)


class ArrayCursor(psycopg.Cursor[Any]):
    """A cursor whose values may be numpy arrays. It does not prepare, so that the planner knows how long they are."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        with connection.wrap_database_errors:
            return super().execute(query, params, **options)


@contextlib.contextmanager
def array_cursor() -> Iterator[ArrayCursor]:
    """A cursor for numpy arrays on Django's connection, in its current transaction."""
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with ArrayCursor(connection.connection) as cursor:
        cursor.adapters.register_dumper(np.ndarray, _ArrayDumper)
        yield cursor


def is_lost(error: BaseException) -> bool:
    """Whether the connection is unreachable, closed, or ended by the server, so that nothing is wrong with the statement.

    PostgreSQL reports a transaction that it ended because it was silent for too long as an internal error, as it does damaged data.
    """
    if isinstance(error, InternalError):
        return isinstance(error.__cause__, IdleInTransactionSessionTimeout)
    return isinstance(error, (OperationalError, InterfaceError))
