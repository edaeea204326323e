"""Chooses the visitor's language: their own choice, or the browser's.

The choice is stored three times: with the user (for other devices), in the session (to avoid a database query per
request), and in a cookie (for pages before sign-in).
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.middleware.locale import LocaleMiddleware
from django.shortcuts import redirect
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from zelo_site.models import Preferences
from zelo_site.pages.forms import one_of

SESSION_KEY = "language"


def _is_offered(language: str) -> bool:
    return language in dict(settings.LANGUAGES)


class ChosenLanguageMiddleware(LocaleMiddleware):
    """Apply the stored language, or let Django choose."""

    def process_request(self, request: HttpRequest) -> None:
        chosen = request.session.get(SESSION_KEY, "")
        if not _is_offered(chosen):
            super().process_request(request)
            return
        translation.activate(chosen)
        request.LANGUAGE_CODE = chosen


@receiver(user_logged_in, dispatch_uid="language_of_the_person")
def _remember(sender: Any, request: HttpRequest, user: AbstractBaseUser, **_: Any) -> None:
    """Switch to the user's own language at sign-in, instead of the previous user's."""
    found = Preferences.objects.filter(user_id=user.pk).values_list("language", flat=True).first()
    if found:
        request.session[SESSION_KEY] = found


@login_not_required
@require_POST
def set_language(request: HttpRequest) -> HttpResponse:
    """Set the language and return to the previous page; ignore an unknown language."""
    language = one_of(request.POST, "language", dict(settings.LANGUAGES))
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = "/"
    response = redirect(back)
    if not language:
        return response
    if request.user.is_authenticated:  # the cookie is enough for visitors, who could fill the table of sessions
        request.session[SESSION_KEY] = language
        Preferences.objects.update_or_create(user=request.user, defaults={"language": language})
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=settings.LANGUAGE_COOKIE_AGE,
        secure=settings.HTTPS,
        samesite="Lax",
        httponly=True,
    )
    return response
