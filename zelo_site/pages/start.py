"""Ordering a run: judges, design and budget, with an estimate beside the button that starts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from labeling.annotators import get_judge
from labeling.models import Project
from labeling.plugins import UnknownPlugin, get_plugin, registered
from workers.models import Run
from workers.pipeline import RunRefused, start_run
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
    pair_budget: int | None


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
            pair_budget=order.pair_budget,
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
        pair_budget=_budget(sent.get("pair_budget", "")),
    )


def _one_of(sent: QueryDict, name: str, allowed: list[str]) -> str:
    value = sent.get(name, allowed[0])
    if value not in allowed:
        raise BadOrder(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
    return value


def _budget(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isascii() or not text.strip().isdigit() or not 1 <= int(text) < 10**12:
        raise BadOrder(f"the budget is {text[:20]!r}; expected a number of pairs, 1 or more, or nothing")
    return int(text)


def _estimated(project: Project, order: Order) -> Estimate:
    return estimate_run(
        project,
        order.judges,
        sampler=order.sampler,
        sampler_options=order.sampler_options,
        allocation=order.allocation,
        orders=order.orders,
        pair_budget=order.pair_budget,
    )


def _choices(kind: str, chosen: list[str], sent: QueryDict | None) -> list[Choice]:
    return [
        Choice(name, plugin.label, option_fields(plugin, prefix=f"{kind}-{name}", sent=sent), name in chosen)
        for name, plugin in registered(kind).items()
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
