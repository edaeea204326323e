"""The page that starts a run, and its summary: the estimate beside the start button, which follows the form."""

from __future__ import annotations

from typing import Any

import pydantic
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from labeling.models import Annotator, Project
from labeling.plugins import UnknownPlugin
from scoring.spot_checks.draws import BadPlan
from workers.models import Run
from workers.runs.cascade import DEFAULT_THRESHOLD
from workers.runs.choices.presets import PRESETS, UnknownPreset, get_preset
from workers.runs.choices.queries import NoQueryChosen, choose_queries
from workers.runs.choices.weights import advise_weights
from workers.runs.estimate import RunEstimate, estimate_run, limits_before_their_end
from workers.runs.ordering import RunRefused, start_run
from zelo_site.pages.forms import BadForm, chosen_or_404, shown_form
from zelo_site.pages.judging.new_run.cards import judge_cards, judge_rows, sampler_rows, with_another
from zelo_site.pages.judging.new_run.order import STORED, BadOrder, Order, QueriesForm, RunForm, SamplerForm, read_order
from zelo_site.pages.judging.new_run.people import PeopleForm, plan_people, preview_people
from zelo_site.pages.judging.new_run.remembered import last_run, preset_values, remembered_values
from zelo_site.pages.scope import owned_project
from zelo_site.templatetags.figures import count

PEOPLE = "people"
PAGE, SUMMARY = "zelo/judging/start.html", "zelo/judging/parts/estimate.html"
REFUSED = (BadOrder, BadForm, BadPlan, RunRefused, NoQueryChosen, UnknownPlugin, pydantic.ValidationError)


def new_run(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form as the last run had it, or as `preset` sets it, with the judge that `like` names; a POST starts the run,
    or adds a row for another judge.
    """
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, PAGE, _context(project, request.GET.get("preset", ""), _first_values(request, project)))
    preset = request.POST.get("preset", "")
    if "another" in request.POST:
        return render(request, PAGE, _context(project, preset, with_another(project, request.POST)))
    try:
        if preset == PEOPLE:
            return _plan(request, project)
        _start(project, read_order(project, request.POST), by=request.user)
    except REFUSED as error:
        return render(request, PAGE, _context(project, preset, request.POST, error), status=422)
    messages.success(request, _("Run started. Scores update as answers arrive."))
    return redirect("project", slug=project.slug)


@require_POST
def estimate(request: HttpRequest, slug: str) -> HttpResponse:
    """Return the estimate for the current form values."""
    project = owned_project(request, slug)
    context: dict[str, Any] = {"project": project}
    try:
        if request.POST.get("preset") == PEOPLE:
            context["preview"] = preview_people(project, request.POST)
        else:
            order = read_order(project, request.POST)
            found = _estimated(project, order)
            limits = limits_before_their_end(project, order.chosen, [found])
            context |= {"estimate": found, "limits": limits, "order": order, "advice": advise_weights(project)}
    except REFUSED as error:
        context["error"] = error
    return render(request, SUMMARY, context)


def _first_values(request: HttpRequest, project: Project) -> QueryDict:
    run, asked = last_run(project), request.GET.get("preset", "")
    try:
        values = preset_values(project, run, get_preset(asked)) if asked and asked != PEOPLE else None
    except UnknownPreset:
        values = None
    values = values or remembered_values(project, run)
    if "like" in request.GET:
        like = chosen_or_404(Annotator.objects.offered().filter(project=project), request.GET, "like")
        values.setlist("judge", [f"{STORED}{like.pk}"])
    if "certainty_below" in request.GET:
        for name in ("query_text", "sample", "as_in_run"):
            values.pop(name, None)
        values["certainty_below"] = request.GET["certainty_below"][:20]
    return values


def _start(project: Project, order: Order, *, by: Any) -> Run:
    return start_run(
        project,
        judges=[judge.annotator(project) for judge in order.judges],
        by=by,
        sampler=order.sampler,
        sampler_options=order.sampler_options,
        allocation=order.allocation,
        cascade_threshold=order.cascade_threshold,
        orders=order.orders,
        queries=order.queries,
        judge_weights=order.judge_weights,
        pair_budget=order.budgets.pairs,
        call_budget=order.budgets.calls,
        token_budget=order.budgets.tokens,
        cost_budget_micros=order.budgets.cost_micros,
    )


def _plan(request: HttpRequest, project: Project) -> HttpResponse:
    planned = plan_people(project, request.POST, by=request.user)
    text = ngettext("%(n)s pair waits for people.", "%(n)s pairs wait for people.", planned.pairs)
    messages.success(request, text % {"n": count(planned.pairs)})
    return redirect("people", slug=project.slug)


def _estimated(project: Project, order: Order) -> RunEstimate:
    return estimate_run(
        project,
        order.chosen,
        sampler=order.sampler,
        sampler_options=order.sampler_options,
        allocation=order.allocation,
        orders=order.orders,
        budgets=order.budgets,
        cascade_threshold=DEFAULT_THRESHOLD if order.cascade_threshold is None else order.cascade_threshold,
        query_ids=choose_queries(project, order.queries),
    )


def _context(project: Project, preset: str, values: QueryDict, error: Exception | None = None) -> dict[str, Any]:
    sampler = shown_form(SamplerForm, values, error)["sampler"]
    run = last_run(project)
    cards = judge_cards(project, values)
    rows = judge_rows(project, values, error)
    samplers = sampler_rows(str(sampler.value()), values, error)
    form = shown_form(RunForm, values, error)
    return {
        "project": project,
        "preset": preset,
        "presets": PRESETS,
        "is_people": preset == PEOPLE,
        "people": shown_form(PeopleForm, values, error),
        "last": run,
        "cards": cards,
        "judges": rows,
        "rows_open": not cards or any(row.chosen or row.is_open for row in rows),
        "samplers": samplers,
        "sampler": sampler,
        "allocations": Run.Allocation.choices,
        "orders": Run.Orders.choices,
        "default_threshold": DEFAULT_THRESHOLD,
        "form": form,
        "queries": shown_form(QueriesForm, values, error),
        "earlier": _earlier(project, values),
        "advice": advise_weights(project),
        "advanced_open": isinstance(error, BadForm) and not all(isinstance(each, PeopleForm) for each in error.forms),
        "error": error,
        "may_change": True,
        "here": "project",
    }


def _earlier(project: Project, values: QueryDict) -> Run | None:
    """The earlier run whose queries the form offers: the chosen one, or the last one that asked about some of them."""
    chosen = str(values.get("as_in_run") or "")
    runs = Run.objects.filter(project=project, query_ids__isnull=False).order_by("-id")
    return (runs.filter(pk=chosen).first() if chosen.isdecimal() and len(chosen) < 19 else None) or runs.first()
