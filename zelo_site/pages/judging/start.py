"""Starting a run: judges, design and budget, with an estimate next to the start button."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pydantic
from django import forms
from django.contrib import messages
from django.forms import BoundField
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Project
from labeling.plugins import Judge, Plugin, UnknownPlugin, get_plugin, registered
from workers.budgets.limits import Budgets
from workers.models import Run
from workers.monitoring.endpoint_list import choosable_endpoints
from workers.runs.cascade import DEFAULT_THRESHOLD
from workers.runs.estimate import ChosenJudge, RunEstimate, estimate_run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.planning import GOES_ON
from zelo_site.pages.forms import (
    BadForm,
    Dollars,
    PageForm,
    PluginField,
    check_all,
    chosen_or_404,
    plugin_form,
    shown_form,
)
from zelo_site.pages.judging.endpoint_choice import chooses_endpoint, judge_form
from zelo_site.pages.scope import owned_project

DEFAULT_JUDGES = ("bm25", "query-likelihood", "embedding")
DEFAULT_SAMPLER = "cycles"
# A judge's row is named after its plugin; further rows of a plugin add this separator and a number.
AGAIN = "~"
MOST_ROWS = 32
LONGEST_NAME = 200
MOST = 10**12 - 1
BAD_THRESHOLD = gettext_lazy("Enter a number above 0 and at most 0.5, or leave the field empty.")


class BadOrder(ValueError):
    """The form describes an invalid run; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A judge plugin in the form; its field names start with `key`. It holds names instead of the class, which a
    template would call. `given` is the judge's chosen name; `is_first` marks the first judge of a cascade;
    `lacks_endpoint`: it needs an endpoint, and there is none.
    """

    key: str
    name: str
    label: str
    fields: list[BoundField]
    chosen: bool
    given: BoundField | None = None
    is_first: bool = False
    is_open: bool = False
    lacks_endpoint: bool = False


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


class RunForm(PageForm):
    """A run's votes, document order and budgets."""

    allocation = forms.ChoiceField(label=gettext_lazy("Votes"), choices=Run.Allocation.choices, required=False)
    cascade_threshold = forms.FloatField(
        label=gettext_lazy("Escalate when within"),
        min_value=1e-6,
        max_value=0.5,
        required=False,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), BAD_THRESHOLD),
    )
    orders = forms.ChoiceField(label=gettext_lazy("Document order"), choices=Run.Orders.choices, required=False)
    pair_budget = forms.IntegerField(label=gettext_lazy("Pair budget"), min_value=1, max_value=MOST, required=False)
    call_budget = forms.IntegerField(label=gettext_lazy("Call budget"), min_value=1, max_value=MOST, required=False)
    token_budget = forms.IntegerField(label=gettext_lazy("Token budget"), min_value=1, max_value=MOST, required=False)
    cost_budget = Dollars(label=gettext_lazy("Budget (USD)"), required=False)

    def clean(self) -> dict[str, Any]:
        """Replace empty choices with the first ones; ignore the threshold outside a cascade."""
        values = self.cleaned_data
        values["allocation"] = values.get("allocation") or Run.Allocation.values[0]
        values["orders"] = values.get("orders") or Run.Orders.values[0]
        if values["allocation"] != Run.Allocation.CASCADE:
            values["cascade_threshold"] = None
            self.errors.pop("cascade_threshold", None)
        return values


class SamplerForm(PageForm):
    """The design of a run."""

    sampler = PluginField("sampler", default=DEFAULT_SAMPLER, label=gettext_lazy("Design"))


