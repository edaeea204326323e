"""One pair: both documents side by side and all answers, including superseded ones; owners can mark it as gold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling.annotation.answer_scale import PREFERENCES, step_buttons
from labeling.annotation.gold import set_gold
from labeling.models import Candidate, Judgment, Pair
from scoring.annotators.adjudication import unset_gold
from scoring.models import QueryFit
from zelo_site.pages.forms import PageForm
from zelo_site.pages.queries.reasons import Reason, expected_preference, judgments_with_sides, reason_of
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.pages.texts import document_title

MOST_SHOWN = 200
LONGEST_WHY = 1000


@dataclass(frozen=True, slots=True)
class Answer:
    """One judgment from a's side; `superseded_at` is set if it was undone or corrected."""

    reason: Reason
    superseded_at: datetime | None


class GoldForm(PageForm):
    """The known answer of a pair, empty for none, and its explanation."""

    answer = forms.ChoiceField(
        label=gettext_lazy("Known answer"), choices=[(key, key) for key in PREFERENCES], required=False
    )
    explanation = forms.CharField(label=gettext_lazy("Explanation"), max_length=LONGEST_WHY, required=False)


def pair_page(request: HttpRequest, slug: str, pair_id: int, refused: GoldForm | None = None) -> HttpResponse:
    """Show A left and B right; each answer says which document its judge saw first."""
    project = visible_project(request, slug)
    pairs = Pair.objects.visible_to(request.user).select_related(
        "a__document", "b__document", "a__query", "b__query", "a__score", "b__score"
    )
    pair = get_object_or_404(pairs, pk=pair_id, a__query__project=project)
    fit = QueryFit.objects.visible_to(request.user).filter(query=pair.query_id).first()
    answers = _answers(request, pair, rater=fit.rater if fit else None)
    context = {
        "project": project,
        "pair": pair,
        "sides": [_side("A", pair.a), _side("B", pair.b)],
        "answers": answers,
        "expected": _expected(pair, fit),
        "gold": (gold := getattr(pair, "gold_answer", None)),
        "gold_form": refused or GoldForm(initial={"explanation": gold.explanation if gold else ""}),
        "scale": step_buttons(),
        "may_change": may_change(request, project),
        "here": "queries",
    }
    return render(request, "zelo/queries/pair.html", context, status=422 if refused else 200)


@require_POST
def mark_gold(request: HttpRequest, slug: str, pair_id: int) -> HttpResponse:
    """Set the pair's gold answer, or remove it if `answer` is empty."""
    project = owned_project(request, slug)
    pair = get_object_or_404(Pair.objects.visible_to(request.user), pk=pair_id, a__query__project=project)
    form = GoldForm(request.POST)
    if not form.is_valid():
        return pair_page(request, slug, pair_id, form)
    answer = form.cleaned_data["answer"]
    if answer:
        set_gold(pair.pk, PREFERENCES[answer], explanation=form.cleaned_data["explanation"], by=request.user)
        messages.success(request, _("Pair marked as gold. People’s answers to it are now checked."))
    elif unset_gold(pair, by=request.user):
        messages.success(request, _("Pair removed from gold."))
    return redirect("pair", slug=project.slug, pair_id=pair.pk)


def _answers(request: HttpRequest, pair: Pair, *, rater: str | None) -> list[Answer]:
    judgments = Judgment.objects.visible_to(request.user).filter(pair=pair)
    superseded = dict(judgments.values_list("id", "superseded_at"))
    rows = judgments_with_sides(judgments).order_by("id")[:MOST_SHOWN]
    found = [Answer(reason_of(row, pair.a_id, rater=rater), superseded.get(row["id"])) for row in rows]
    return sorted(found, key=lambda answer: answer.superseded_at is not None)


def _side(letter: str, candidate: Candidate) -> dict[str, Any]:
    return {
        "letter": letter,
        "candidate": candidate,
        "title": document_title(candidate.document.text, candidate.document.metadata),
        "score": getattr(candidate, "score", None),
        "words": len(candidate.document.text.split()),
    }


def _expected(pair: Pair, fit: QueryFit | None) -> float | None:
    """Return P(a is more relevant) from the fit; None without a fit, or across queries."""
    a, b = getattr(pair.a, "score", None), getattr(pair.b, "score", None)
    if fit is None or a is None or b is None:
        return None
    return expected_preference(fit.rater, a.theta - b.theta)
