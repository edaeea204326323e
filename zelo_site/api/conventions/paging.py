"""Cursors of lists: `limit` rows after `cursor`; the header `Link` names the next page (RFC 8288)."""

from __future__ import annotations

from typing import Annotated, Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from ninja.errors import HttpError
from pydantic import Field

MOST_ROWS = 1000
# An id in an address: what PostgreSQL can compare with.
Number = Annotated[int, Field(ge=1, lt=2**63)]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS)]
Cursor = Annotated[str, Field(max_length=40)]


def paged(
    request: HttpRequest, response: HttpResponse, rows: QuerySet[Any], *, cursor: str, limit: int, newest: bool = False
) -> list[Any]:
    """Up to `limit` rows by id behind `cursor` (empty: the first page); sets `Link` if there are more.

    `newest`: highest id first. Raises HttpError 422 for a cursor that no page gave out.
    """
    if cursor:
        place = _place(cursor)
        rows = rows.filter(pk__lt=place) if newest else rows.filter(pk__gt=place)
    found = list(rows.order_by("-pk" if newest else "pk")[: limit + 1])
    if len(found) > limit:
        found.pop()
        parameters = request.GET.copy()
        parameters["cursor"] = str(found[-1].pk)
        address = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
        response["Link"] = f'<{address}>; rel="next"'
    return found


def _place(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and int(cursor) < 2**63):
        raise HttpError(422, f"cursor is {cursor!r}; use the one in the header Link of the page before")
    return int(cursor)