class NamesForm(PageForm):
    """The chosen name of each row's judge, by the row's key."""

    prefix = "name"

    def __init__(self, *args: Any, keys: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key in keys:
            self.add(key)

    def add(self, key: str) -> BoundField:
        """Return a row's field; create it if it is missing."""
        if key not in self.fields:
            self.fields[key] = forms.CharField(label=_("Name"), max_length=LONGEST_NAME, required=False)
        return self[key]


def new_run(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form, with the options of the judge that the parameter `like` names; a POST starts the run, or adds a row
    for another judge.
    """
    project = owned_project(request, slug)
    if request.method != "POST":
        known = Annotator.objects.offered().filter(project=project)
        like = chosen_or_404(known, request.GET, "like") if "like" in request.GET else None
        return render(request, "zelo/judging/start.html", _context(project, None, like=like))
    if "another" in request.POST:
        return render(request, "zelo/judging/start.html", _context(project, _with_another(request.POST)))
    try:
        order = read_order(project, request.POST)
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
    except (BadOrder, BadForm, RunRefused, UnknownPlugin, pydantic.ValidationError) as error:
        return render(request, "zelo/judging/start.html", _context(project, request.POST, error), status=422)
    messages.success(request, _("Run started. Scores update as answers arrive."))
    return redirect("project", slug=project.slug)


@require_POST
def estimate(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the estimate for the current form values."""
    project = owned_project(request, slug)
    try:
        context: dict[str, Any] = {"estimate": _estimated(project, read_order(project, request.POST))}
    except (BadOrder, BadForm, UnknownPlugin, pydantic.ValidationError) as error:
        context = {"error": error}
    return render(request, "zelo/judging/parts/estimate.html", {"project": project, **context})


def read_order(project: Project, sent: QueryDict) -> Order:
    """Return the validated form values. Raises BadOrder, BadForm or UnknownPlugin."""
    keys = _chosen_keys(sent)
    sampler = get_plugin("sampler", SamplerForm(sent).checked()["sampler"])
    run, names = RunForm(sent), NamesForm(sent, keys=keys)
    design = plugin_form(sampler, prefix=f"sampler-{sampler.name}")(sent)
    plugins = {key: get_plugin("judge", _plugin_of(key)) for key in keys}
    rows = choosable_endpoints(project) if any(map(chooses_endpoint, plugins.values())) else []
    forms_of = {key: judge_form(plugin, project, rows, prefix=f"judge-{key}") for key, plugin in plugins.items()}
    options = {key: form(sent) for key, form in forms_of.items()}
    check_all(run, names, design, *options.values())
    values = run.cleaned_data
    keys = _in_order(keys, sent.get("first", ""), values["allocation"])
    return Order(
        judges=_judges([(plugins[key], options[key].plain_options()) for key in keys]),
        names=[names.cleaned_data[key] for key in keys],
        sampler=sampler.name,
        sampler_options=design.plain_options(),
        allocation=values["allocation"],
        cascade_threshold=values["cascade_threshold"],
        orders=values["orders"],
        budgets=Budgets(
            pairs=values["pair_budget"],
            calls=values["call_budget"],
            tokens=values["token_budget"],
            cost_micros=values["cost_budget"],
        ),
    )


def read_row(sent: QueryDict, key: str) -> tuple[str, dict[str, Any], str]:
    """Return plugin, options and name of the judge that one row describes. Raises BadOrder, BadForm or UnknownPlugin."""
    if not key:
        raise BadOrder(_("choose at least one judge"))
    plugin = get_plugin("judge", _plugin_of(key))
    options, names = plugin_form(plugin, prefix=f"judge-{key}")(sent), NamesForm(sent, keys=[key])
    check_all(names, options)
    return plugin.name, options.plain_options(), names.cleaned_data[key]


def _chosen_keys(sent: QueryDict) -> list[str]:
    keys = list(dict.fromkeys(sent.getlist("judge")))
    if not keys:
        raise BadOrder(_("choose at least one judge"))
    if len(keys) > MOST_ROWS:
        raise BadOrder(_("%(n)s judges are selected; select at most %(most)s") % {"n": len(keys), "most": MOST_ROWS})
    return keys


def _in_order(keys: list[str], first: str, allocation: str) -> list[str]:
    """Return the chosen judges' rows, the first judge of a cascade first."""
    if allocation != Run.Allocation.CASCADE or not first:
        return keys
    if first not in keys:
        raise BadOrder(
            _("the first judge of the cascade, %(judge)r, is not selected; select it, or choose another first judge")
            % {"judge": first[:80]}
        )
    return [first, *(key for key in keys if key != first)]


def _judges(chosen: Sequence[tuple[type[Plugin], dict[str, Any]]]) -> list[ChosenJudge]:
    judges: list[ChosenJudge] = []
    for plugin, options in chosen:
        judge = ChosenJudge(plugin, options)
        if judge in judges:
            raise BadOrder(
                _("%(judge)r is selected twice with the same options; change or remove one of them")
                % {"judge": plugin.label}
            )
        judges.append(judge)
    return judges


def _plugin_of(key: str) -> str:
    return key.partition(AGAIN)[0]


def is_ordinary(sampler: type[Plugin]) -> bool:
    """Return whether a sampler can start a run: it is not cross-query and does not only continue a design."""
    return not getattr(sampler, "across_queries", False) and sampler.name not in GOES_ON


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


def _sampler_choices(chosen: str, sent: QueryDict | None, error: Exception | None) -> list[Choice]:
    shown = {
        name: shown_form(plugin_form(plugin, prefix=f"sampler-{name}"), sent, error)
        for name, plugin in registered("sampler").items()
        if is_ordinary(plugin)
    }
    return [
        Choice(name, name, form.title, list(form), name == chosen, is_open=_is_refused(form))
        for name, form in shown.items()
    ]


def _is_refused(form: PageForm) -> bool:
    return form.is_bound and not form.is_valid()


def _judge_choices(
    project: Project, sent: QueryDict | None, error: Exception | None, like: Annotator | None
) -> list[Choice]:
    """Return a row per plugin and added judge, chosen rows first; `like`: the judge that a new form chooses."""
    plugins = {name: plugin for name, plugin in registered("judge").items() if cast("type[Judge]", plugin).can_be_asked}
    chosen = sent.getlist("judge") if sent is not None else [like.plugin] if like else list(DEFAULT_JUDGES)
    added = [] if sent is None else [*sent.getlist("row"), *chosen]
    keys = [key for key in dict.fromkeys([*plugins, *added]) if _plugin_of(key) in plugins][: len(plugins) + MOST_ROWS]
    names = shown_form(NamesForm, sent, error, keys=keys)
    places = {name: place for place, name in enumerate(plugins)}
    rows = []
    endpoints = choosable_endpoints(project)
    for key in keys:
        plugin = plugins[_plugin_of(key)]
        stored = like.options if like is not None and key == like.plugin else None
        form = shown_form(judge_form(plugin, project, endpoints, prefix=f"judge-{key}", stored=stored), sent, error)
        given = names.add(key)
        if like is not None and stored is not None:
            names.initial[key] = like.name
        rows.append(
            Choice(
                key=key,
                name=_plugin_of(key),
                label=form.title,
                fields=list(form),
                chosen=key in chosen,
                given=given,
                is_first=sent is not None and key == sent.get("first"),
                is_open=AGAIN in key or _is_refused(form) or bool(given.errors),
                lacks_endpoint=not endpoints and chooses_endpoint(plugin),
            )
        )
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


def _context(
    project: Project, sent: QueryDict | None, error: Exception | None = None, *, like: Annotator | None = None
) -> dict[str, Any]:
    sampler = shown_form(SamplerForm, sent, error)["sampler"]
    return {
        "project": project,
        "judges": _judge_choices(project, sent, error, like),
        "samplers": _sampler_choices(str(sampler.value()), sent, error),
        "sampler": sampler,
        "allocations": Run.Allocation.choices,
        "orders": Run.Orders.choices,
        "default_threshold": DEFAULT_THRESHOLD,
        "form": shown_form(RunForm, sent, error),
        "error": error,
        "may_change": True,
        "here": "project",
    }
