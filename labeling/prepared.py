"""Cursors with prepared statements, for the few statements that run thousands of times.

Django binds values on the client, so that the server parses each execution again, which is slow for thousands of
batches. Each value of a prepared statement needs a type that PostgreSQL can infer, or a cast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Self

import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper


class PreparedCursor(psycopg.Cursor[Any]):
    """A cursor that binds on the server and prepares at the first execution; it raises Django's errors."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        with connection.wrap_database_errors:
            return super().execute(query, params, prepare=True, **options)


Cursor = CursorWrapper | PreparedCursor


@contextlib.contextmanager
def prepared_cursor() -> Iterator[PreparedCursor]:
    """Return a cursor on Django's connection and in its current transaction."""
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    if connection.connection.prepare_threshold is None:  # Django switches preparing off; its own cursors never prepare
        connection.connection.prepare_threshold = 5
    with PreparedCursor(connection.connection) as cursor:
        yield cursor
