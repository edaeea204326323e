"""The values that the form of a new run begins with: those of the last run, of a preset, or of the first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import QueryDict

from labeling.models import Annotator, Project
from labeling.plugins import get_plugin, registered
from workers.models import Run
from workers.runs.choices.presets import Preset, Settings
from workers.runs.choices.queries import QueryChoice
from workers.runs.choices.weights import advise_weights
from zelo_site.pages.judging.new_run.order import STORED, is_ordinary

FIRST_JUDGES = ("bm25", "query-likelihood", "embedding")


def last_run(project: Project) -> Run | None:
    """Return the latest run that a form like this one can describe."""
    ordinary = [name for name, plugin in registered("sampler").items() if is_ordinary(plugin)]
    return Run.objects.filter(project=project, sampler__in=ordinary).order_by("-id").first()


def remembered_values(project: Project, run: Run | None) -> QueryDict:
    """Return the values of the last run; without one, those of a first run."""
    if run is None:
        return _values(project, Settings(), judges=FIRST_JUDGES)
    judges = list(run.judges.filter(pk__in=Annotator.objects.offered().values("pk")).order_by("pk"))
    if run.cascade_first_id:
        judges.sort(key=lambda judge: judge.pk != run.cascade_first_id)
    settings = Settings(
        sampler=run.sampler,
        sampler_options=run.sampler_options,
        allocation=run.allocation,
        orders=run.orders,
        queries=QueryChoice() if run.query_ids is None else QueryChoice(as_in_run=run.pk),
    )
    values = _values(project, settings, judges=[f"{STORED}{judge.pk}" for judge in judges] or FIRST_JUDGES)
    budgets: dict[str, Any] = {
        "cascade_threshold": run.cascade_threshold, "pair_budget": run.pair_budget, "call_budget": run.call_budget,
        "token_budget": run.token_budget, "cost_budget": run.cost_budget_micros,
    }  # fmt: skip
    if run.cascade_first_id:
        budgets["first"] = f"{STORED}{run.cascade_first_id}"
    _set(values, budgets)
    return values


def preset_values(project: Project, run: Run | None, preset: Preset) -> QueryDict:
    """Return the values of a preset, with the judges of the last run."""
    judges = remembered_values(project, run).getlist("judge")
    return _values(project, preset.settings, judges=judges)


def _values(project: Project, settings: Settings, *, judges: Any) -> QueryDict:
    values = QueryDict(mutable=True)
    values.setlist("judge", list(judges))
    # All options, for a check box without a value is one that was cleared.
    options = get_plugin("sampler", settings.sampler).from_dict(dict(settings.sampler_options)).options
    given = options.model_dump(mode="json")
    _set(values, {f"sampler-{settings.sampler}-{name}": value for name, value in given.items()})
    chosen = settings.queries
    _set(
        values,
        {
            "sampler": settings.sampler,
            "allocation": settings.allocation,
            "orders": settings.orders,
            "query_text": chosen.text,
            "sample": chosen.sample,
            "certainty_below": chosen.certainty_below,
            "as_in_run": chosen.as_in_run,
            "judge_weights": advise_weights(project).weights,
        },
    )
    return values


def _set(values: QueryDict, given: Mapping[str, Any]) -> None:
    """Add the values that are set; each stays as it is, for the form's fields format it."""
    for name, value in given.items():
        if value not in (None, ""):
            values.setlist(name, [value])
