"""REST of a user's own API keys. A key never makes one with more scopes than its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_keys import LONGEST_DAYS, BadScope, make_token, revoke_token
from labeling.models import ApiToken
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.projects import Text

router = Router(tags=["keys"])


class KeyIn(Schema):
    name: Text = Field(min_length=1, max_length=100)
    scopes: list[str] = Field(["read", "write"], min_length=1, max_length=4)
    days: int | None = Field(90, ge=1, le=LONGEST_DAYS)


class KeyOut(Schema):
    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    used_at: datetime | None
    expires_at: datetime | None


class NewKeyOut(Schema):
    """`key` is shown only once."""

    name: str
    scopes: list[str]
    key: str


@router.get("/keys", response=list[KeyOut])
def list_keys(request: HttpRequest, response: HttpResponse, cursor: Cursor = "", limit: Limit = 100) -> Any:
    """Your API keys, without their secrets."""
    rows = ApiToken.objects.filter(user_id=request.user.pk or 0)
    return paged(request, response, rows, cursor=cursor, limit=limit)


@router.post("/keys", response={201: NewKeyOut})
def post_key(request: HttpRequest, body: KeyIn) -> Any:
    """Make a key of yours. A key cannot make one with more scopes than its own. `days`: validity; null: until revoked."""
    own = getattr(request, "key_scopes", None)
    if own is not None and (more := sorted(set(body.scopes) - set(own))):
        raise HttpError(403, f"this key has the scopes {own} and cannot make a key with {', '.join(more)}")
    try:
        made = make_token(request.user, name=body.name, scopes=body.scopes, days=body.days, by=request.user)
    except BadScope as error:
        raise HttpError(422, str(error)) from error
    return Status(201, {"name": body.name, "scopes": sorted(set(body.scopes)), "key": made})


@router.delete("/keys/{key_id}", response={204: None})
def delete_key(request: HttpRequest, key_id: int) -> Any:
    """Revoke a key of yours."""
    if not revoke_token(request.user, key_id, by=request.user):
        raise HttpError(404, f"you have no key {key_id}; GET /keys lists them")
    return Status(204, None)
