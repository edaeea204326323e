"""Cursors whose statements the server parses once a connection, for the few that run thousands of times.

Django binds values on our side, so that each execution is parsed anew, which adds up where batches of judgments come by
the thousand. Every value of such a statement needs a type that can be told from its place, or a cast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Self

import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper


class PreparedCursor(psycopg.Cursor[Any]):
    """Binds on the server and prepares at the first execution; errors are Django's."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        with connection.wrap_database_errors:
            return super().execute(query, params, prepare=True, **options)


Cursor = CursorWrapper | PreparedCursor


@contextlib.contextmanager
def prepared_cursor() -> Iterator[PreparedCursor]:
    """A cursor on Django's connection, within whatever transaction it is in."""
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    if connection.connection.prepare_threshold is None:  # Django switches preparing off; its own cursors never prepare
        connection.connection.prepare_threshold = 5
    with PreparedCursor(connection.connection) as cursor:
        yield cursor
