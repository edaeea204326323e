"""The judge form's choice of an endpoint: a drop-down with states, and the models that the chosen endpoint lists.

An option takes part by its metadata, `json_schema_extra={"suggest": "endpoint"}` or "endpoint-model", so that judges of
other packages can as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from django import forms
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from labeling.models import Project
from labeling.plugins import Plugin
from workers.endpoints.registry import Endpoint, KeyMissing
from workers.judges.openai.http.connection_test import list_models
from workers.monitoring.endpoint_list import EndpointRow, choosable_endpoints
from zelo_site.pages.forms import OptionsForm, plugin_form, text_of
from zelo_site.pages.scope import owned_project

ENDPOINT, MODEL = "endpoint", "endpoint-model"
MODELS_TIMEOUT_S = 5.0
KEPT_S, FAILURE_KEPT_S = 600, 30
MOST_SUGGESTED = 500


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The source of a text field's suggestions; `chosen_by` is the id of the field that they depend on."""

    address: str
    chosen_by: str


class EndpointChoice(forms.ChoiceField):
    """A drop-down of endpoints; its error lists the names."""

    def validate(self, value: Any) -> None:
        names = [name for name in dict(cast(Any, self.choices)) if name]
        if not names:
            raise ValidationError(_("No endpoint is defined. Ask a superuser to add one on the page Endpoints."))
        if value not in names:
            raise ValidationError(_("Choose one of the endpoints: %(names)s.") % {"names": ", ".join(names)})


def judge_form(
    plugin: type[Plugin],
    project: Project,
    rows: list[EndpointRow],
    *,
    prefix: str,
    stored: Mapping[str, Any] | None = None,
) -> type[OptionsForm]:
    """Return the form class of a judge's options, with its endpoint as a drop-down of `rows`; `stored` as `plugin_form`."""
    form = plugin_form(plugin, prefix=prefix, stored=stored)
    chosen_by = next((f"{prefix}-{name}" for name in form.base_fields if _role(plugin, name) == ENDPOINT), "")
    for name, field in form.base_fields.items():
        role = _role(plugin, name)
        if role == ENDPOINT:
            form.base_fields[name] = EndpointChoice(
                label=field.label,
                help_text=field.help_text,
                required=field.required,
                initial=field.initial,
                choices=_choices(rows),
            )
        elif role == MODEL and chosen_by and rows:
            address = reverse("endpoint-models", args=[project.slug])
            field.suggestions = Suggestions(address, chosen_by)  # type: ignore[attr-defined]
    return form


def chooses_endpoint(plugin: type[Plugin]) -> bool:
    """Return whether a judge has an option that names an endpoint."""
    return any(_role(plugin, name) == ENDPOINT for name in plugin.Options.model_fields)


def _role(plugin: type[Plugin], option: str) -> str:
    extra = plugin.Options.model_fields[option].json_schema_extra
    role = extra.get("suggest") if isinstance(extra, dict) else None
    return role if isinstance(role, str) else ""


def _choices(rows: list[EndpointRow]) -> list[tuple[str, str]]:
    if not rows:
        return [("", _("no endpoint is defined"))]
    return [(row.name, f"{row.name} · {state_text(row)}") for row in rows]


def state_text(row: EndpointRow) -> str:
    """Return an endpoint's state in two or three words, and when the next call is made."""
    words = {
        "ok": _("OK"),
        "unused": _("not called yet"),
        "paused": _("rate limited"),
        "half_open": _("testing with one call"),
        "open": _("not answering"),
        "no_key": _("key missing"),
    }[row.state]
    if row.wait_s < 1:
        return words
    return _("%(state)s, next retry in %(seconds)s s") % {"state": words, "seconds": round(row.wait_s)}


def endpoint_models(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the models of the endpoint that the field named by `select` holds, as options of a datalist."""
    project = owned_project(request, slug)
    name = text_of(request.GET, text_of(request.GET, "select", 200), 80)
    row = next((row for row in choosable_endpoints(project) if row.name == name), None)
    models = models_of(row.endpoint) if row is not None and row.endpoint is not None else []
    return render(request, "zelo/judging/parts/models.html", {"models": models[:MOST_SUGGESTED]})


def models_of(endpoint: Endpoint) -> list[str]:
    """Return the models that an endpoint lists, from the cache for some minutes; none while it does not answer."""
    try:
        key = f"zelo:models:{endpoint.name}:{endpoint.channel('').identity}"
    except KeyMissing:
        return []
    kept: list[str] | None = cache.get(key)
    if kept is None:
        kept, step = list_models(endpoint, timeout_s=MODELS_TIMEOUT_S)
        cache.set(key, kept, KEPT_S if step.passed else FAILURE_KEPT_S)
    return kept
