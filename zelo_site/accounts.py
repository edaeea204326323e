"""Sign-in by one-time link or by name or e-mail address and password, sign-out, and the profile page.

Only a POST uses up a link, so previews and prefetching cannot. Passwords are Django's, and django-axes limits
guessing. Links come from `labeling.access.links`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from labeling.access.accounts import AccountRefused, change_account, find_account
from labeling.access.api_keys import SCOPES, make_token, revoke_token
from labeling.access.links import LinkRefused, find_link, redeem
from labeling.access.sign_ins import set_password
from labeling.models import AccessLink, ApiToken, GoldFeedback, Membership, Project, Role
from scoring.annotators.people import PersonFigures, people_figures
from scoring.numerics.judges.judge_checks import Estimate
from zelo_site.pages.forms import PageForm, one_of, whole_number
from zelo_site.security.sessions import end_other_sessions, end_session, note_session, sessions_of

# The profile shows agreement with the judges once there are this many common pairs.
FEWEST_SHOWN = 30
# Shares are shown in steps of 5 %, and numbers of pairs in tens, so that one more answer seldom changes them.
STEP, TENS = 0.05, 10

BACKEND = "django.contrib.auth.backends.ModelBackend"


def next_address(request: HttpRequest) -> str:
    """Return the address to open after sign-in: a local address, or the list of projects."""
    wanted = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure()):
        return wanted
    return resolve_url(settings.LOGIN_REDIRECT_URL)


class SignInForm(PageForm):
    """Name or e-mail address, and password. The page does not say which of them is wrong."""

    username = forms.CharField(label=gettext_lazy("Name or e-mail address"), max_length=254, strip=False)
    password = forms.CharField(label=gettext_lazy("Password"), max_length=4096, strip=False)


class NewcomerForm(PageForm):
    """The name of an invited person who is not signed in."""

    name = forms.CharField(label=gettext_lazy("Your name"), max_length=150, required=False)


class NamesForm(PageForm):
    """The names of one's own account."""

    username = forms.CharField(label=gettext_lazy("Sign-in name"), max_length=150)
    full_name = forms.CharField(label=gettext_lazy("Shown name"), max_length=150, required=False)
    email = forms.CharField(label=gettext_lazy("E-mail address"), max_length=254, required=False)


class KeyForm(PageForm):
    """A new API key: its name and permissions."""

    name = forms.CharField(label=gettext_lazy("Key name"), max_length=100, required=False)
    scope = forms.MultipleChoiceField(
        label=gettext_lazy("Permissions"),
        choices=[(scope, scope) for scope in SCOPES],
        initial=["read"],
        error_messages={"required": gettext_lazy("Choose at least one permission for the key.")},
    )
    days = forms.ChoiceField(
        label=gettext_lazy("Valid for"),
        choices=[
            ("30", gettext_lazy("30 days")),
            ("90", gettext_lazy("90 days")),
            ("365", gettext_lazy("365 days")),
            ("", gettext_lazy("until revoked")),
        ],
        initial="90",
        required=False,
    )


@login_not_required
@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """Show the sign-in form; a POST signs in."""
    if request.user.is_authenticated:
        return redirect(next_address(request))
    form = SignInForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        known = find_account(form.cleaned_data["username"])
        name = known.get_username() if known is not None else form.cleaned_data["username"]
        user = authenticate(request, username=name, password=form.cleaned_data["password"])
        if user is not None:
            login(request, user)
            return redirect(next_address(request))
    failed = request.method == "POST"
    context = {"form": form, "failed": failed, "next": next_address(request)}
    return render(request, "zelo/account/sign_in.html", context, status=403 if failed else 200)


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def use_link(request: HttpRequest, token: str) -> HttpResponse:
    """Show whose link it is; a POST uses the link up and signs in."""
    form = NewcomerForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        visitor = request.user if request.user.is_authenticated else None
        known = find_link(token)
        invited_to = getattr(known, "project", None)
        if known is not None and _lacks_name(known, visitor, form.cleaned_data["name"]):
            form.add_error("name", _("Type your name: the project’s owner sees it next to your answers."))
            return render(request, "zelo/account/link.html", {"link": known, "form": form}, status=422)
        try:
            user = redeem(token, visitor=visitor, name=form.cleaned_data["name"])
        except LinkRefused:
            return render(request, "zelo/account/link.html", {"link": None}, status=404)
        if request.user.pk != user.pk:
            login(request, user, backend=BACKEND)
        return redirect("project", slug=invited_to.slug) if invited_to else redirect(next_address(request))
    link = find_link(token)
    status = 404 if link is None else 422 if form.is_bound else 200
    return render(request, "zelo/account/link.html", {"link": link, "form": form}, status=status)


