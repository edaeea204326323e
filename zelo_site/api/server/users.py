"""REST of accounts, for superusers: list, create, change, reset. Deletion is in `zelo_site.api.lifecycle.projects`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.accounts import (
    AccountRefused,
    activate_account,
    change_account,
    create_account,
    deactivate_account,
    reset_account,
    set_staff,
    set_superuser,
)
from labeling.access.links import SIGN_IN_VALID, make_link
from labeling.access.second_factor import turn_off
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.projects import Text

router = Router(tags=["users"])


class UserIn(Schema):
    username: Text = Field(min_length=1, max_length=150)
    name: Text = Field("", max_length=150)
    email: Text = Field("", max_length=254)
    is_staff: bool = False


class UserPatch(Schema):
    """Omitted fields stay as they are. Staff may start projects; superusers may do everything."""

    username: Text | None = Field(None, min_length=1, max_length=150)
    name: Text | None = Field(None, max_length=150)
    email: Text | None = Field(None, max_length=254)
    is_active: bool | None = None
    is_staff: bool | None = None
    is_superuser: bool | None = None


class UserOut(Schema):
    id: int
    username: str
    name: str = Field(alias="get_full_name")
    email: str
    is_active: bool
    is_staff: bool
    is_superuser: bool
    joined_at: datetime = Field(alias="date_joined")
    last_login: datetime | None


class LinkOut(Schema):
    """`path` under the server's address signs the account in once, within `hours`; it is shown only once."""

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
        with transaction.atomic():
            user = create_account(
                body.username, full_name=body.name, email=body.email, is_staff=body.is_staff, by=request.user
            )
            return Status(201, _link(user, make_link(user, by=request.user)))
    except AccountRefused as error:
        raise HttpError(422, str(error)) from error


@router.get("/users/{user_id}", response=UserOut, by_alias=False)
def get_user(request: HttpRequest, user_id: Number) -> Any:
    """One account. For superusers."""
    _check_superuser(request)
    return _user_or_404(user_id)


@router.patch("/users/{user_id}", response=UserOut, by_alias=False)
def patch_user(request: HttpRequest, user_id: Number, body: UserPatch) -> Any:
    """Rename, deactivate or promote an account. For superusers; the last superuser stays one."""
    _check_superuser(request)
    user = _user_or_404(user_id)
    try:
        with transaction.atomic():
            _change(user, body, by=request.user)
    except AccountRefused as error:
        raise HttpError(422 if error.field else 409, str(error)) from error
    return _user_or_404(user_id)


def _change(user: Any, body: UserPatch, *, by: Any) -> None:
    """Apply what was sent, rights first: a name that is refused takes them back."""
    if body.is_superuser is not None:
        set_superuser(user, body.is_superuser, by=by)
    if body.is_staff is not None:
        set_staff(user, body.is_staff, by=by)
    if body.is_active is not None:
        (activate_account if body.is_active else deactivate_account)(user, by=by)
    change_account(
        user,
        username=user.get_username() if body.username is None else body.username,
        full_name=user.get_full_name() if body.name is None else body.name,
        email=user.email if body.email is None else body.email,
        by=by,
    )


@router.post("/users/{user_id}/reset", response=LinkOut)
def post_reset(request: HttpRequest, user_id: Number, body: ResetIn) -> Any:
    """End an account's password, sessions and links, and its keys on request; the new link signs it in. For superusers."""
    _check_superuser(request)
    user = _user_or_404(user_id)
    try:
        return _link(user, reset_account(user, revoke_keys=body.revoke_keys, by=request.user))
    except AccountRefused as error:
        raise HttpError(409, str(error)) from error


@router.delete("/users/{user_id}/second-factor", response={204: None})
def delete_second_factor(request: HttpRequest, user_id: Number) -> Any:
    """Remove an account's second factor, for example after a lost phone. For superusers."""
    _check_superuser(request)
    if not turn_off(_user_or_404(user_id), by=request.user):
        raise HttpError(404, f"account {user_id} has no second factor")
    return Status(204, None)


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
