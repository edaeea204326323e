"""Budgets and caps in forms: fields for pairs, calls, tokens and dollars, and parsing of their values.

An empty field means no limit. A missing field changes nothing, so a form may show only some of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from workers.allowances import RUN_FIELDS, RunIsOver, change_budgets
from workers.books import totals_of_run
from workers.budgets import BadBudget
from workers.models import Run
from zelo_site.pages.scope import owned_project

LABELS = {
    "pair_budget": (gettext_lazy("Pairs"), gettext_lazy("across all queries")),
    "call_budget": (gettext_lazy("Calls"), gettext_lazy("retries included")),
    "calls": (gettext_lazy("Calls"), gettext_lazy("retries included")),
    "token_budget": (gettext_lazy("Tokens"), gettext_lazy("input and output")),
    "tokens": (gettext_lazy("Tokens"), gettext_lazy("input and output")),
    "cost_budget_micros": (gettext_lazy("Dollars"), gettext_lazy("at the endpoints' prices")),
    "cost_micros": (gettext_lazy("Dollars"), gettext_lazy("at the endpoints' prices")),
}


@dataclass(frozen=True, slots=True)
class LimitField:
    """One input: `value` as the form shows it, "" for no limit."""

    name: str
    label: str
    help: str
    value: str
    step: str


def limit_fields(
    limits: Mapping[str, int | None], *, prefix: str = "", sent: QueryDict | None = None
) -> list[LimitField]:
    """Return the fields of these limits, with the submitted or the stored values."""
    return [
        LimitField(
            f"{prefix}{name}",
            label=str(LABELS[name][0]),
            help=str(LABELS[name][1]),
            value=_shown(name, value) if sent is None else sent.get(f"{prefix}{name}", ""),
            step="any" if _is_money(name) else "1",
        )
        for name, value in limits.items()
    ]


def read_limits(sent: QueryDict, *, prefix: str = "") -> dict[str, int | None]:
    """Return the submitted limits. Raises BadBudget for a value that is not a number."""
    found = {}
    for name in LABELS:
        if f"{prefix}{name}" in sent:
            found[name] = _read(name, sent.get(f"{prefix}{name}", "").strip())
    return found


def _read(name: str, text: str) -> int | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0 or number > 2**62:
        raise BadBudget(
            _("%(limit)s is %(text)r; enter a number above 0, or leave the field empty for no limit")
            % {"limit": LABELS[name][0].lower(), "text": text[:40]}
        )
    if _is_money(name):
        return max(1, round(number * 1e6))
    if number != int(number):
        raise BadBudget(
            _("%(limit)s is %(text)r; enter a whole number") % {"limit": LABELS[name][0].lower(), "text": text[:40]}
        )
    return int(number)


def _is_money(name: str) -> bool:
    return name.startswith("cost")


def _shown(name: str, value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:.6f}".rstrip("0").rstrip(".") if _is_money(name) else str(value)


def budget_page(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """Show one run's budgets to project owners; a POST saves them, and resumes a run that they had stopped."""
    project = owned_project(request, slug)
    run = get_object_or_404(Run.objects.visible_to(request.user).filter(project=project), pk=run_id)
    error: Exception | None = None
    if request.method == "POST":
        try:
            changed = change_budgets(run, read_limits(request.POST), by=request.user)
            goes_on = run.is_spent and changed.state == Run.State.JUDGING
            messages.success(request, _("Saved. Run resumed.") if goes_on else _("Saved."))
            return redirect("project", slug=project.slug)
        except (BadBudget, RunIsOver) as refused:
            error = refused
    limits = {field: getattr(run, field) for field in RUN_FIELDS}
    context = {
        "project": project,
        "run": run,
        "spent": totals_of_run(run.pk),
        "limits": limit_fields(limits, sent=request.POST if error else None),
        "error": error,
        "may_change": True,
        "here": "project",
    }
    return render(request, "zelo/budget.html", context, status=422 if error else 200)
