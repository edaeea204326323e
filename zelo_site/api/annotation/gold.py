"""REST of single pairs: mark one with a known answer, remove the mark, ask judges or a person about one."""

from __future__ import annotations

from typing import Any, Literal

from django.db import transaction
from django.http import HttpRequest
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404
from labeling.annotation.answer_scale import PREFERENCES
from labeling.annotation.gold import set_gold
from labeling.models import Pair, Project
from scoring.annotators.adjudication import unset_gold
from scoring.spot_checks.draws import NothingToAsk
from scoring.spot_checks.plans import ask_person
from workers.runs.ordering import NoJudges, RunRefused, ask_again
from zelo_site.api.conventions.paging import Number
from zelo_site.api.projects import Text

router = Router(tags=["people"])


class GoldIn(Schema):
    """The known answer, with document a on the left; with an explanation the pair is a worked example, and nobody is asked."""

    answer: Literal["left_clearly", "left_slightly", "tie", "right_slightly", "right_clearly"]
    explanation: Text = Field("", max_length=1000)


class GoldOut(Schema):
    """`preference` is P(a is the more relevant)."""

    pair_id: int
    preference: float
    explanation: str


class AskIn(Schema):
    whom: Literal["judges", "person"]


class AskedOut(Schema):
    """The run or the plan of spot checks that asks."""

    run: int | None = None
    plan: int | None = None


@router.put("/projects/{slug}/pairs/{pair_id}/gold", response=GoldOut)
def put_gold(request: HttpRequest, slug: str, pair_id: Number, body: GoldIn) -> Any:
    """Set the known answer of a pair; it replaces an earlier one."""
    pair = _pair_or_404(request, owned_project_or_404(request, slug), pair_id)
    with transaction.atomic():
        gold = set_gold(pair.pk, PREFERENCES[body.answer], explanation=body.explanation, by=request.user)
    return {"pair_id": pair.pk, "preference": gold.preference, "explanation": gold.explanation}


@router.delete("/projects/{slug}/pairs/{pair_id}/gold", response={204: None})
def delete_gold(request: HttpRequest, slug: str, pair_id: Number) -> Any:
    """Remove the known answer of a pair; 404 where it has none."""
    pair = _pair_or_404(request, owned_project_or_404(request, slug), pair_id)
    if not unset_gold(pair, by=request.user):
        raise HttpError(404, f"pair {pair_id} has no gold answer")
    return Status(204, None)


@router.post("/projects/{slug}/pairs/{pair_id}/ask", response=AskedOut)
def post_ask(request: HttpRequest, slug: str, pair_id: Number, body: AskIn) -> Any:
    """Ask the last run's judges in the orders that they have not answered (a run), or one more person (a plan of spot checks); 409 if nobody is left."""
    project = owned_project_or_404(request, slug)
    pair = _pair_or_404(request, project, pair_id)
    try:
        if body.whom == "person":
            return {"plan": ask_person(project, pair, by=request.user).plan.pk}
        return {"run": ask_again(project, pair, by=request.user).pk}
    except (NoJudges, NothingToAsk, RunRefused) as error:
        raise HttpError(409, str(error)) from error


def _pair_or_404(request: HttpRequest, project: Project, pair_id: int) -> Pair:
    pair = Pair.objects.visible_to(request.user).filter(pk=pair_id, a__query__project=project).first()
    if pair is None:
        raise HttpError(404, f"project {project.slug!r} has no pair {pair_id}; GET .../disagreements lists some")
    return pair
