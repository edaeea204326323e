"""Asks for the code of the second factor after sign-in: until it was given, a session opens the page of the code alone.

ZELO_SECOND_FACTOR says which accounts must have one: none, superusers, or staff and superusers. Accounts that have one are
always asked. Programs with an API key are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from labeling.access.second_factor import has_second_factor
from zelo_site.api.conventions.problems import problem

# Keys of the session: a code is due, a code was given.
DUE, GIVEN = "second_factor_due", "second_factor_given"
OPEN_PAGES = frozenset({"second-factor", "sign-out", "set-language", "healthz", "readyz", "health"})


@receiver(user_logged_in)
def note_due(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """Remember in the session whether its account asks for a code."""
    session = getattr(request, "session", None)
    if session is not None:
        session.pop(GIVEN, None)
        session[DUE] = has_second_factor(user)


def is_required(user: Any) -> bool:
    """Whether the operator demands a second factor of this account."""
    whom = settings.ZELO_SECOND_FACTOR
    return bool((whom and user.is_superuser) or (whom == "STAFF" and user.is_staff))


def is_waiting(request: HttpRequest) -> bool:
    """Whether the session's account has to give a code, or to set up the second factor, first."""
    if request.session.get(GIVEN):
        return False
    if request.session.get(DUE):
        return request.user.is_authenticated
    return bool(settings.ZELO_SECOND_FACTOR) and request.user.is_authenticated and is_required(request.user)


class SecondFactorMiddleware:
    """Sends sessions that wait for a code to its page; REST answers 403."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, parameters: Any) -> HttpResponse | None:
        """Return None where the view may answer. A request without a session's cookie costs nothing."""
        name = request.resolver_match.url_name if request.resolver_match else ""
        if settings.SESSION_COOKIE_NAME not in request.COOKIES or name in OPEN_PAGES or not is_waiting(request):
            return None
        address = reverse("second-factor")
        if request.path_info.startswith("/api/"):
            return problem(request, 403, f"this session waits for the code of its second factor; enter it at {address}")
        return redirect(f"{address}?{urlencode({'next': request.get_full_path()})}")
