"""Budgets and caps in forms: fields for pairs, calls, tokens and dollars, and parsing of their values.

An empty field means no limit. A missing field changes nothing, so a form may show only some of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from workers.budgets.changes import RUN_FIELDS, RunIsOver, change_budgets
from workers.budgets.limits import BadBudget
from workers.budgets.spend import totals_of_run
from workers.models import Run
from zelo_site.pages.forms import BadForm, Dollars, PageForm, shown_form
from zelo_site.pages.scope import owned_project

MOST = 2**62
LABELS = {
    "pair_budget": (gettext_lazy("Pairs"), gettext_lazy("across all queries")),
    "call_budget": (gettext_lazy("Calls"), gettext_lazy("retries included")),
    "calls": (gettext_lazy("Calls"), gettext_lazy("retries included")),
    "token_budget": (gettext_lazy("Tokens"), gettext_lazy("input and output")),
    "tokens": (gettext_lazy("Tokens"), gettext_lazy("input and output")),
    "cost_budget_micros": (gettext_lazy("Dollars"), gettext_lazy("at the endpoints' prices")),
    "cost_micros": (gettext_lazy("Dollars"), gettext_lazy("at the endpoints' prices")),
}


class LimitsForm(PageForm):
    """A field for each named limit; cleaned values are whole numbers, dollars in millionths."""

    def __init__(self, *args: Any, names: Iterable[str] = tuple(LABELS), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in names:
            label, help_text = LABELS[name]
            shared: dict[str, Any] = {"label": label, "help_text": help_text, "required": False}
            self.fields[name] = (
                Dollars(**shared)
                if name.startswith("cost")
                else forms.IntegerField(min_value=1, max_value=MOST, **shared)
            )


def sent_limits(sent: QueryDict, *, prefix: str | None = None) -> LimitsForm:
    """Return the form of the submitted limits."""
    names = [name for name in LABELS if (f"{prefix}-{name}" if prefix else name) in sent]
    return LimitsForm(sent, prefix=prefix, names=names)


def budget_page(request: HttpRequest, slug: str, run_id: int) -> HttpResponse:
    """Show one run's budgets to project owners; a POST saves them, and resumes a run that they had stopped."""
    project = owned_project(request, slug)
    run = get_object_or_404(Run.objects.visible_to(request.user).filter(project=project), pk=run_id)
    error: Exception | None = None
    if request.method == "POST":
        try:
            changed = change_budgets(run, sent_limits(request.POST).checked(), by=request.user)
            goes_on = run.is_spent and changed.state == Run.State.JUDGING
            messages.success(request, _("Saved. Run resumed.") if goes_on else _("Saved."))
            return redirect("project", slug=project.slug)
        except (BadForm, BadBudget, RunIsOver) as refused:
            error = refused
    limits = {field: getattr(run, field) for field in RUN_FIELDS}
    context = {
        "project": project,
        "run": run,
        "spent": totals_of_run(run.pk),
        "limits": shown_form(LimitsForm, request.POST if error else None, error, names=limits, initial=limits),
        "error": error,
        "may_change": True,
        "here": "project",
    }
    return render(request, "zelo/judging/budget.html", context, status=422 if error else 200)
