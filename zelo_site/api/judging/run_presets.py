"""REST of the presets of a run."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from labeling.access.api_auth import project_or_404
from workers.runs.choices.presets import PRESETS
from workers.runs.choices.weights import Weights, advise_weights
from zelo_site.api.runs import QueryChoiceIn

router = Router(tags=["runs"])


class PresetOut(Schema):
    """A preset: add `judges` and budgets to its other fields and send them to POST /projects/{slug}/runs. `for_judges`:
    how many judges it is meant for, null for any number.
    """

    key: str
    label: str
    purpose: str
    for_judges: int | None
    sampler: str
    sampler_options: dict[str, Any]
    allocation: str
    orders: str
    queries: QueryChoiceIn


class PresetsOut(Schema):
    """The presets, and the weights of judges that fit the project, with the reason."""

    presets: list[PresetOut]
    judge_weights: Weights
    reason: str


@router.get("/projects/{slug}/runs/presets", response=PresetsOut)
def get_presets(request: HttpRequest, slug: str) -> Any:
    """The presets of a run, as the page New run offers them."""
    advice = advise_weights(project_or_404(request, slug))
    presets = [
        {
            "key": each.key,
            "label": each.label,
            "purpose": each.purpose,
            "for_judges": each.judges,
            "sampler": each.settings.sampler,
            "sampler_options": dict(each.settings.sampler_options),
            "allocation": each.settings.allocation,
            "orders": each.settings.orders,
            "queries": each.settings.queries,
        }
        for each in PRESETS
    ]
    return {"presets": presets, "judge_weights": advice.weights, "reason": advice.reason}
