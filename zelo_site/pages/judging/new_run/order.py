"""The form of a run: what the page sends, read into an order with its judges, design, queries and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.forms import BoundField
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Project
from labeling.plugins import Plugin, get_plugin
from workers.budgets.limits import Budgets
from workers.models import Run
from workers.monitoring.endpoint_list import choosable_endpoints
from workers.runs.choices.presets import DEFAULT_SAMPLER
from workers.runs.choices.queries import QueryChoice
from workers.runs.choices.weights import ANCHORED, EQUAL, Weights
from workers.runs.estimate import ChosenJudge
from workers.runs.planning import GOES_ON
from zelo_site.pages.forms import Dollars, PageForm, PluginField, check_all, plugin_form
from zelo_site.pages.judging.endpoint_choice import chooses_endpoint, judge_form

# A new judge's row is named after its plugin; further rows of a plugin add this separator and a number.
AGAIN = "~"
# The card of a judge that the project has is named after its id.
STORED = "@"
MOST_ROWS = 32
LONGEST_NAME = 200
MOST = 10**12 - 1
BAD_THRESHOLD = gettext_lazy("Enter a number above 0 and at most 0.5, or leave the field empty.")


class BadOrder(ValueError):
    """The form describes an invalid run; the message says what to change."""


@dataclass(frozen=True, slots=True)
class ReadJudge:
    """A judge that the form describes; `known`: one that the project has, which keeps its options and its name."""

    plugin: type[Plugin]
    options: dict[str, Any]
    name: str = ""
    known: Annotator | None = None

    def annotator(self, project: Project) -> Annotator:
        """Return the project's judge of these options, created on first use. Raises pydantic.ValidationError."""
        return self.known or get_judge(project, self.plugin.name, self.options, name=self.name)


@dataclass(frozen=True, slots=True)
class Order:
    """The run that the form describes."""

    judges: list[ReadJudge]
    sampler: str
    sampler_options: dict[str, Any]
    allocation: str
    cascade_threshold: float | None
    orders: str
    queries: QueryChoice
    judge_weights: Weights | None
    budgets: Budgets

    @property
    def chosen(self) -> list[ChosenJudge]:
        """The judges as an estimate takes them."""
        return [ChosenJudge(each.plugin, each.options) for each in self.judges]


class RunForm(PageForm):
    """A run's votes, document order, judges' weights and budgets."""

    allocation = forms.ChoiceField(label=gettext_lazy("Votes"), choices=Run.Allocation.choices, required=False)
    cascade_threshold = forms.FloatField(
        label=gettext_lazy("Escalate when within"),
        min_value=1e-6,
        max_value=0.5,
        required=False,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), BAD_THRESHOLD),
    )
    orders = forms.ChoiceField(label=gettext_lazy("Document order"), choices=Run.Orders.choices, required=False)
    judge_weights = forms.ChoiceField(
        label=gettext_lazy("Judges’ weights"),
        choices=[(ANCHORED, gettext_lazy("by agreement with people and grades")), (EQUAL, gettext_lazy("equal"))],
        required=False,
    )
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


class QueriesForm(PageForm):
    """The queries of a run; without a value all."""

    query_text = forms.CharField(label=gettext_lazy("Text contains"), max_length=500, required=False)
    certainty_below = forms.FloatField(
        label=gettext_lazy("Certainty below"), min_value=0.0, max_value=1.0, required=False
    )
    sample = forms.IntegerField(label=gettext_lazy("Random sample"), min_value=1, max_value=MOST, required=False)
    as_in_run = forms.IntegerField(label=gettext_lazy("As in run"), min_value=1, max_value=2**63 - 1, required=False)

    @property
    def choice(self) -> QueryChoice:
        """The choice of the valid form."""
        values = self.cleaned_data
        return QueryChoice(
            text=values["query_text"],
            sample=values["sample"],
            certainty_below=values["certainty_below"],
            as_in_run=values["as_in_run"],
        )


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


