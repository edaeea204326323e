"""Settings of a project, for its owners: name, instruction, the rater with its options, and caps on what it spends.

The changes themselves are `labeling.projects.change_project` and `workers.budgets.changes.change_caps`, as in REST and
command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.forms import BoundField
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Project
from labeling.plugins import Plugin, UnknownPlugin, get_plugin, registered
from labeling.projects import BadProject, change_project
from workers.budgets.changes import change_caps
from workers.budgets.limits import BadBudget, read_caps
from workers.budgets.spend import totals_of_project
from zelo_site.pages.forms import BadForm, OptionsForm, PageForm, check_all, plugin_form, shown_form
from zelo_site.pages.judging.limits import LimitsForm, sent_limits
from zelo_site.pages.scope import owned_project

CAPS = "cap"


@dataclass(frozen=True, slots=True)
class RaterChoice:
    """A rater as the form offers it. Its names rather than the class: a template would construct that."""

    name: str
    label: str
    fields: list[BoundField]
    chosen: bool


class SettingsForm(PageForm):
    """Name and instruction."""

    name = forms.CharField(label=gettext_lazy("Project name"), max_length=200)
    instruction = forms.CharField(label=gettext_lazy("Relevance instruction"), required=False, strip=False)


def settings_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The form; a POST stores all of it or nothing."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/settings.html", _context(project))
    try:
        rater = get_plugin("rater", request.POST.get("rater", project.rater))
        before = project.rater, project.rater_options
        form = SettingsForm(request.POST)
        options = plugin_form(rater, prefix=f"rater-{rater.name}")(request.POST)
        limits = sent_limits(request.POST, prefix=CAPS)
        check_all(form, options, limits)
        with transaction.atomic():
            changed = change_project(
                project,
                name=form.cleaned_data["name"],
                instruction=form.cleaned_data["instruction"].replace("\r\n", "\n"),
                rater=rater.name,
                rater_options=options.plain_options(),
            )
            change_caps(project, limits.cleaned_data, by=request.user)
    except (BadForm, BadProject, BadBudget, UnknownPlugin) as error:
        return render(request, "zelo/settings.html", _context(project, request.POST, error), status=422)
    fits_anew = (changed.rater, changed.rater_options) != before
    messages.success(request, _("Stored. All queries are being fitted anew.") if fits_anew else _("Stored."))
    return redirect("settings", slug=project.slug)


def _context(project: Project, sent: QueryDict | None = None, error: Exception | None = None) -> dict[str, Any]:
    caps = _caps(project)
    chosen = project.rater if sent is None else sent.get("rater", project.rater)
    return {
        "project": project,
        "form": shown_form(
            SettingsForm, sent, error, initial={"name": project.name, "instruction": project.instruction}
        ),
        "raters": [
            RaterChoice(name, plugin.label, list(_options(project, plugin, sent, error)), name == chosen)
            for name, plugin in registered("rater").items()
        ],
        "limits": shown_form(LimitsForm, sent, error, prefix=CAPS, names=caps, initial=caps),
        "spent": totals_of_project(project.pk),
        "error": error,
        "may_change": True,
        "here": "project",
    }


def _caps(project: Project) -> dict[str, int | None]:
    caps = read_caps(project.pk)
    return {"calls": caps.calls, "tokens": caps.tokens, "cost_micros": caps.cost_micros}


def _options(project: Project, rater: type[Plugin], sent: QueryDict | None, error: Exception | None) -> OptionsForm:
    """A rater's options: as they were sent, with their errors, or as the project has them."""
    stored = project.rater_options if rater.name == project.rater else None
    return shown_form(plugin_form(rater, prefix=f"rater-{rater.name}", stored=stored), sent, error)
