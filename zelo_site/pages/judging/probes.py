"""The injection probe: ordering one, and what earlier ones found."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Annotator, Project
from workers.jobs.injection_probe import ProbeOptions, ProbeRefused, can_be_probed, order_probe, payloads
from workers.models import InjectionProbe
from zelo_site.pages.forms import PageForm, chosen_or_404
from zelo_site.pages.scope import may_change, owned_project, visible_project

SHOWN = 10


class PayloadsForm(PageForm):
    """The payloads of a probe."""

    payload = forms.MultipleChoiceField(
        label=gettext_lazy("Payloads"), error_messages={"required": gettext_lazy("Choose at least one payload.")}
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["payload"].choices = [(key, key) for key in payloads()]  # type: ignore[attr-defined]


def probes_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The form and the latest ten probes; a POST orders one."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return _page(request, project, PayloadsForm(initial={"payload": ProbeOptions().payloads}))
    form = PayloadsForm(request.POST)
    return _order(request, owned_project(request, slug), form) or _page(request, project, form)


def _page(request: HttpRequest, project: Project, form: PayloadsForm) -> HttpResponse:
    judges = Annotator.objects.judges().filter(project=project).order_by("id")
    probes = InjectionProbe.objects.visible_to(request.user).filter(project=project).select_related("annotator")
    shown = list(probes[:SHOWN])
    context = {
        "project": project,
        "probes": shown,
        "is_live": any(probe.state in (InjectionProbe.State.OPEN, InjectionProbe.State.ASKING) for probe in shown),
        "judges": [judge for judge in judges if can_be_probed(judge)],
        "payloads": list(payloads().values()),
        "form": form,
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/probes.html", context, status=422 if form.errors else 200)


def _order(request: HttpRequest, project: Project, form: PayloadsForm) -> HttpResponse | None:
    """Order what the form asks for; None where the form is wrong."""
    judge = chosen_or_404(Annotator.objects.judges().filter(project=project), request.POST, "judge")
    if not form.is_valid():
        return None
    try:
        order_probe(judge, ProbeOptions(payloads=form.cleaned_data["payload"]), created_by=request.user)
    except ProbeRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("The probe is ordered; its figures appear here once it has finished."))
    return redirect("probes", slug=project.slug)
