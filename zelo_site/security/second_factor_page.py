"""The page of the second factor: set it up, enter its code after sign-in, replace its backup codes, turn it off."""

from __future__ import annotations

from typing import Any

import segno
from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from labeling.access.second_factor import (
    WrongCode,
    check_code,
    codes_left,
    has_second_factor,
    new_device,
    replace_codes,
    turn_off,
    turn_on,
)
from zelo_site.accounts import next_address
from zelo_site.pages.forms import PageForm, one_of
from zelo_site.security.second_factor import DUE, GIVEN, is_required
from zelo_site.security.sessions import end_other_sessions

ACTIONS = ("on", "enter", "codes", "off")


class CodeForm(PageForm):
    """A code of the app, or a backup code."""

    code = forms.CharField(label=gettext_lazy("Code"), max_length=20)


@never_cache
@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
def second_factor_page(request: HttpRequest) -> HttpResponse:
    """Show what the session can do; a POST does it with a code."""
    if request.method != "POST":
        return _page(request, CodeForm())
    form = CodeForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    try:
        return _act(request, one_of(request.POST, "action", ACTIONS, "enter"), form.cleaned_data["code"])
    except WrongCode:
        form.add_error("code", _("The code is wrong or was used before. Wait for the next one, then try again."))
        return _page(request, form, status=422)


def _act(request: HttpRequest, action: str, code: str) -> HttpResponse:
    """Do it and answer. Raises WrongCode. Only a session that has given its code may change anything."""
    user: Any = request.user
    if not has_second_factor(user):
        codes = turn_on(user, code, by=user)
        _note_given(request)
        end_other_sessions(user, request.session.session_key or "", by=user)  # they were never asked for a code
        return _page(request, CodeForm(), codes=codes)
    check_code(user, code)
    if action == "enter" or not request.session.get(GIVEN):
        _note_given(request)
        return redirect(next_address(request))
    if action == "codes":
        return _page(request, CodeForm(), codes=replace_codes(user, by=user))
    if action == "off" and not is_required(user):
        turn_off(user, by=user)
        request.session[DUE] = False
        messages.success(request, _("Second factor turned off."))
    return redirect("profile")


def _note_given(request: HttpRequest) -> None:
    request.session[DUE] = request.session[GIVEN] = True


def _page(request: HttpRequest, form: CodeForm, *, codes: list[str] | None = None, status: int = 200) -> HttpResponse:
    user: Any = request.user
    is_on = has_second_factor(user)
    context: dict[str, Any] = {
        "form": form,
        "codes": codes,
        "is_on": is_on,
        "is_given": bool(request.session.get(GIVEN)),
        "is_required": is_required(user),
        "next": next_address(request),
        "codes_left": codes_left(user) if is_on else 0,
    }
    if not is_on:
        device = new_device(user)
        address = device.config_url
        drawn = segno.make(address).svg_inline(scale=4, light="#fff", title=_("QR code for the authenticator app"))
        context |= {"drawing": mark_safe(drawn), "secret": address.partition("secret=")[2].partition("&")[0]}
    return render(request, "zelo/account/second_factor.html", context, status=status)
