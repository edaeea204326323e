"""The operator's limits, for superusers: what endpoints may cost a day or in total, and which projects may use them.

`workers.budgets.operator_changes` makes the changes, as for REST and the command.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Project
from workers.budgets.limits import BadBudget
from workers.budgets.operator_changes import (
    LimitRefused,
    allow_projects,
    list_limits,
    remove_limit,
    set_limit,
)
from workers.models import EndpointRestriction, OperatorLimit
from workers.monitoring.endpoint_list import EndpointsInvalid, list_endpoints
from zelo_site.pages.forms import BadForm, PageForm, one_of, whole_number
from zelo_site.pages.judging.limits import LimitsForm

ACTIONS = ("set", "remove", "projects")
NUMBERS = ("calls", "tokens", "cost_micros")
ALL, SOME = "all", "some"


class WhereForm(PageForm):
    """The scope of a limit."""

    endpoint = forms.CharField(label=gettext_lazy("Endpoint"), max_length=80, required=False)
    project = forms.ModelChoiceField(label=gettext_lazy("Project"), queryset=Project.objects.none(), required=False)
    period = forms.ChoiceField(
        label=gettext_lazy("Period"),
        choices=[("day", gettext_lazy("a day")), ("total", gettext_lazy("in total"))],
        initial="day",
    )


class AllowedForm(PageForm):
    """The projects that may use an endpoint."""

    name = forms.CharField(label=gettext_lazy("Endpoint"), max_length=80)
    who = forms.ChoiceField(
        label=gettext_lazy("May be used by"),
        choices=[(ALL, gettext_lazy("all projects")), (SOME, gettext_lazy("the chosen projects"))],
        initial=ALL,
    )
    allowed = forms.ModelMultipleChoiceField(
        label=gettext_lazy("Projects"), queryset=Project.objects.none(), required=False
    )


def limits_page(request: HttpRequest) -> HttpResponse:
    """Show all limits with what counts towards them; a POST sets or removes one, or chooses an endpoint's projects."""
    if not getattr(request.user, "is_superuser", False):
        raise PermissionDenied(_("only superusers can see and change the operator's limits; ask a superuser"))
    projects = Project.objects.order_by("name")
    if request.method != "POST":
        return _page(request, _where(projects), LimitsForm(names=NUMBERS), _allowed(projects))
    where, limits, allowed = _where(projects), LimitsForm(names=NUMBERS), _allowed(projects)
    try:
        action = one_of(request.POST, "action", ACTIONS)
        if action == "set":
            where = WhereForm(request.POST, rows={"project": projects})
            limits = LimitsForm(request.POST, names=NUMBERS)
            set_limit(**where.checked(), **limits.checked(), by=request.user)
        elif action == "remove":
            remove_limit(whole_number(request.POST, "limit") or 0, by=request.user)
        elif action == "projects":
            allowed = AllowedForm(request.POST, rows={"allowed": projects})
            values = allowed.checked()
            chosen = None if values["who"] == ALL else list(values["allowed"])
            allow_projects(values["name"], chosen, by=request.user)
    except (BadForm, BadBudget, LimitRefused) as error:
        return _page(request, where, limits, allowed, error=error, status=422)
    messages.success(request, _("Saved. The change applies to the next call."))
    return redirect("limits")


def _where(projects: QuerySet[Project]) -> WhereForm:
    return WhereForm(rows={"project": projects})


def _allowed(projects: QuerySet[Project]) -> AllowedForm:
    return AllowedForm(rows={"allowed": projects})


def _page(
    request: HttpRequest,
    where: WhereForm,
    limits: LimitsForm,
    allowed: AllowedForm,
    *,
    error: Exception | None = None,
    status: int = 200,
) -> HttpResponse:
    try:
        names = [row.name for row in list_endpoints(with_judges=False)]
    except EndpointsInvalid:
        names = list(OperatorLimit.objects.exclude(endpoint="").values_list("endpoint", flat=True))
    context: dict[str, Any] = {
        "rows": list_limits(),
        "closed": EndpointRestriction.objects.prefetch_related("projects"),
        "where": where,
        "limits": limits,
        "allowed": allowed,
        "names": names,
        "error": error,
        "here": "endpoints",
    }
    return render(request, "zelo/endpoints/limits.html", context, status=status)
