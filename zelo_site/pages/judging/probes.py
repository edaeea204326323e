"""The injection probe: starting one, and the results of earlier ones."""

from __future__ import annotations

import pydantic
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from labeling.models import Annotator, Project
from workers.jobs.injection_probe import ProbeOptions, ProbeRefused, can_be_probed, order_probe, payloads
from workers.models import InjectionProbe, Job
from zelo_site.pages.scope import may_change, owned_project, visible_project

SHOWN = 10


def probes_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form and the latest ten probes; a POST starts one."""
    project = visible_project(request, slug)
    if request.method == "POST":
        return _order(request, owned_project(request, slug))
    judges = Annotator.objects.judges().filter(project=project).order_by("id")
    probes = InjectionProbe.objects.visible_to(request.user).filter(project=project).select_related("annotator", "job")
    shown = list(probes[:SHOWN])
    context = {
        "project": project,
        "probes": shown,
        "is_live": any(probe.job.state in (Job.State.OPEN, Job.State.LEASED) for probe in shown),
        "judges": [judge for judge in judges if can_be_probed(judge)],
        "payloads": list(payloads().values()),
        "chosen": ProbeOptions().payloads,
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/probes.html", context)


def _order(request: HttpRequest, project: Project) -> HttpResponse:
    number = request.POST.get("judge", "")
    known = int(number) if number.isascii() and number.isdigit() and len(number) < 18 else 0
    judge = get_object_or_404(Annotator.objects.judges(), project=project, pk=known)
    try:
        options = ProbeOptions.model_validate({"payloads": request.POST.getlist("payload")})
        order_probe(judge, options, by=request.user)
    except pydantic.ValidationError:
        messages.error(request, _("Choose at least one payload."))
    except ProbeRefused as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("Probe started. Results appear here when it finishes."))
    return redirect("probes", slug=project.slug)
