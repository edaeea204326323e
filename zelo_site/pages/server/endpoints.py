"""Endpoints, for superusers: list, add, change, test, retire and bring back, without a restart.

`workers.endpoints.stored.changes` makes the changes, as for REST and the command. No page shows a stored key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.forms import BoundField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from workers.endpoints.registry import EndpointsInvalid
from workers.endpoints.stored.changes import (
    EndpointRefused,
    add_endpoint,
    change_endpoint,
    record_test,
    restore_endpoint,
    retire_endpoint,
)
from workers.endpoints.stored.encryption import EncryptionUnavailable
from workers.judges.openai.http.connection_test import try_endpoint
from workers.monitoring.endpoint_list import EndpointRow, find_row, list_endpoints
from zelo_site.pages.forms import BadForm, text_of
from zelo_site.pages.server.endpoint_form import LIMITS, PRICES, REQUEST, EndpointForm, NewEndpointForm
from zelo_site.pages.server.endpoint_presets import PRESETS, find_preset

MOVES = {"retire": retire_endpoint, "restore": restore_endpoint}
LONGEST_MODEL = 200


def _check_superuser(request: HttpRequest) -> None:
    if not getattr(request.user, "is_superuser", False):
        raise PermissionDenied(_("only superusers can see and change endpoints; ask a superuser"))


def endpoints_page(request: HttpRequest) -> HttpResponse:
    """List all endpoints with origin, state, judges, prices and limits."""
    _check_superuser(request)
    context: dict[str, Any] = {"here": "endpoints", "presets": PRESETS}
    try:
        rows = list_endpoints()
    except EndpointsInvalid as error:
        rows, context["error"] = [], str(error)
    return render(request, "zelo/endpoints/endpoints.html", {**context, "rows": rows})


def new_endpoint(request: HttpRequest) -> HttpResponse:
    """Show the form, filled by `?preset=`; a POST stores the endpoint."""
    _check_superuser(request)
    preset = find_preset(text_of(request.GET, "preset", 40))
    if request.method != "POST":
        initial = {} if preset is None else {"name": preset.name, "base_url": preset.base_url, **preset.settings}
        return _form_page(request, NewEndpointForm(initial=initial), preset=preset)
    form = NewEndpointForm(request.POST)
    try:
        values = form.checked()
        row = add_endpoint(values["name"], form.endpoint_values(), key=values["key"], by=request.user)
    except (BadForm, EndpointRefused, EncryptionUnavailable) as error:
        form.refuse(error)
        return _form_page(request, form, status=422, preset=preset)
    messages.success(request, _("Endpoint added. Test it before judges use it."))
    return redirect("endpoint", name=row.name)


def endpoint_page(request: HttpRequest, name: str) -> HttpResponse:
    """Show one endpoint; a POST changes a stored one."""
    _check_superuser(request)
    row = _row_or_404(name)
    if request.method != "POST":
        return _form_page(request, _form_of(row), row=row)
    form = EndpointForm(request.POST)
    try:
        values = form.checked()
        key = "" if values["remove_key"] else values["key"] or None
        change_endpoint(name, form.endpoint_values(), key=key, by=request.user)
    except (BadForm, EndpointRefused, EncryptionUnavailable) as error:
        form.refuse(error)
        return _form_page(request, form, row=row, status=422)
    messages.success(request, _("Saved. Workers use the change within seconds."))
    return redirect("endpoint", name=name)


@require_POST
def test_endpoint(request: HttpRequest, name: str) -> HttpResponse:
    """Call the endpoint as it is stored; htmx gets the result, other browsers the whole page."""
    _check_superuser(request)
    row = _row_or_404(name)
    if row.endpoint is None:
        raise Http404
    model = text_of(request.POST, "model", LONGEST_MODEL)
    result = try_endpoint(row.endpoint, model=model)
    record_test(name, passed=result.passed, summary=result.summary, by=request.user)
    context: dict[str, Any] = {"result": result}
    if request.headers.get("HX-Request"):
        return render(request, "zelo/endpoints/parts/test_result.html", context)
    return _form_page(request, _form_of(row), row=row, **context, model=model)


@require_POST
def move_endpoint(request: HttpRequest, name: str, move: str) -> HttpResponse:
    """Retire an endpoint, or bring it back."""
    _check_superuser(request)
    if move not in MOVES:
        raise Http404
    try:
        MOVES[move](name, by=request.user)
    except EndpointRefused as error:
        messages.error(request, str(error))
    else:
        done = _("%(name)s retired: no run can start with it.") if move == "retire" else _("%(name)s is in use again.")
        messages.success(request, done % {"name": name})
    return redirect("endpoint", name=name) if find_row(name) else redirect("endpoints")


def _row_or_404(name: str) -> EndpointRow:
    row = find_row(name)
    if row is None:
        raise Http404
    return row


def _form_of(row: EndpointRow) -> EndpointForm:
    values: Mapping[str, Any] = {} if row.endpoint is None else row.endpoint.model_dump(mode="json")
    return EndpointForm(initial={**values, "base_url": row.base_url})


def _form_page(
    request: HttpRequest,
    form: EndpointForm,
    *,
    row: EndpointRow | None = None,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    model = context.pop("model", "") or (_model_of(row) if row else "")
    groups = {"request_fields": REQUEST, "price_fields": PRICES, "limit_fields": LIMITS}
    fields: dict[str, list[BoundField]] = {
        group: [form[name] for name in names if name in form.fields] for group, names in groups.items()
    }
    is_preset = bool(getattr(context.get("preset"), "settings", None))
    context["is_request_open"] = is_preset or any(field.errors for field in fields["request_fields"])
    return render(
        request,
        "zelo/endpoints/endpoint.html",
        {"form": form, "row": row, "presets": PRESETS, "here": "endpoints", "model": model, **fields, **context},
        status=status,
    )


def _model_of(row: EndpointRow) -> str:
    """Return the model that a judge of the endpoint uses, the newest first; empty without judges."""
    return next((judge.model for judge in reversed(row.judges) if judge.model), "")
