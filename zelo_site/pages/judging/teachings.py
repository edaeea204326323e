"""Teaching judges: a page with a form for each judge that people's answers can be shown to, and what came of it."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling.models import Annotator, Project
from workers.broker.routing import judging_queue
from workers.jobs.teaching.job import can_be_taught, cancel_teaching, order_teaching, reason_of
from workers.jobs.teaching.plan import TeachingOptions, TeachingRefused
from workers.judges.examples import MOST_EXAMPLES
from workers.models import Job, JudgeTeaching
from zelo_site.pages.forms import PageForm, chosen_or_404
from zelo_site.pages.project.queues import read_queues
from zelo_site.pages.scope import may_change, owned_project, visible_project

SHOWN = 20
DEFAULTS = TeachingOptions()


class TeachingForm(PageForm):
    """The number of examples in the prompt, and of held-out pairs that both judges are asked."""

    examples = forms.IntegerField(
        label=gettext_lazy("Examples"), min_value=1, max_value=MOST_EXAMPLES, initial=DEFAULTS.examples
    )
    pairs = forms.IntegerField(
        label=gettext_lazy("Held-out pairs"), min_value=6, max_value=2000, initial=DEFAULTS.pairs
    )


def teachings_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the judges that can be taught, each with its latest teaching; a POST starts one. Judges that a teaching made are
    shown with the judge that they come from.
    """
    project = visible_project(request, slug)
    if request.method != "POST":
        return _page(request, project, TeachingForm())
    form = TeachingForm(request.POST)
    return _order(request, owned_project(request, slug), form) or _page(request, project, form)


def _page(request: HttpRequest, project: Project, form: TeachingForm) -> HttpResponse:
    every = Annotator.objects.offered().filter(project=project, taught_by__isnull=True).order_by("-id")
    judges = [judge for judge in every if can_be_taught(judge.plugin)][:SHOWN]
    rows = JudgeTeaching.objects.visible_to(request.user).filter(project=project, annotator__in=judges)
    latest = {row.annotator_id: row for row in rows.select_related("job", "annotator", "taught").order_by("id")}
    context = {
        "project": project,
        "judges": [{"judge": judge, **_shown(latest.get(judge.pk))} for judge in judges],
        "form": form,
        "chosen": request.POST.get("judge", ""),
        "most_examples": MOST_EXAMPLES,
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/teachings.html", context, status=422 if form.errors else 200)


def _order(request: HttpRequest, project: Project, form: TeachingForm) -> HttpResponse | None:
    """Start the teaching that the form describes; return None for an invalid form."""
    judge = chosen_or_404(Annotator.objects.judges().filter(project=project), request.POST, "judge")
    if not form.is_valid():
        return None
    try:
        order_teaching(judge, TeachingOptions(**form.cleaned_data), by=request.user)
    except TeachingRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("Teaching of %(name)s started.") % {"name": judge.name})
    return redirect("teachings", slug=project.slug)


def teaching_part(request: HttpRequest, slug: str, teaching_id: int) -> HttpResponse:
    """Return the panel of one teaching, which polls itself until the teaching has ended."""
    project = visible_project(request, slug)
    rows = JudgeTeaching.objects.visible_to(request.user).filter(project=project)
    teaching = get_object_or_404(rows.select_related("job", "annotator", "taught"), pk=teaching_id)
    context = {"project": project, "may_change": may_change(request, project), **_shown(teaching)}
    return render(request, "zelo/judging/parts/teaching.html", context)


@require_POST
def cancel(request: HttpRequest, slug: str, teaching_id: int) -> HttpResponse:
    """Cancel a teaching; its answers so far stay."""
    project = owned_project(request, slug)
    rows = JudgeTeaching.objects.filter(project=project).select_related("job", "annotator")
    teaching = get_object_or_404(rows, pk=teaching_id)
    if cancel_teaching(teaching, by=request.user):
        messages.success(request, _("Teaching cancelled."))
    else:
        messages.warning(request, _("The teaching has ended already."))
    return redirect("teachings", slug=project.slug)


def _shown(teaching: JudgeTeaching | None) -> dict[str, Any]:
    """The context of a teaching's panel."""
    if teaching is None:
        return {"teaching": None}
    is_live = teaching.job.state in (Job.State.OPEN, Job.State.LEASED)
    queues = read_queues([judging_queue(teaching.annotator.plugin)]) if is_live else []
    return {
        "teaching": teaching,
        "is_live": is_live,
        "reason": reason_of(teaching),
        "sides": _sides(teaching),
        "examples": teaching.taught.options.get("examples", []) if teaching.taught else [],
        "missing": [queue for queue in queues if not queue.workers],
    }


def _sides(teaching: JudgeTeaching) -> list[dict[str, Any]]:
    """A row of the table for each of the two judges, once the report is there."""
    report = teaching.report
    judges = (("old", teaching.annotator), ("taught", teaching.taught))
    return [
        {"judge": judge, "share": report.get(who), **report["usage"][who], "is_taught": who == "taught"}
        for who, judge in judges
        if report and judge is not None
    ]
