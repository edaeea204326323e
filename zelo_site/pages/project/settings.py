"""A project's settings, for owners: name, instruction, rubric, rater with options, and spending caps.

`labeling.projects.change_project` and `workers.budgets.changes.change_caps` make the changes, as in the REST API and the
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
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.annotation.criteria import lines_of_rubric, rubric_of_lines
from labeling.models import Project
from labeling.plugins import Plugin, UnknownPlugin, get_plugin, registered
from labeling.projects import BadProject, change_project
from workers.budgets.changes import change_caps
from workers.budgets.limits import BadBudget, read_caps
from workers.budgets.spend import totals_of_project
from zelo_site.pages.forms import BadForm, OptionsForm, PageForm, PluginField, check_all, plugin_form, shown_form
from zelo_site.pages.judging.limits import LimitsForm, sent_limits
from zelo_site.pages.scope import owned_project

CAPS = "cap"


@dataclass(frozen=True, slots=True)
class RaterChoice:
    """A rater in the form: its names instead of its class, which a template would call."""

    name: str
    label: str
    fields: list[BoundField]
    chosen: bool


class SettingsForm(PageForm):
    """Name, instruction, rubric and rater."""

    name = forms.CharField(label=gettext_lazy("Project name"), max_length=200)
    instruction = forms.CharField(label=gettext_lazy("Relevance instruction"), required=False, strip=False)
    rubric = forms.CharField(label=gettext_lazy("Criteria"), required=False, strip=False)
    rater = PluginField("rater", default="", label=gettext_lazy("Rater"))

    def clean_rubric(self) -> list[dict[str, Any]]:
        """The criteria that the lines state."""
        try:
            return rubric_of_lines(self.cleaned_data["rubric"])
        except ValueError as error:
            raise forms.ValidationError(capfirst(str(error))) from error


def settings_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form; a POST saves all fields or none."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/project/settings.html", _context(project))
    try:
        before = project.rater, project.rater_options
        form = SettingsForm(request.POST)
        form.is_valid()
        rater = get_plugin("rater", form.cleaned_data.get("rater") or project.rater)
        options = plugin_form(rater, prefix=f"rater-{rater.name}")(request.POST)
        limits = sent_limits(request.POST, prefix=CAPS)
        check_all(form, options, limits)
        with transaction.atomic():
            changed = change_project(
                project,
                name=form.cleaned_data["name"],
                instruction=form.cleaned_data["instruction"].replace("\r\n", "\n"),
                rubric=form.cleaned_data["rubric"],
                rater=rater.name,
                rater_options=options.plain_options(),
                by=request.user,
            )
            change_caps(project, limits.cleaned_data, by=request.user)
    except (BadForm, BadProject, BadBudget, UnknownPlugin) as error:
        return render(request, "zelo/project/settings.html", _context(project, request.POST, error), status=422)
    refits = (changed.rater, changed.rater_options) != before
    messages.success(request, _("Saved. Refitting all queries.") if refits else _("Saved."))
    return redirect("settings", slug=project.slug)


def _context(project: Project, sent: QueryDict | None = None, error: Exception | None = None) -> dict[str, Any]:
    caps = _caps(project)
    initial = {"name": project.name, "instruction": project.instruction, "rater": project.rater}
    initial["rubric"] = lines_of_rubric(project.rubric)
    form = shown_form(SettingsForm, sent, error, initial=initial)
    chosen = form["rater"].value()
    return {
        "project": project,
        "form": form,
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
    """Return a rater's option form: submitted values with their errors, or the project's values."""
    stored = project.rater_options if rater.name == project.rater else None
    return shown_form(plugin_form(rater, prefix=f"rater-{rater.name}", stored=stored), sent, error)
