"""A project's settings, for owners: name, instruction, rater with options, and spending caps.

`labeling.projects.change_project` and `workers.budgets.changes.change_caps` make the changes, as in the REST API and the
command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from labeling.models import Project
from labeling.plugins import UnknownPlugin, get_plugin, registered
from labeling.projects import BadProject, change_project
from workers.budgets.changes import change_caps
from workers.budgets.limits import BadBudget, read_caps
from workers.budgets.spend import totals_of_project
from zelo_site.pages.judging.limits import limit_fields, read_limits
from zelo_site.pages.options import BadOptions, OptionField, option_fields, read_options
from zelo_site.pages.scope import owned_project


@dataclass(frozen=True, slots=True)
class RaterChoice:
    """A rater in the form: its names instead of its class, which a template would call."""

    name: str
    label: str
    fields: list[OptionField]
    chosen: bool


def settings_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form; a POST saves all fields or none."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/settings.html", _context(project))
    try:
        rater = get_plugin("rater", request.POST.get("rater", project.rater))
        before = project.rater, project.rater_options
        with transaction.atomic():
            changed = change_project(
                project,
                name=request.POST.get("name", ""),
                instruction=request.POST.get("instruction", "").replace("\r\n", "\n"),
                rater=rater.name,
                rater_options=read_options(rater, prefix=f"rater-{rater.name}", sent=request.POST),
                by=request.user,
            )
            change_caps(project, read_limits(request.POST, prefix="cap-"), by=request.user)
    except (BadProject, BadOptions, BadBudget, UnknownPlugin) as error:
        return render(request, "zelo/settings.html", _context(project, request.POST, error), status=422)
    refits = (changed.rater, changed.rater_options) != before
    messages.success(request, _("Saved. Refitting all queries.") if refits else _("Saved."))
    return redirect("settings", slug=project.slug)


def _context(project: Project, sent: QueryDict | None = None, error: Exception | None = None) -> dict[str, Any]:
    chosen = project.rater if sent is None else sent.get("rater", project.rater)
    return {
        "project": project,
        "name": project.name if sent is None else sent.get("name", ""),
        "instruction": project.instruction if sent is None else sent.get("instruction", ""),
        "raters": [
            RaterChoice(name, plugin.label, _fields(project, name, sent, error), name == chosen)
            for name, plugin in registered("rater").items()
        ],
        "limits": limit_fields(_caps(project), prefix="cap-", sent=sent),
        "spent": totals_of_project(project.pk),
        "error": error,
        "may_change": True,
        "here": "project",
    }


def _caps(project: Project) -> dict[str, int | None]:
    caps = read_caps(project.pk)
    return {"calls": caps.calls, "tokens": caps.tokens, "cost_micros": caps.cost_micros}


def _fields(project: Project, rater: str, sent: QueryDict | None, error: Exception | None) -> list[OptionField]:
    """Return a rater's option fields: submitted values with their errors, or the project's values."""
    prefix = f"rater-{rater}"
    if isinstance(error, BadOptions) and any(field.name.startswith(f"{prefix}-") for field in error.fields):
        return error.fields
    values: Any = sent
    if sent is None and rater == project.rater:
        stored = get_plugin("rater", rater).Options.model_construct(**project.rater_options)
        values = {f"{prefix}-{name}": _as_sent(value) for name, value in stored}
    return option_fields(get_plugin("rater", rater), prefix=prefix, sent=values)


def _as_sent(value: Any) -> Any:
    """Return a stored option as a form value."""
    if isinstance(value, bool):
        return "on" if value else ""
    return "" if value is None else value
