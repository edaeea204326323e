"""Signing in by one-time link or password, signing out, and one's own profile.

A link is only used up by a POST: whatever previews or prefetches an address cannot spend it.
Passwords are Django's; django-axes slows guessing down. Links come from `labeling.access`.
"""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from labeling.access import LinkRefused, find_link, redeem

BACKEND = "django.contrib.auth.backends.ModelBackend"


def _next_address(request: HttpRequest) -> str:
    """Where to go after signing in: an address of this server, or the projects."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure()):
        return wanted
    return resolve_url(settings.LOGIN_REDIRECT_URL)


@login_not_required
@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """The form, and what it sends."""
    if request.user.is_authenticated:
        return redirect(_next_address(request))
    username = request.POST.get("username", "")
    if request.method == "POST":
        user = authenticate(request, username=username, password=request.POST.get("password", ""))
        if user is not None:
            login(request, user)
            return redirect(_next_address(request))
    failed = request.method == "POST"
    context = {"username": username, "failed": failed, "next": _next_address(request)}
    return render(request, "zelo/sign_in.html", context, status=403 if failed else 200)


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def use_link(request: HttpRequest, token: str) -> HttpResponse:
    """Show whom a link is for; a POST uses it up and signs in."""
    if request.method == "POST":
        visitor = request.user if request.user.is_authenticated else None
        try:
            user = redeem(token, visitor=visitor, name=request.POST.get("name", ""))
        except LinkRefused:
            return render(request, "zelo/link.html", {"link": None}, status=404)
        if request.user.pk != user.pk:
            login(request, user, backend=BACKEND)
        return redirect(_next_address(request))
    link = find_link(token)
    return render(request, "zelo/link.html", {"link": link}, status=200 if link else 404)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect(settings.LOGOUT_REDIRECT_URL)


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Who one is, and one's password; the old one is asked for where there is one."""
    user = cast(User, request.user)
    form_class = PasswordChangeForm if user.has_usable_password() else SetPasswordForm
    form = form_class(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        update_session_auth_hash(request, user)
        messages.success(request, "Your password is set. You can sign in with it from now on.")
        return redirect("profile")
    return render(request, "zelo/profile.html", {"form": form})
