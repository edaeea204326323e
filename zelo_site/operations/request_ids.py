"""Gives every web request an id, which its response, its log lines and the tasks that it sends have as well.

A trusted proxy may have given it (X-Request-ID); a client's own is not taken, since it could copy another's.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from workers.broker.request_ids import bind_request_id, forget_request_id
from zelo_site.security.proxies import is_in

HEADER = "X-Request-ID"
USABLE = re.compile(r"[A-Za-z0-9._-]{8,64}")
log = logging.getLogger("zelo.access")


class RequestIdMiddleware:
    """Binds the request's id and, with ZELO_LOG=json, logs a line about each response. The first of all middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.trusted = [ipaddress.ip_network(each) for each in settings.ZELO_TRUSTED_PROXIES]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        number = self._id_of(request)
        bind_request_id(number)
        try:
            response = self.get_response(request)
            response[HEADER] = number
            if settings.ZELO_LOG == "json":
                _log(request, response, time.monotonic() - began)
            return response
        finally:
            forget_request_id()

    def _id_of(self, request: HttpRequest) -> str:
        given = request.headers.get(HEADER, "")
        if USABLE.fullmatch(given) and is_in(request.META.get("REMOTE_ADDR", ""), self.trusted):
            return given
        return uuid.uuid4().hex


def _log(request: HttpRequest, response: HttpResponse, seconds: float) -> None:
    """One line, with the route instead of the address: a sign-in link's address is a secret."""
    route = getattr(request.resolver_match, "route", "") if request.resolver_match else ""
    fields = {"method": request.method, "route": route, "status": response.status_code, "ms": round(1000 * seconds, 1)}
    log.info("request", extra=fields)
