"""Limits on the size of a request, by its sender: decided from its headers, before anything reads or parses its body.

Django parses a form, and writes its files to disk, when the CSRF check looks for the token: before any view has asked who
sends it. This middleware stands before that check. `zelo_site.processes.patient_worker` limits the time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from labeling.access.api_keys import find_token
from labeling.access.members import role_of
from labeling.models import Project, Role
from labeling.projects import may_create
from trainer.serving.access.access_cache import NO_KEY
from trainer.serving.protocols import MOST_BODY_BYTES, RerankRefused, dialect_of, error_body, error_headers
from zelo_site.api.conventions.problems import UNAUTHENTICATED, problem
from zelo_site.processes.patient_worker import SMALL_BODY_BYTES
from zelo_site.security.upload_room import DiskTooFull, Reservation, RoomTaken, reserve

ANONYMOUS_BYTES = SMALL_BODY_BYTES
SIGNED_IN_BYTES = 2 * 1024 * 1024
# Uploads leave this much of the disk free.
FREE_BYTES = 512 * 1024 * 1024

# The addresses that take files or many rows, and who may send them. All others take SIGNED_IN_BYTES.
FOR_STARTERS = frozenset({"new-project", "preview-import", "import-archive", "post_archive"})
FOR_OWNERS = frozenset(
    {
        "import",
        "recordings",
        "proof",
        "post_import",
        "post_import_preview",
        "post_recording",
        "post_run_file",
        "post_bulk",
    }
)
RERANKING = "rerank-"


class Refusal(Exception):
    """A request that is refused unread: its status and what its sender can do."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(text)


class RequestLimitsMiddleware:
    """Refuses a body that is too large for its sender and its address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            return self.get_response(request)
        finally:
            reserved: Reservation | None = getattr(request, "zelo_room", None)
            if reserved is not None:
                reserved.release()

    def process_view(
        self, request: HttpRequest, view: Any, arguments: Any, parameters: dict[str, Any]
    ) -> HttpResponse | None:
        """Return the refusal, or None: the view answers."""
        try:
            check_body(request, parameters)
        except Refusal as refused:
            return _answer(request, refused)
        return None


def check_body(request: HttpRequest, parameters: dict[str, Any]) -> None:
    """Raise Refusal, PermissionDenied or Http404 if the sender may not send a body of this size to this address."""
    if "HTTP_TRANSFER_ENCODING" in request.META:
        raise Refusal(411, _("the request has no Content-Length; send the body's length"))
    length = int(request.META.get("CONTENT_LENGTH") or 0)
    if length <= ANONYMOUS_BYTES:
        return
    user = _sender(request)
    if user is None:
        if request.path_info.startswith("/api/"):
            raise Refusal(401, UNAUTHENTICATED)
        if _address_name(request).startswith(RERANKING):
            raise Refusal(401, NO_KEY)
        raise _too_large(length, ANONYMOUS_BYTES)
    most = _most_bytes(request, user, parameters)
    if length > most:
        raise _too_large(length, most)
    if most == settings.ZELO_MAX_UPLOAD_BYTES:
        request.zelo_room = _room(length)  # type: ignore[attr-defined]


def _room(length: int) -> Reservation:
    """Reserve room for the body until the response. Raises Refusal."""
    folder, most = Path(settings.FILE_UPLOAD_TEMP_DIR), settings.ZELO_MAX_UPLOAD_BYTES
    try:
        return reserve(folder, length, most=most, free=FREE_BYTES)
    except DiskTooFull:
        text = _("the server's disk is almost full; ask its operator to free space, then retry")
        raise Refusal(507, text) from None
    except RoomTaken:
        raise Refusal(503, _("other uploads are in progress; retry in a minute")) from None


def _sender(request: HttpRequest) -> Any:
    """Return the user of the session or of the API key, or None."""
    kind, _space, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        found = find_token(token.strip())
        return found.user if found is not None else None
    user: Any = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


def _most_bytes(request: HttpRequest, user: Any, parameters: dict[str, Any]) -> int:
    name = _address_name(request)
    if name.startswith(RERANKING):
        return MOST_BODY_BYTES
    if name in FOR_STARTERS:
        if not may_create(user):
            raise PermissionDenied(_("only staff and project owners can create projects; ask an owner"))
        return int(settings.ZELO_MAX_UPLOAD_BYTES)
    if name in FOR_OWNERS:
        project = Project.objects.visible_to(user).filter(slug=parameters.get("slug", "")).first()
        if project is None:
            raise Http404
        if role_of(user, project) != Role.OWNER:
            raise PermissionDenied(_("only owners can change %(project)s; ask an owner") % {"project": project.name})
        return int(settings.ZELO_MAX_UPLOAD_BYTES)
    return SIGNED_IN_BYTES


def _address_name(request: HttpRequest) -> str:
    return (request.resolver_match.url_name if request.resolver_match else "") or ""


def _too_large(length: int, most: int) -> Refusal:
    text = _("the request has %(length)s bytes; at most %(most)s are accepted here")
    return Refusal(413, text % {"length": f"{length:,}", "most": f"{most:,}"})


def _answer(request: HttpRequest, refused: Refusal) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        return problem(request, refused.status, refused.text)
    if _address_name(request).startswith(RERANKING):
        error = RerankRefused(refused.status, refused.text)
        body = error_body(dialect_of(request.path), error)
        return JsonResponse(body, status=refused.status, headers=error_headers(error))
    return render(request, "zelo/refused.html", {"text": refused.text}, status=refused.status)
