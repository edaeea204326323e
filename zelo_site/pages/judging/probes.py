"""The injection probe: starting one, and the results of earlier ones."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Annotator, Project
from workers.jobs.injection_probe import ProbeOptions, ProbeRefused, can_be_probed, order_probe, payloads
from workers.models import InjectionProbe, Job
from zelo_site.pages.forms import PageForm
from zelo_site.pages.scope import may_change, owned_project, visible_project

SHOWN = 10


class ProbeForm(PageForm):
    """The judge of a probe, and its payloads."""

    judge = forms.ModelChoiceField(Annotator.objects.none(), label=gettext_lazy("Judge"))
    payload = forms.MultipleChoiceField(
        label=gettext_lazy("Payloads"), error_messages={"required": gettext_lazy("Choose at least one payload.")}
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["payload"].choices = [(key, key) for key in payloads()]  # type: ignore[attr-defined]


def probes_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form and the latest ten probes; a POST starts one."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return _page(request, project, ProbeForm(initial={"payload": ProbeOptions().payloads}))
    form = ProbeForm(request.POST, rows={"judge": _judges(project)})
    return _order(request, owned_project(request, slug), form) or _page(request, project, form)


def _page(request: HttpRequest, project: Project, form: ProbeForm) -> HttpResponse:
    probes = InjectionProbe.objects.visible_to(request.user).filter(project=project).select_related("annotator", "job")
    shown = list(probes[:SHOWN])
    context = {
        "project": project,
        "probes": shown,
        "is_live": any(probe.job.state in (Job.State.OPEN, Job.State.LEASED) for probe in shown),
        "judges": [judge for judge in _judges(project) if can_be_probed(judge)],
        "payloads": list(payloads().values()),
        "form": form,
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/probes.html", context, status=422 if form.errors else 200)


def _judges(project: Project) -> QuerySet[Annotator]:
    return Annotator.objects.offered().filter(project=project).order_by("id")


def _order(request: HttpRequest, project: Project, form: ProbeForm) -> HttpResponse | None:
    """Start the probe that the form describes; return None for an invalid form."""
    if not form.is_valid():
        return None
    try:
        order_probe(form.cleaned_data["judge"], ProbeOptions(payloads=form.cleaned_data["payload"]), by=request.user)
    except ProbeRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("Probe started. Results appear here when it finishes."))
    return redirect("probes", slug=project.slug)
