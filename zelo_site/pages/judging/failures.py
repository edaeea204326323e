"""Unanswered questions: counts and filters by reason, and a retry button."""

from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import ngettext

from labeling.models import Annotator, Project
from labeling.records import FailureKind
from workers.judging.failures import MEANINGS, FailureFilter, failed_calls, failed_tasks, failure_counts, retry_failures
from workers.models import JudgingTask
from zelo_site.pages.forms import whole_number
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.templatetags.figures import count

PAGE_SIZE = 50
LATEST = 20


def failures_page(request: HttpRequest, slug: str) -> HttpResponse:
    """List all reasons and 50 questions per page, filtered by `reason` and `judge`, and the latest failed calls; a POST retries the filtered questions."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _retry(request, owned_project(request, slug))
    judge = _judge(request.GET, project)
    chosen = _filter(request.GET, judge)
    tasks = failed_tasks(project, chosen).select_related("annotator", "pair__a__query").order_by("-id")
    counts = failure_counts(project, chosen)
    page = Paginator(tasks, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "project": project,
        "counts": counts,
        "total": sum(each.dead + each.waiting for each in counts),
        "page": page,
        "chosen": chosen,
        "meaning": MEANINGS[FailureKind(chosen.reason)] if chosen.reason else None,
        "dead": failed_tasks(project, chosen).filter(state=JudgingTask.State.DEAD).count(),
        "calls": failed_calls(project, annotator_id=judge.pk if judge else None).select_related("annotator")[:LATEST],
        "judge": judge,
        "judges": Annotator.objects.visible_to(request.user).filter(project=project, is_person=False),
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/failures.html", context)


def _retry(request: HttpRequest, project: Project) -> HttpResponse:
    sent = request.POST.get("reason", "")
    if sent and sent not in set(FailureKind):  # an unknown reason must not retry all questions
        return HttpResponseBadRequest(f"reason is {sent[:40]!r}; expected one of {', '.join(FailureKind)}, or none")
    chosen = _filter(request.POST, _judge(request.POST, project))
    tell_asked_again(request, retry_failures(project, chosen, by=request.user))
    return redirect("failures", slug=project.slug)


def tell_asked_again(request: HttpRequest, questions: int) -> None:
    """Add a message with the number of retried questions."""
    text = ngettext("Retrying %(n)s question.", "Retrying %(n)s questions.", questions)
    messages.success(request, text % {"n": count(questions)})


def _judge(sent: QueryDict, project: Project) -> Annotator | None:
    return Annotator.objects.judges().filter(project=project, pk=whole_number(sent, "judge") or 0).first()


def _filter(sent: QueryDict, judge: Annotator | None) -> FailureFilter:
    reason = sent.get("reason", "")
    known = reason if reason in set(FailureKind) else None
    return FailureFilter(reason=known, annotator_id=judge.pk if judge else None)
