"""The pages of people who compare: the screen itself, the instruction before it, and one's own answers.

The screen's data comes from `labeling.annotation.http`; these views render frames and words. Members who may only look
get 403 with an explanation, strangers 404.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render, resolve_url
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_http_methods, require_safe

from labeling.access.annotators import get_person
from labeling.access.members import role_of
from labeling.annotation import answer_scale, screen_texts
from labeling.annotation.context import find_screen_context
from labeling.annotation.gold import gold_record
from labeling.annotation.instruction import confirm_read, has_read, instruction_hash
from labeling.annotation.own_answers import answers_a_day, latest_answers
from labeling.annotation.worked_examples import worked_examples
from labeling.models import GoldFeedback, Judgment, Project, Role

SENT_TO = ("next", "answer", "undo", "skip", "heartbeat")
PAGE = 25


def _project(request: HttpRequest, slug: str) -> Project:
    """The project if the visitor may see it; 404 otherwise, whether it exists or not."""
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


def _may_compare(request: HttpRequest, project: Project) -> bool:
    return role_of(request.user, project) in (Role.OWNER, Role.ANNOTATOR)


def _only_looks(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "annotation/not_yours.html", {"project": project, "here": "compare"}, status=403)


@require_safe
@never_cache
@ensure_csrf_cookie
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    """The comparison screen; everything that moves in it is fetched by its script."""
    project = _project(request, slug)
    if not _may_compare(request, project):
        return _only_looks(request, project)
    context = {
        "project": project,
        "here": "compare",
        "screen": _screen(request, project),
        "sides": [
            {"letter": "A", "label": _("Document A, left"), "text_label": _("Text of document A")},
            {"letter": "B", "label": _("Document B, right"), "text_label": _("Text of document B")},
        ],
        "scale": answer_scale.step_buttons(),
        "criteria": screen_texts.criteria(project),
        "reasons": answer_scale.reason_buttons(),
        "keys": screen_texts.keys(),
    }
    return render(request, "annotation/compare.html", context)


def _screen(request: HttpRequest, project: Project) -> dict[str, Any]:
    """The values passed to the screen's script."""
    here = reverse("compare", args=[project.slug])
    is_owner = role_of(request.user, project) == Role.OWNER
    return {
        "user": request.user.pk,
        "project": project.slug,
        "language": get_language(),
        "urls": {
            **{verb: reverse(f"compare-{verb}", args=[project.slug]) for verb in SENT_TO},
            "instruction": reverse("instruction", args=[project.slug]),
            "answers": reverse("my-answers", args=[project.slug]),
            "sign_in": f"{resolve_url('sign-in')}?next={here}",
            **({"people": reverse("people", args=[project.slug])} if is_owner else {}),
        },
        "texts": screen_texts.texts(),
        "answers": {key: answer for key, answer in answer_scale.BY_KEY.items() if key.isdigit()},
    }


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def instruction(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the instruction with worked examples; a POST confirms that this very text has been read."""
    project = _project(request, slug)
    if not _may_compare(request, project):
        return _only_looks(request, project)
    if request.method == "POST":
        if confirm_read(project, request.user, seen=request.POST.get("seen", "")):
            return redirect("compare", slug=project.slug)
        messages.warning(request, _("The instruction was changed while you read. Please read it as it stands now."))
        return redirect("instruction", slug=project.slug)
    context = {
        "project": project,
        "here": "instruction",
        "seen": instruction_hash(project),
        "is_read": has_read(get_person(project, request.user), project),
        "examples": worked_examples(project),
        "scale": answer_scale.step_buttons(),
        "keys": screen_texts.keys(),
    }
    return render(request, "annotation/instruction.html", context)


@require_safe
@never_cache
def my_answers(request: HttpRequest, slug: str) -> HttpResponse:
    """One's own latest answers and how many a day; nobody else's."""
    project = _project(request, slug)
    if not _may_compare(request, project):
        return _only_looks(request, project)
    person = get_person(project, request.user)
    page = Paginator(range(Judgment.objects.live().filter(annotator=person).count()), PAGE).get_page(
        request.GET.get("page")
    )
    labels = answer_scale.answer_labels()
    rules = find_screen_context(request.user, project.slug)
    right, known = gold_record(rules) if rules.gold_feedback == GoldFeedback.OPEN else (0, 0)
    answers = latest_answers(person, start=max(0, page.start_index() - 1), most=PAGE)
    context = {
        "project": project,
        "here": "my-answers",
        "answers": [(answer, labels[answer.answer]) for answer in answers],
        "days": answers_a_day(person),
        "right": right,
        "known": known,
        "page": page,
    }
    return render(request, "annotation/my_answers.html", context)
