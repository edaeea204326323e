"""Errors of the REST interface as problem details (RFC 9457), for every status, unknown addresses and methods included.

A problem has `type`, `title`, `status`, `detail`, `instance` and `errors`: one entry per bad field or line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import pydantic
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, AuthorizationError, HttpError, ValidationError

from labeling.importing.strict_json import BadJson, NotJson
from scoring.storage.files import StoredFileUnusable

CONTENT_TYPE = "application/problem+json"
SERVER_ERROR = "The server failed to answer. Nothing was stored in part; see the server's log, then retry."
UNAUTHENTICATED = "the request has no valid API key or session; send Authorization: Bearer zelo_..."

log = logging.getLogger("django.request")


class LineErrors(HttpError):
    """422 for a request with bad lines; `errors` has `line`, `field` and `detail` of each."""

    def __init__(self, detail: str, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(422, detail)
        self.errors = list(errors)


def problem(request: HttpRequest, status: int, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> JsonResponse:
    """The response of one error; `instance` is the path of the request."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "errors": list(errors),
    }
    return JsonResponse(body, status=status, content_type=CONTENT_TYPE)


@csrf_exempt
@login_not_required
def unknown_address(request: HttpRequest) -> HttpResponse:
    """404 for an address under /api that is not an operation."""
    return problem(request, 404, f"no operation has the address {request.path}; /api/v1/docs lists all")


def as_problems(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The view with its 405 as a problem; ninja answers with plain text."""

    def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        if response.status_code != 405:
            return response
        refused = problem(request, 405, f"{request.method} is not allowed here; allowed: {response['Allow']}")
        refused["Allow"] = response["Allow"]
        return refused

    for name, value in vars(view).items():
        setattr(answered, name, value)
    return answered


def answer_with_problems(api: NinjaAPI) -> None:
    """Register the handlers of all errors at `api`."""
    statuses: dict[type[Exception], Callable[[HttpRequest, Any], HttpResponse]] = {
        HttpError: _http_error,
        ValidationError: _invalid,
        AuthenticationError: lambda request, error: problem(request, 401, UNAUTHENTICATED),
        AuthorizationError: lambda request, error: problem(request, 403, str(error)),
        PermissionDenied: lambda request, error: problem(
            request, 403, str(error) or "you do not have permission for this"
        ),
        Http404: lambda request, error: problem(request, 404, f"nothing at {request.path} is visible to you"),
        RequestDataTooBig: lambda request, error: problem(request, 413, f"{error} Send less in a request."),
        SuspiciousOperation: lambda request, error: problem(request, 400, str(error)),
        StoredFileUnusable: _unusable_file,
        UnreadablePostError: lambda request, error: problem(request, 400, "the request ended early; send it again"),
        Exception: _server_error,
    }
    for kind, handler in statuses.items():
        api.add_exception_handler(kind, handler)


def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    if error.status_code == 401:
        return problem(request, 401, UNAUTHENTICATED)
    if isinstance(error.__cause__, BadJson):  # of `StrictParser`, whose message ninja leaves out
        return problem(request, 400 if isinstance(error.__cause__, NotJson) else 422, str(error.__cause__))
    if isinstance(error.__cause__, pydantic.ValidationError):  # of options, whose own text has several lines
        errors = _listed(error.__cause__.errors())
        return problem(request, error.status_code, _said(errors), errors)
    return problem(request, error.status_code, error.message, getattr(error, "errors", ()))


def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = _listed(error.errors)
    return problem(request, 422, f"the request is invalid: {_said(errors)}", errors)


def _listed(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """pydantic's errors as members of a problem."""
    return [
        {"location": list(map(str, each["loc"])), "detail": str(each["msg"]), "code": str(each["type"])}
        for each in errors
    ]


def _said(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first errors in one line."""
    return "; ".join(": ".join(filter(None, [".".join(each["location"]), each["detail"]])) for each in errors[:3])


def _unusable_file(request: HttpRequest, error: StoredFileUnusable) -> HttpResponse:
    log.error("%s: %s", request.path, error)
    return problem(request, 409, str(error))


def _server_error(request: HttpRequest, error: Exception) -> HttpResponse:
    got_request_exception.send(sender=None, request=request)
    log.error("Internal Server Error: %s", request.path, exc_info=error)
    return problem(request, 500, SERVER_ERROR)
