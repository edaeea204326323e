"""Users: create and rename them by form; deactivate, reset and make superusers by action."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminEmailInputWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from labeling.access.accounts import (
    AccountRefused,
    activate_account,
    change_account,
    check_names,
    create_account,
    deactivate_account,
    reset_account,
    set_superuser,
)
from labeling.access.links import make_link
from labeling.access.second_factor import turn_off
from labeling.models import Membership
from zelo_site.admin.base import ReadOnlyAdmin, lamp, link


class AccountForm(forms.ModelForm):
    """The names of an account; the verb's own check refuses them at their field."""

    username = forms.CharField(
        label=_("Sign-in name"), max_length=150, widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"})
    )
    full_name = forms.CharField(
        label=_("Shown name"), max_length=150, required=False, widget=UnfoldAdminTextInputWidget()
    )
    email = forms.EmailField(
        label=_("E-mail address"), max_length=254, required=False, widget=UnfoldAdminEmailInputWidget()
    )

    class Meta:
        model = User
        fields: tuple[str, ...] = ("username", "email")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["full_name"].initial = self.instance.get_full_name()

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors:
            try:
                check_names(self.instance, **self.names())
            except AccountRefused as error:
                self.add_error(error.field or None, str(error))
        return cleaned

    def names(self) -> dict[str, str]:
        """The names as the verbs take them."""
        return {name: self.cleaned_data.get(name, "") for name in ("username", "full_name", "email")}


class NewAccountForm(AccountForm):
    """A new account, which begins with a one-time link."""

    is_superuser = forms.BooleanField(
        label=_("Superuser"),
        required=False,
        widget=UnfoldBooleanSwitchWidget(),
        help_text=_("Owns every project and may open this admin."),
    )

    class Meta(AccountForm.Meta):
        fields = ("username", "email", "is_superuser")


class UserAdmin(ReadOnlyAdmin):
    """Accounts. Changes go through `labeling.access.accounts`."""

    title = _("Users")
    list_display = ("username", "shown_name", "email", "state", "rights", "project_count", "last_login", "date_joined")
    list_display_links = ("username",)
    list_filter = ("is_active", "is_superuser", "membership__role", "last_login")
    search_fields = ("username", "first_name", "last_name", "email")
    search_help_text = _("Name or e-mail address")
    ordering = ("username",)
    form = AccountForm
    fields = (
        "username",
        "full_name",
        "email",
        "state",
        "rights",
        "memberships",
        "last_login",
        "date_joined",
        "removal",
    )
    readonly_fields = ("state", "rights", "memberships", "last_login", "date_joined", "removal")
    actions = ("deactivate", "activate", "reset", "reset_second_factor", "sign_in_link", "grant", "withdraw")

    def get_urls(self) -> list[URLPattern]:
        add = path("add/", self.admin_site.admin_view(self.add_view), name="auth_user_add")
        return [add, *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return cast(
            "QuerySet[User]", super().get_queryset(request).annotate(projects_of=Count("membership", distinct=True))
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return AccountForm if obj else NewAccountForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj else ("username", "full_name", "email", "is_superuser")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.readonly_fields if obj else ()

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Call the verb; a new account's one-time link is shown once."""
        if change:
            change_account(obj, **form.names(), by=request.user)
            return
        is_superuser = bool(form.cleaned_data["is_superuser"])
        made = create_account(**form.names(), is_superuser=is_superuser, by=request.user)
        obj.pk = made.pk
        self._say_link(request, made, make_link(made, by=request.user))

    def _say_link(self, request: HttpRequest, user: Any, token: str) -> None:
        address = request.build_absolute_uri(reverse("enter", args=[token]))
        said = _("One-time link of %(name)s, shown only now and valid for 24 hours: %(address)s")
        messages.success(request, said % {"name": user.get_username(), "address": address})

    @admin.display(description=_("shown name"), ordering="first_name")
    def shown_name(self, user: User) -> str:
        return user.get_full_name() or "–"

    @admin.display(description=_("state"), ordering="is_active")
    def state(self, user: User) -> SafeString:
        return lamp(user.is_active, _("active"), _("deactivated"))

    @admin.display(description=_("server"), ordering="is_superuser")
    def rights(self, user: User) -> Any:
        return _("superuser") if user.is_superuser else _("member")

    @admin.display(description=_("projects"), ordering="projects_of")
    def project_count(self, user: Any) -> SafeString:
        address = f"{reverse('admin:labeling_membership_changelist')}?user__id__exact={user.pk}"
        return link(address if user.projects_of else "", user.projects_of)

    @admin.display(description=_("memberships"))
    def memberships(self, user: User) -> SafeString | str:
        live = Membership.objects.filter(user=user, project__archived_at__isnull=True)
        found = live.select_related("project").order_by("project__name")
        rows = [(reverse("people", args=[each.project.slug]), each.project.name, each.role) for each in found]
        return format_html_join(" · ", '<a class="z-link" href="{}">{}</a> ({})', rows) or "–"

    @admin.display(description=_("deletion"))
    def removal(self, user: User) -> SafeString:
        return link(reverse("delete-account", args=[user.pk]), _("Delete this account…"))

    @admin.action(description=_("Deactivate"))
    def deactivate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.run_verb(request, users, lambda user: deactivate_account(user, by=request.user), refused=AccountRefused)

    @admin.action(description=_("Activate"))
    def activate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.run_verb(request, users, lambda user: activate_account(user, by=request.user))

    @admin.action(description=_("Reset: remove password, end sessions"))
    def reset(self, request: HttpRequest, users: QuerySet[User]) -> HttpResponse | None:
        question = _("Remove the passwords of these accounts, end their sessions and make new one-time links?")
        if page := self.ask(request, users, str(question)):
            return page
        for user in users:
            try:
                self._say_link(request, user, reset_account(user, by=request.user))
            except AccountRefused as error:
                messages.error(request, str(error))
        return None

    @admin.action(description=_("Reset the second factor"))
    def reset_second_factor(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.run_verb(request, users, lambda user: turn_off(user, by=request.user))

    @admin.action(description=_("Make a one-time link"))
    def sign_in_link(self, request: HttpRequest, users: QuerySet[User]) -> None:
        for user in users.filter(is_active=True):
            self._say_link(request, user, make_link(user, by=request.user))

    @admin.action(description=_("Make superuser"))
    def grant(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.run_verb(request, users, lambda user: set_superuser(user, True, by=request.user))

    @admin.action(description=_("Take superuser rights away"))
    def withdraw(self, request: HttpRequest, users: QuerySet[User]) -> None:
        refused = AccountRefused
        self.run_verb(request, users, lambda user: set_superuser(user, False, by=request.user), refused=refused)
