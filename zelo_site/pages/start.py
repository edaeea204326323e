"""Ordering a run: judges, design and budget, with an estimate beside the button that starts it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pydantic
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from labeling.annotators import get_judge
from labeling.models import Project
from labeling.plugins import Plugin, UnknownPlugin, get_plugin, registered
from workers.budgets import Budgets
from workers.models import Run
from workers.pipeline import RunRefused, start_run
from workers.planning import GOES_ON
from zelo_site.estimates import ChosenJudge, Estimate, estimate_run
from zelo_site.pages.options import BadOptions, OptionField, option_fields, read_options
from zelo_site.pages.scope import owned_project

DEFAULT_JUDGES = ("bm25", "query-likelihood", "embedding")
DEFAULT_SAMPLER = "cycles"


class BadOrder(ValueError):
    """The form asks for something that cannot be ordered; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plugin as the form offers it. Its names rather than the class: a template would construct that."""

    name: str
    label: str
    fields: list[OptionField]
    chosen: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What the form asks for."""

    judges: list[ChosenJudge]
    sampler: str
    sampler_options: dict[str, Any]
    allocation: str
    orders: str
    budgets: Budgets


def new_run(request: HttpRequest, slug: str) -> HttpResponse:
    """The form; a POST starts the run."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/start.html", _context(project, None))
    try:
        order = read_order(request.POST)
        judges = [get_judge(project, each.plugin.name, each.options) for each in order.judges]
        start_run(
            project,
            judges=judges,
            created_by=request.user,
            sampler=order.sampler,
            sampler_options=order.sampler_options,
            allocation=order.allocation,
            orders=order.orders,
            pair_budget=order.budgets.pairs,
            call_budget=order.budgets.calls,
            token_budget=order.budgets.tokens,
            cost_budget_micros=order.budgets.cost_micros,
        )
    except (BadOrder, BadOptions, RunRefused, UnknownPlugin, pydantic.ValidationError) as error:
        return render(request, "zelo/start.html", _context(project, request.POST, error), status=422)
    messages.success(request, "The run is ordered. Scores move as answers arrive.")
    return redirect("project", slug=project.slug)


@require_POST
def estimate(request: HttpRequest, slug: str) -> HttpResponse:
    """The estimate of what the form says now."""
    project = owned_project(request, slug)
    try:
        context: dict[str, Any] = {"estimate": _estimated(project, read_order(request.POST))}
    except (BadOrder, BadOptions, UnknownPlugin, pydantic.ValidationError) as error:
        context = {"error": error}
    return render(request, "zelo/parts/estimate.html", {"project": project, **context})


def read_order(sent: QueryDict) -> Order:
    """The form's values, checked; raises BadOrder, BadOptions or UnknownPlugin."""
    names = sent.getlist("judge")
    if not names:
        raise BadOrder("no judge is chosen; choose at least one")
    plugins = [get_plugin("judge", name) for name in dict.fromkeys(names)]
    sampler = get_plugin("sampler", sent.get("sampler", DEFAULT_SAMPLER))
    return Order(
        judges=[ChosenJudge(each, read_options(each, prefix=f"judge-{each.name}", sent=sent)) for each in plugins],
        sampler=sampler.name,
        sampler_options=read_options(sampler, prefix=f"sampler-{sampler.name}", sent=sent),
        allocation=_one_of(sent, "allocation", Run.Allocation.values),
        orders=_one_of(sent, "orders", Run.Orders.values),
        budgets=_budgets(sent),
    )


def is_ordinary(sampler: type[Plugin]) -> bool:
    """Whether a sampler is a design to start with: not one across queries, nor one that only goes on."""
    return not getattr(sampler, "across_queries", False) and sampler.name != GOES_ON


def _one_of(sent: QueryDict, name: str, allowed: list[str]) -> str:
    value = sent.get(name, allowed[0])
    if value not in allowed:
        raise BadOrder(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
    return value


def _budgets(sent: QueryDict) -> Budgets:
    return Budgets(
        pairs=_whole(sent.get("pair_budget", ""), "pairs"),
        calls=_whole(sent.get("call_budget", ""), "calls"),
        tokens=_whole(sent.get("token_budget", ""), "tokens"),
        cost_micros=_micros(sent.get("cost_budget", "")),
    )


def _whole(text: str, unit: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) < 1:
        raise BadOrder(f"the budget is {text[:20]!r}; expected a number of {unit}, 1 or more, or nothing")
    return int(text)


def _micros(text: str) -> int | None:
    """Dollars as millionths."""
    text = text.strip().removeprefix("$")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{0,9}(\.[0-9]{0,6})?", text) or not any("1" <= digit <= "9" for digit in text):
        raise BadOrder(f"the budget is {text[:20]!r}; expected dollars, more than 0, or nothing")
    return round(float(text) * 1e6)


def _estimated(project: Project, order: Order) -> Estimate:
    return estimate_run(
        project,
        order.judges,
        sampler=order.sampler,
        sampler_options=order.sampler_options,
        allocation=order.allocation,
        orders=order.orders,
        budgets=order.budgets,
    )


def _choices(kind: str, chosen: list[str], sent: QueryDict | None) -> list[Choice]:
    return [
        Choice(name, plugin.label, option_fields(plugin, prefix=f"{kind}-{name}", sent=sent), name in chosen)
        for name, plugin in registered(kind).items()
        if kind != "sampler" or is_ordinary(plugin)
    ]


def _context(project: Project, sent: QueryDict | None, error: Exception | None = None) -> dict[str, Any]:
    judges = sent.getlist("judge") if sent is not None else list(DEFAULT_JUDGES)
    sampler = sent.get("sampler", DEFAULT_SAMPLER) if sent is not None else DEFAULT_SAMPLER
    return {
        "project": project,
        "judges": sorted(_choices("judge", judges, sent), key=lambda choice: not choice.chosen),
        "samplers": _choices("sampler", [str(sampler)], sent),
        "allocations": Run.Allocation.choices,
        "orders": Run.Orders.choices,
        "sent": sent or {},
        "error": error,
        "may_change": True,
        "here": "project",
    }
