"""REST of accounts, for superusers: list, create, change, reset. Deletion is in `zelo_site.api.lifecycle.projects`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.links import SIGN_IN_VALID
from labeling.access.users import UserRefused, change_user, create_user, reset_user
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.projects import Text

router = Router(tags=["users"])


class UserIn(Schema):
    username: Text = Field(min_length=1, max_length=150)
    name: Text = Field("", max_length=150)
    is_staff: bool = False


class UserPatch(Schema):
    """What is left out stays. Staff may start projects; superusers may do everything."""

    name: Text | None = Field(None, max_length=150)
    is_active: bool | None = None
    is_staff: bool | None = None
    is_superuser: bool | None = None


class UserOut(Schema):
    id: int
    username: str
    name: str = Field(alias="first_name")
    is_active: bool
    is_staff: bool
    is_superuser: bool
    joined_at: datetime = Field(alias="date_joined")
    last_login: datetime | None


class LinkOut(Schema):
    """`path` under the server's address signs the account in once, within `hours`; it can be read now and never again."""

    user_id: int
    path: str
    hours: int


class ResetIn(Schema):
    revoke_keys: bool = False


@router.get("/users", response=list[UserOut], by_alias=False)
def list_users(
    request: HttpRequest, response: HttpResponse, username: Text = "", is_active: bool | None = None,
    cursor: Cursor = "", limit: Limit = 100,
) -> Any:  # fmt: skip
    """All accounts of the server, all or the one with a name. For superusers."""
    _check_superuser(request)
    rows = get_user_model().objects.all()
    rows = rows.filter(username=username) if username else rows
    rows = rows if is_active is None else rows.filter(is_active=is_active)
    return paged(request, response, rows, cursor=cursor, limit=limit)


@router.post("/users", response={201: LinkOut})
def post_user(request: HttpRequest, body: UserIn) -> Any:
    """Create an account without a password; the link signs it in once. For superusers."""
    _check_superuser(request)
    try:
        user, token = create_user(body.username, name=body.name, is_staff=body.is_staff, by=request.user)
    except UserRefused as error:
        raise HttpError(422, str(error)) from error
    return Status(201, _link(user, token))


@router.get("/users/{user_id}", response=UserOut, by_alias=False)
def get_user(request: HttpRequest, user_id: Number) -> Any:
    """One account. For superusers."""
    _check_superuser(request)
    return _user_or_404(user_id)


@router.patch("/users/{user_id}", response=UserOut, by_alias=False)
def patch_user(request: HttpRequest, user_id: Number, body: UserPatch) -> Any:
    """Rename, deactivate or promote an account. For superusers; the last one stays one."""
    _check_superuser(request)
    sent = {name: value for name, value in body.dict(exclude_unset=True).items() if value is not None}
    try:
        return change_user(_user_or_404(user_id), **sent, by=request.user)
    except UserRefused as error:
        raise HttpError(409, str(error)) from error


@router.post("/users/{user_id}/reset", response=LinkOut)
def post_reset(request: HttpRequest, user_id: Number, body: ResetIn) -> Any:
    """End an account's password, sessions and links, and its keys on request; the new link signs it in. For superusers."""
    _check_superuser(request)
    user = _user_or_404(user_id)
    try:
        return _link(user, reset_user(user, revoke_keys=body.revoke_keys, by=request.user))
    except UserRefused as error:
        raise HttpError(409, str(error)) from error


def _check_superuser(request: HttpRequest) -> None:
    if not getattr(request.user, "is_superuser", False):
        raise HttpError(403, "only superusers can see and change accounts; ask a superuser")


def _user_or_404(user_id: int) -> Any:
    user = get_user_model().objects.filter(pk=user_id).first()
    if user is None:
        raise HttpError(404, f"there is no account {user_id}; GET /users lists them")
    return user


def _link(user: Any, token: str) -> dict[str, Any]:
    hours = round(SIGN_IN_VALID.total_seconds() / 3600)
    return {"user_id": user.pk, "path": f"/enter/{token}/", "hours": hours}
