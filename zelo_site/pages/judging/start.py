"""Starting a run: judges, design and budget, with an estimate next to the start button."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from labeling.access.annotators import get_judge
from labeling.importing.strict_json import BadJson, check_text
from labeling.models import Project
from labeling.plugins import Plugin, UnknownPlugin, get_plugin, registered
from workers.budgets.limits import Budgets
from workers.models import Run
from workers.runs.cascade import DEFAULT_THRESHOLD
from workers.runs.estimate import ChosenJudge, RunEstimate, estimate_run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.planning import GOES_ON
from zelo_site.pages.options import BadOptions, OptionField, option_fields, read_options
from zelo_site.pages.scope import owned_project

DEFAULT_JUDGES = ("bm25", "query-likelihood", "embedding")
DEFAULT_SAMPLER = "cycles"
# A judge's row is named after its plugin; further rows of a plugin add this separator and a number.
AGAIN = "~"
MOST_ROWS = 32
LONGEST_NAME = 200


class BadOrder(ValueError):
    """The form describes an invalid run; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A judge plugin in the form; its field names start with `key`. It holds names instead of the class, which a
    template would call. `given` is the judge's chosen name; `is_first` marks the first judge of a cascade.
    """

    key: str
    name: str
    label: str
    fields: list[OptionField]
    chosen: bool
    given: str = ""
    is_first: bool = False
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """The run that the form describes."""

    judges: list[ChosenJudge]
    names: list[str]
    sampler: str
    sampler_options: dict[str, Any]
    allocation: str
    cascade_threshold: float | None
    orders: str
    budgets: Budgets


def new_run(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form; a POST starts the run, or adds a row for another judge."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/start.html", _context(project, None))
    if "another" in request.POST:
        return render(request, "zelo/start.html", _context(project, _with_another(request.POST)))
    try:
        order = read_order(request.POST)
        judges = [
            get_judge(project, each.plugin.name, each.options, name=name)
            for each, name in zip(order.judges, order.names, strict=True)
        ]
        start_run(
            project,
            judges=judges,
            by=request.user,
            sampler=order.sampler,
            sampler_options=order.sampler_options,
            allocation=order.allocation,
            cascade_threshold=order.cascade_threshold,
            orders=order.orders,
            pair_budget=order.budgets.pairs,
            call_budget=order.budgets.calls,
            token_budget=order.budgets.tokens,
            cost_budget_micros=order.budgets.cost_micros,
        )
    except (BadOrder, BadOptions, RunRefused, UnknownPlugin, pydantic.ValidationError) as error:
        return render(request, "zelo/start.html", _context(project, request.POST, error), status=422)
    messages.success(request, _("Run started. Scores update as answers arrive."))
    return redirect("project", slug=project.slug)


@require_POST
def estimate(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the estimate for the current form values."""
    project = owned_project(request, slug)
    try:
        context: dict[str, Any] = {"estimate": _estimated(project, read_order(request.POST))}
    except (BadOrder, BadOptions, UnknownPlugin, pydantic.ValidationError) as error:
        context = {"error": error}
    return render(request, "zelo/parts/estimate.html", {"project": project, **context})


def read_order(sent: QueryDict) -> Order:
    """Return the validated form values. Raises BadOrder, BadOptions or UnknownPlugin."""
    allocation = _one_of(sent, "allocation", Run.Allocation.values)
    keys = _judge_keys(sent, allocation)
    sampler = get_plugin("sampler", sent.get("sampler", DEFAULT_SAMPLER))
    return Order(
        judges=_read_judges(keys, sent),
        names=[_given_name(sent, key) for key in keys],
        sampler=sampler.name,
        sampler_options=read_options(sampler, prefix=f"sampler-{sampler.name}", sent=sent),
        allocation=allocation,
        cascade_threshold=_threshold(sent) if allocation == Run.Allocation.CASCADE else None,
        orders=_one_of(sent, "orders", Run.Orders.values),
        budgets=_budgets(sent),
    )


def _judge_keys(sent: QueryDict, allocation: str) -> list[str]:
    """Return the chosen judges' rows, the first judge of a cascade first."""
    keys = list(dict.fromkeys(sent.getlist("judge")))
    if not keys:
        raise BadOrder(_("choose at least one judge"))
    if len(keys) > MOST_ROWS:
        raise BadOrder(_("%(n)s judges are selected; select at most %(most)s") % {"n": len(keys), "most": MOST_ROWS})
    first = sent.get("first", "")
    if allocation != Run.Allocation.CASCADE or not first:
        return keys
    if first not in keys:
        raise BadOrder(
            _("the first judge of the cascade, %(judge)r, is not selected; select it, or choose another first judge")
            % {"judge": first[:80]}
        )
    return [first, *(key for key in keys if key != first)]


def _read_judges(keys: Sequence[str], sent: QueryDict) -> list[ChosenJudge]:
    judges: list[ChosenJudge] = []
    for key in keys:
        plugin = get_plugin("judge", _plugin_of(key))
        judge = ChosenJudge(plugin, read_options(plugin, prefix=f"judge-{key}", sent=sent))
        if judge in judges:
            raise BadOrder(
                _("%(judge)r is selected twice with the same options; change or remove one of them")
                % {"judge": plugin.label}
            )
        judges.append(judge)
    return judges


def _plugin_of(key: str) -> str:
    return key.partition(AGAIN)[0]


