"""Unanswered questions: counts and filters by reason, and a retry button."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext_lazy, ngettext

from labeling.models import Annotator, Project
from labeling.records import FailureKind
from workers.judging.failures import (
    MEANINGS,
    FailureFilter,
    failed_calls,
    failed_tasks,
    failure_counts,
    retry_failures,
)
from workers.models import Attempt, JudgingTask
from zelo_site.pages.forms import PageForm
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.templatetags.figures import count

PAGE_SIZE = 50
LATEST = 20


class FailureForm(PageForm):
    """The reason and the judge of the unanswered questions; empty for all."""

    reason = forms.ChoiceField(
        label=gettext_lazy("Reason"), choices=[(kind, kind) for kind in FailureKind], required=False
    )
    judge = forms.ModelChoiceField(Annotator.objects.none(), label=gettext_lazy("Judge"), required=False)

    @classmethod
    def of(cls, sent: QueryDict, project: Project) -> FailureForm:
        """Return the form of the submitted filter."""
        return cls(sent, rows={"judge": Annotator.objects.judges().filter(project=project)})

    def filter(self) -> FailureFilter:
        """Return the filter of the valid fields."""
        judge = self.cleaned_data.get("judge")
        return FailureFilter(reason=self.cleaned_data.get("reason") or None, annotator_id=judge.pk if judge else None)


def failures_page(request: HttpRequest, slug: str) -> HttpResponse:
    """List all reasons and 50 questions per page, filtered by `reason` and `judge`, and the latest failed calls; a POST retries the filtered questions."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _retry(request, owned_project(request, slug))
    form = FailureForm.of(request.GET, project)
    form.is_valid()  # a list without a filter answers an invalid one
    return _page(request, project, form)


def _page(request: HttpRequest, project: Project, form: FailureForm) -> HttpResponse:
    refused = request.method == "POST" and not form.is_valid()
    judge, chosen = form.cleaned_data.get("judge"), form.filter()
    tasks = failed_tasks(project, chosen).select_related("annotator", "pair__a__query").order_by("-id")
    counts = failure_counts(project, chosen)
    page = Paginator(tasks, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "counts": counts,
        "total": sum(each.dead + each.waiting for each in counts),
        "page": page,
        "chosen": chosen,
        "dead": failed_tasks(project, chosen).filter(state=JudgingTask.State.DEAD).count(),
        "calls": _latest_calls(project, chosen),
        "judge": judge,
        "error": form.summary() if refused else "",
        "judges": Annotator.objects.visible_to(request.user).filter(project=project, is_person=False),
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/failures.html", context, status=422 if refused else 200)


def _latest_calls(project: Project, chosen: FailureFilter) -> list[tuple[Attempt, str]]:
    """Return the latest failed calls of the filter, each with the name of its reason."""
    calls = failed_calls(project, annotator_id=chosen.annotator_id, reason=chosen.reason).select_related("annotator")
    return [(call, MEANINGS[FailureKind(call.outcome)].label) for call in calls[:LATEST]]


def _retry(request: HttpRequest, project: Project) -> HttpResponse:
    form = FailureForm.of(request.POST, project)
    if not form.is_valid():  # an unknown reason or judge must not retry all questions
        return _page(request, project, form)
    tell_asked_again(request, retry_failures(project, form.filter(), by=request.user))
    return redirect("failures", slug=project.slug)


def tell_asked_again(request: HttpRequest, questions: int) -> None:
    """Add a message with the number of retried questions."""
    text = ngettext("Retrying %(n)s question.", "Retrying %(n)s questions.", questions)
    messages.success(request, text % {"n": count(questions)})