def read_order(project: Project, sent: QueryDict) -> Order:
    """Return the validated form values. Raises BadOrder, BadForm or UnknownPlugin."""
    keys = chosen_keys(sent)
    sampler = get_plugin("sampler", SamplerForm(sent).checked()["sampler"])
    run, queries, names = RunForm(sent), QueriesForm(sent), NamesForm(sent, keys=keys)
    design = plugin_form(sampler, prefix=f"sampler-{sampler.name}")(sent)
    plugins = {key: get_plugin("judge", plugin_of(key)) for key in keys if not key.startswith(STORED)}
    rows = choosable_endpoints(project) if any(map(chooses_endpoint, plugins.values())) else []
    forms_of = {key: judge_form(plugin, project, rows, prefix=f"judge-{key}") for key, plugin in plugins.items()}
    options = {key: form(sent) for key, form in forms_of.items()}
    check_all(run, queries, names, design, *options.values())
    values = run.cleaned_data
    judges = {
        key: ReadJudge(plugins[key], options[key].plain_options(), names.cleaned_data[key])
        if key in plugins
        else stored_judge(project, key)
        for key in _in_order(keys, sent.get("first", ""), values["allocation"])
    }
    return Order(
        judges=_without_doubles(list(judges.values())),
        sampler=sampler.name,
        sampler_options=design.plain_options(),
        allocation=values["allocation"],
        cascade_threshold=values["cascade_threshold"],
        orders=values["orders"],
        queries=queries.choice,
        judge_weights=values["judge_weights"] or None,
        budgets=Budgets(
            pairs=values["pair_budget"],
            calls=values["call_budget"],
            tokens=values["token_budget"],
            cost_micros=values["cost_budget"],
        ),
    )


def read_judge(project: Project, sent: QueryDict, key: str) -> ReadJudge:
    """Return the judge of one card or row. Raises BadOrder, BadForm or UnknownPlugin."""
    if not key:
        raise BadOrder(_("choose at least one judge"))
    if key.startswith(STORED):
        return stored_judge(project, key)
    plugin = get_plugin("judge", plugin_of(key))
    options, names = plugin_form(plugin, prefix=f"judge-{key}")(sent), NamesForm(sent, keys=[key])
    check_all(names, options)
    return ReadJudge(plugin, options.plain_options(), names.cleaned_data[key])


def stored_judge(project: Project, key: str) -> ReadJudge:
    """Return the project's judge that a card names. Raises BadOrder, UnknownPlugin."""
    number = key.removeprefix(STORED)
    known = Annotator.objects.offered().filter(
        project=project, pk=number if number.isdecimal() and len(number) < 19 else 0
    )
    judge = known.first()
    if judge is None:
        raise BadOrder(_("a chosen judge has been retired or deleted; reload the page and choose again"))
    return ReadJudge(get_plugin("judge", judge.plugin), dict(judge.options), judge.name, judge)


def chosen_keys(sent: QueryDict) -> list[str]:
    """Return the chosen cards and rows. Raises BadOrder."""
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


def _without_doubles(judges: Sequence[ReadJudge]) -> list[ReadJudge]:
    known: list[tuple[type[Plugin], dict[str, Any]]] = []
    for judge in judges:
        if (judge.plugin, judge.options) in known:
            raise BadOrder(
                _("%(judge)r is selected twice with the same options; change or remove one of them")
                % {"judge": judge.plugin.label}
            )
        known.append((judge.plugin, judge.options))
    return list(judges)


def plugin_of(key: str) -> str:
    """Return the plugin of a new judge's row."""
    return key.partition(AGAIN)[0]


def is_ordinary(sampler: type[Plugin]) -> bool:
    """Return whether a sampler can start a run: it is not cross-query and does not only continue a design."""
    return not getattr(sampler, "across_queries", False) and sampler.name not in GOES_ON