def _given_name(sent: QueryDict, key: str) -> str:
    name = str(sent.get(f"name-{key}", "")).strip()
    try:
        check_text(name)
    except BadJson as error:
        raise BadOrder(_("the name of a judge %(error)s") % {"error": error}) from error
    if len(name) > LONGEST_NAME:
        raise BadOrder(
            _("the judge name has %(n)s characters; use at most %(most)s") % {"n": len(name), "most": LONGEST_NAME}
        )
    return name


def _threshold(sent: QueryDict) -> float | None:
    text = str(sent.get("cascade_threshold", "")).strip()
    if not text:
        return None
    if not re.fullmatch(r"0?\.[0-9]{1,6}", text) or not 0.0 < float(text) <= 0.5:
        raise BadOrder(
            _("the cascade threshold is %(text)r; enter a number above 0 and at most 0.5, or leave it empty")
            % {"text": text[:20]}
        )
    return float(text)


def is_ordinary(sampler: type[Plugin]) -> bool:
    """Return whether a sampler can start a run: it is not cross-query and does not only continue a design."""
    return not getattr(sampler, "across_queries", False) and sampler.name != GOES_ON


def _one_of(sent: QueryDict, name: str, allowed: list[str]) -> str:
    value = sent.get(name, allowed[0])
    if value not in allowed:
        raise BadOrder(
            _("%(name)s is %(value)r; choose one of %(allowed)s")
            % {"name": name, "value": value, "allowed": ", ".join(allowed)}
        )
    return value


def _budgets(sent: QueryDict) -> Budgets:
    return Budgets(
        pairs=_whole(sent.get("pair_budget", ""), _("pairs")),
        calls=_whole(sent.get("call_budget", ""), _("calls")),
        tokens=_whole(sent.get("token_budget", ""), _("tokens")),
        cost_micros=_micros(sent.get("cost_budget", "")),
    )


def _whole(text: str, unit: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) < 1:
        raise BadOrder(
            _("the budget is %(text)r; enter a number of %(unit)s, 1 or more, or leave it empty")
            % {"text": text[:20], "unit": unit}
        )
    return int(text)


def _micros(text: str) -> int | None:
    """Return dollars in millionths."""
    text = text.strip().removeprefix("$")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{0,9}(\.[0-9]{0,6})?", text) or not any("1" <= digit <= "9" for digit in text):
        raise BadOrder(_("the budget is %(text)r; enter dollars above 0, or leave it empty") % {"text": text[:20]})
    return round(float(text) * 1e6)


def _estimated(project: Project, order: Order) -> RunEstimate:
    return estimate_run(
        project,
        order.judges,
        sampler=order.sampler,
        sampler_options=order.sampler_options,
        allocation=order.allocation,
        orders=order.orders,
        budgets=order.budgets,
        cascade_threshold=DEFAULT_THRESHOLD if order.cascade_threshold is None else order.cascade_threshold,
    )


def _sampler_choices(chosen: str, sent: QueryDict | None) -> list[Choice]:
    return [
        Choice(name, name, plugin.label, option_fields(plugin, prefix=f"sampler-{name}", sent=sent), name == chosen)
        for name, plugin in registered("sampler").items()
        if is_ordinary(plugin)
    ]


def _judge_choices(sent: QueryDict | None) -> list[Choice]:
    """Return a row per plugin and added judge, chosen rows first."""
    plugins = registered("judge")
    chosen = sent.getlist("judge") if sent is not None else list(DEFAULT_JUDGES)
    added = [] if sent is None else [*sent.getlist("row"), *chosen]
    keys = [key for key in dict.fromkeys([*plugins, *added]) if _plugin_of(key) in plugins][: len(plugins) + MOST_ROWS]
    values = sent if sent is not None else QueryDict()
    places = {name: place for place, name in enumerate(plugins)}
    rows = [
        Choice(
            key=key,
            name=_plugin_of(key),
            label=plugins[_plugin_of(key)].label,
            fields=option_fields(plugins[_plugin_of(key)], prefix=f"judge-{key}", sent=sent),
            chosen=key in chosen,
            given=str(values.get(f"name-{key}", "")),
            is_first=key == values.get("first"),
            is_open=AGAIN in key,
        )
        for key in keys
    ]
    top = {row.name for row in rows if row.chosen}
    return sorted(rows, key=lambda row: (row.name not in top, places[row.name]))


def _with_another(sent: QueryDict) -> QueryDict:
    """Return the form's values with one more chosen row of the requested plugin, copied from its row."""
    asked, values = str(sent.get("another", "")), sent.copy()
    name = _plugin_of(asked)
    taken = {name, *values.getlist("row"), *values.getlist("judge")}
    new = next(key for number in range(2, len(taken) + 3) if (key := f"{name}{AGAIN}{number}") not in taken)
    for field in [each for each in sent if each.startswith(f"judge-{asked}-")]:
        values[f"judge-{new}-{field.removeprefix(f'judge-{asked}-')}"] = str(sent[field])
    values.appendlist("row", new)
    for key in (asked, new):
        if key not in values.getlist("judge"):
            values.appendlist("judge", key)
    return values


def _context(project: Project, sent: QueryDict | None, error: Exception | None = None) -> dict[str, Any]:
    sampler = sent.get("sampler", DEFAULT_SAMPLER) if sent is not None else DEFAULT_SAMPLER
    return {
        "project": project,
        "judges": _judge_choices(sent),
        "samplers": _sampler_choices(str(sampler), sent),
        "allocations": Run.Allocation.choices,
        "orders": Run.Orders.choices,
        "default_threshold": DEFAULT_THRESHOLD,
        "sent": sent or {},
        "error": error,
        "may_change": True,
        "here": "project",
    }