def _lacks_name(link: AccessLink, visitor: Any, name: str) -> bool:
    """Return whether the link would make an account without a name."""
    return link.user_id is None and visitor is None and not (name.strip() or link.name)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect(settings.LOGOUT_REDIRECT_URL)


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Show the user's details, figures, API keys and password form, which asks for the old password if there is one."""
    user = cast(User, request.user)
    if one_of(request.POST, "action", ["names"]):
        return _rename(request, user)
    form_class = PasswordChangeForm if user.has_usable_password() else SetPasswordForm
    form = form_class(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        revoke_keys = request.POST.get("revoke_keys") == "on"
        set_password(user, form.cleaned_data["new_password1"], revoke_keys=revoke_keys, by=user)
        update_session_auth_hash(request, user)
        note_session(None, request, user)  # the session has a new key
        messages.success(request, _("Password saved. You can now sign in with it."))
        return redirect("profile")
    return render(request, "zelo/account/profile.html", _profile(request, user, form=form))


def _rename(request: HttpRequest, user: User) -> HttpResponse:
    """Change one's own names; a name that is refused keeps its error at its field."""
    form = NamesForm(request.POST)
    if form.is_valid():
        try:
            change_account(user, **form.cleaned_data, by=user)
        except AccountRefused as error:
            form.add_error(error.field or None, str(error))
        else:
            messages.success(request, _("Names saved."))
            return redirect("profile")
    return render(request, "zelo/account/profile.html", _profile(request, user, names=form), status=422)


@dataclass(frozen=True, slots=True)
class OwnWork:
    """A user's work in one project."""

    project: Project
    role: str
    figures: PersonFigures


def _own_work(user: User) -> list[OwnWork]:
    """Return the user's pace and agreement in each of their projects with answers."""
    members = (
        Membership.objects.filter(user=user, project__archived_at__isnull=True)
        .select_related("project")
        .order_by("-project_id")
    )
    found = ((member, figures) for member in members for figures in people_figures(member.project, user=user))
    return [
        OwnWork(member.project, member.role, figures if member.role == Role.OWNER else _blind(member.project, figures))
        for member, figures in found
        if figures.answers
    ]


def _blind(project: Project, figures: PersonFigures) -> PersonFigures:
    """Return the figures without any that reveal expected answers or judges' answers one by one."""
    judges = figures.with_judges
    few = judges is None or judges.count < FEWEST_SHOWN
    shown = replace(figures, with_judges=None if few or judges is None else _rounded(judges))
    return replace(shown, gold=None) if project.gold_feedback != GoldFeedback.OPEN else shown


def _rounded(each: Estimate) -> Estimate:
    value, low, high = (round(share / STEP) * STEP for share in (each.value, each.low, each.high))
    return Estimate(value, low, high, each.count - each.count % TENS)


# --- API keys ----------------------------------------------------------------------------


def _profile(request: HttpRequest, user: User, **more: Any) -> dict[str, Any]:
    """Return the page's context; `more` replaces parts of it."""
    password = PasswordChangeForm if user.has_usable_password() else SetPasswordForm
    names = {"username": user.username, "full_name": user.get_full_name(), "email": user.email}
    return {
        "form": password(user),
        "names": NamesForm(initial=names),
        "work": _own_work(user),
        "tokens": ApiToken.objects.filter(user=user).order_by("-id"),
        "key_form": KeyForm(),
        "sessions": sessions_of(user),
        "session_key": request.session.session_key,
        **more,
    }


@require_POST
def change_sessions(request: HttpRequest) -> HttpResponse:
    """Sign one browser of the user out, or all others."""
    user = cast(User, request.user)
    if one_of(request.POST, "action", ["others"]):
        count = end_other_sessions(user, request.session.session_key or "", by=user)
        text = ngettext("%(n)s session ended.", "%(n)s sessions ended.", count) % {"n": count}
        messages.success(request, text)
    elif end_session(user, whole_number(request.POST, "session") or 0, by=user):
        messages.success(request, _("Session ended."))
    return redirect("profile")


@never_cache
@require_POST
def change_tokens(request: HttpRequest) -> HttpResponse:
    """Create an API key, shown only in this response, or revoke one of the user's keys."""
    user = cast(User, request.user)
    if one_of(request.POST, "action", ["revoke"]):
        if revoke_token(user, whole_number(request.POST, "token") or 0, by=user):
            messages.success(request, _("Key revoked."))
        return redirect("profile")
    key = KeyForm(request.POST)
    if not key.is_valid():
        return render(request, "zelo/account/profile.html", _profile(request, user, key_form=key), status=422)
    chosen = key.cleaned_data
    days = int(chosen["days"]) if chosen["days"] else None
    token = make_token(user, name=chosen["name"] or _("key"), scopes=chosen["scope"], days=days, by=user)
    return render(request, "zelo/account/profile.html", _profile(request, user, new_token=token))
