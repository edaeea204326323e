"""The list of disagreements, largest first, and the page that decides one, with all answers and their reasons.

`scoring.annotators.adjudication.adjudicate` stores the verdict; then the page shows the next undecided pair of the list. The
parameter `between` names the list, so that it survives every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache

from labeling.annotation.answer_scale import BY_KEY, answer_labels, step_buttons
from labeling.models import Candidate, Judgment, Pair, Project
from scoring.annotators.adjudication import (
    ANSWERS,
    BadVerdict,
    DecidedMeanwhile,
    adjudicate,
    make_gold,
    undo_adjudication,
    unset_gold,
)
from scoring.annotators.disagreements import Between, Disagreement, disagreements, neighbours
from scoring.models import Adjudication
from zelo_site.pages.forms import BadForm, PageForm, one_of, whole_number
from zelo_site.pages.queries.reasons import Reason, judgments_with_sides, reason_of
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.pages.texts import SNIPPET_LENGTH, document_title

PAGE_SIZE = 25
MOST_OPINIONS = 100
LONGEST_NOTE = 2000


class VerdictForm(PageForm):
    """The owner's verdict: a key of the scale, a note, and whether the pair also becomes gold."""

    verdict = forms.ChoiceField(
        label=gettext_lazy("Verdict"),
        choices=[(key, key) for key in ANSWERS],
        error_messages={"invalid_choice": gettext_lazy("Choose one of the answers on this page.")},
    )
    note = forms.CharField(label=gettext_lazy("Note"), max_length=LONGEST_NOTE, required=False)
    gold = forms.BooleanField(required=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A pair of the list with its query and document titles; positions in per cent towards B."""

    found: Disagreement
    query: str
    a_title: str
    b_title: str
    verdict: str


def disagreements_page(request: HttpRequest, slug: str) -> HttpResponse:
    """List 25 disagreements per page; `between` filters by annotators, `show=decided` shows decided pairs."""
    project = visible_project(request, slug)
    between, decided = _between(request), bool(one_of(request.GET, "show", ["decided"]))
    found = disagreements(project, between=between, decided=decided)
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "page": page,
        "rows": _rows(list(page.object_list)),
        "total": len(found),
        "between": between,
        "decided": decided,
        "choices": [(each.value, _label(each)) for each in Between],
        "first": found[0].pair_id if found else None,
        "may_change": may_change(request, project),
        "here": "people",
    }
    return render(request, "zelo/people/disagreements.html", context)


def _between(request: HttpRequest) -> Between:
    return Between(one_of(request.GET, "between", Between, Between.ANYBODY))


def _label(between: Between) -> str:
    return {
        Between.ANYBODY: _("people and anyone"),
        Between.PEOPLE_AND_JUDGES: _("people and judges"),
        Between.PEOPLE: _("among people"),
        Between.JUDGES: _("among judges"),
    }[between]


def _rows(found: list[Disagreement]) -> list[Row]:
    ids = [each.pair_id for each in found]
    pairs = {pair.pk: pair for pair in Pair.objects.filter(pk__in=ids).select_related("a__query")}
    candidates = {pair.a_id for pair in pairs.values()} | {pair.b_id for pair in pairs.values()}
    texts = (
        Candidate.objects.filter(pk__in=candidates)
        .annotate(words=Left("document__text", SNIPPET_LENGTH))
        .values_list("id", "words", "document__metadata")
    )
    titles = {row[0]: document_title(row[1], row[2]) for row in texts}
    decided = Adjudication.objects.filter(pair_id__in=ids).select_related("judgment")
    verdicts = {each.pair_id: verdict_label(each) for each in decided}
    return [
        Row(
            each,
            pairs[each.pair_id].a.query.text,
            titles[pairs[each.pair_id].a_id],
            titles[pairs[each.pair_id].b_id],
            verdicts.get(each.pair_id, ""),
        )
        for each in found
    ]


def _key_of(preference: float | None) -> str:
    return next(key for key, value in ANSWERS.items() if value == preference)


def verdict_label(standing: Adjudication) -> str:
    """Return the verdict in the comparison screen's words."""
    return answer_labels()[BY_KEY[_key_of(standing.judgment.preference)]]


# --- one pair ----------------------------------------------------------------------------


@never_cache
def adjudicate_page(request: HttpRequest, slug: str, pair_id: int) -> HttpResponse:
    """Show one pair with all its answers; a POST decides it, undoes a verdict, or marks it as gold."""
    project = visible_project(request, slug)
    pairs = Pair.objects.visible_to(request.user).select_related(
        "a__document", "b__document", "a__query", "b__query", "adjudication__judgment", "adjudication__by"
    )
    pair = get_object_or_404(pairs, pk=pair_id, a__query__project=project)
    if request.method == "POST":
        return _act(request, owned_project(request, slug), pair)
    found = disagreements(project, between=_between(request))
    before, after = neighbours(found, pair.pk)
    people, judges = _opinions(request, pair)
    standing = getattr(pair, "adjudication", None)
    last = whole_number(request.GET, "last")
    context = {
        "project": project,
        "pair": pair,
        "sides": [_side("A", pair.a), _side("B", pair.b)],
        "people": people,
        "judges": judges,
        "standing": standing,
        "verdict": verdict_label(standing) if standing else "",
        "chosen": _key_of(standing.judgment.preference) if standing else "",
        "scale": step_buttons(),
        "is_gold": hasattr(pair, "gold_answer"),
        "before": _address(request, project, before),
        "after": _address(request, project, after),
        "left": len(found),
        "list": f"{reverse('disagreements', args=[project.slug])}?between={_between(request)}",
        "last": _address(request, project, last, seen=whole_number(request.GET, "verdict")) if last else "",
        "may_change": may_change(request, project),
        "here": "people",
    }
    return render(request, "zelo/people/adjudicate.html", context)


def _opinions(request: HttpRequest, pair: Pair) -> tuple[list[Reason], list[Reason]]:
    """Return people's and judges' answers without the adjudicator's own."""
    judgments = Judgment.objects.live().visible_to(request.user).filter(pair=pair, adjudication__isnull=True)
    rows = judgments_with_sides(judgments).order_by("id")[:MOST_OPINIONS]
    found = [reason_of(row, pair.a_id, rater=None) for row in rows]
    return [each for each in found if each.by_person], [each for each in found if not each.by_person]


def _side(letter: str, candidate: Candidate) -> dict[str, Any]:
    words = len(candidate.document.text.split())
    return {"letter": letter, "candidate": candidate, "words": words}


def _address(request: HttpRequest, project: Project, pair_id: int | None, **more: Any) -> str:
    if pair_id is None:
        return ""
    extra = "".join(f"&{name}={value}" for name, value in more.items())
    return f"{reverse('adjudicate', args=[project.slug, pair_id])}?between={_between(request)}{extra}"


def _act(request: HttpRequest, project: Project, pair: Pair) -> HttpResponse:
    """Handle a POST: `verdict` is a key of the scale, `action` is undo, gold or not-gold."""
    here = _address(request, project, pair.pk)
    action = one_of(request.POST, "action", ("undo", "gold", "not-gold"))
    try:
        with transaction.atomic():
            if action == "undo":
                return _undo(request, pair, here)
            if action in {"gold", "not-gold"}:
                return _gold(request, pair, here, wanted=action == "gold")
            return _decide(request, project, pair, here)
    except (BadForm, BadVerdict, DecidedMeanwhile) as error:
        messages.error(request, str(error))
        return redirect(here)


def _seen(request: HttpRequest) -> int | None:
    """Return the verdict id that the user saw, 0 for none: of this pair, or of the last one for an undo."""
    return whole_number(request.GET if "seen" in request.GET else request.POST, "seen")


def _decide(request: HttpRequest, project: Project, pair: Pair, here: str) -> HttpResponse:
    # Read it before the verdict removes the pair from the list, because the next pair is found by position.
    before, after = neighbours(disagreements(project, between=_between(request)), pair.pk)
    values = VerdictForm(request.POST).checked()
    key = values["verdict"]
    made = adjudicate(pair, request.user, key, note=values["note"], seen=_seen(request))
    if values["gold"] and ANSWERS[key] is not None:
        make_gold(pair, by=request.user)
    messages.success(request, _("Decided: %(verdict)s.") % {"verdict": verdict_label(made.adjudication)})
    onward = after if after is not None else before
    if onward is None:
        return redirect(f"{reverse('disagreements', args=[project.slug])}?between={_between(request)}")
    return redirect(_address(request, project, onward, last=pair.pk, verdict=made.adjudication.pk))


def _undo(request: HttpRequest, pair: Pair, here: str) -> HttpResponse:
    if undo_adjudication(pair, seen=_seen(request), by=request.user):
        messages.success(request, _("Verdict undone."))
    else:
        messages.warning(request, _("This pair has no verdict to undo."))
    return redirect(here)


def _gold(request: HttpRequest, pair: Pair, here: str, *, wanted: bool) -> HttpResponse:
    if wanted:
        make_gold(pair, by=request.user)
        messages.success(request, _("Pair marked as gold. People’s answers to it are now checked."))
    elif unset_gold(pair, by=request.user):
        messages.success(request, _("Pair removed from gold."))
    return redirect(here)
