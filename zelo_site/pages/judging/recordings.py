"""Recorded answers: uploading a file, its judges, and a run that replays them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labeling.models import Annotator, Judgment, Project
from scoring.storage.files import StorageFull
from workers.jobs.recorded_judges import RecordingRefused, StoredRecording, recorded_judges, store_recording
from workers.models import Run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.planning import RECORDED
from zelo_site.pages.forms import BadForm, PageForm, chosen_or_404, one_of
from zelo_site.pages.scope import may_change, owned_project, visible_project

ACTIONS = ("upload", "replay")
ALLOCATIONS = (Run.Allocation.ALL, Run.Allocation.ROTATE)


class UploadForm(PageForm):
    """A file of recorded answers."""

    file = forms.FileField(label=gettext_lazy("File"), allow_empty_file=True)


@dataclass(frozen=True, slots=True)
class ShownRecording:
    """An uploaded file: its judges, and how many of their answers the project has stored."""

    checksum: str
    judges: list[Annotator]
    answered: int


def recordings_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show uploaded files and the form; a POST uploads a file, or starts a run that replays one."""
    if request.method != "POST":
        return _page(request, visible_project(request, slug))
    project = owned_project(request, slug)
    try:
        if one_of(request.POST, "action", ACTIONS, "replay") == "upload":
            _say_stored(request, _upload(request, project))
        else:
            _replay(request, project)
            messages.success(request, _("Run started. Scores update as answers arrive."))
            return redirect("project", slug=slug)
    except (BadForm, RecordingRefused, RunRefused, StorageFull) as error:
        return _page(request, project, error)
    return redirect("recordings", slug=slug)


def _upload(request: HttpRequest, project: Project) -> StoredRecording:
    file = UploadForm(request.POST, request.FILES).checked()["file"]
    return store_recording(project, file.file, filename=file.name or "upload", by=request.user)


def _replay(request: HttpRequest, project: Project) -> Run:
    known = Annotator.objects.judges().filter(project=project, plugin=RECORDED)
    one = chosen_or_404(known, request.POST, "judge")
    judges = recorded_judges(project)[one.options["recording"]]
    allocation = one_of(request.POST, "allocation", [each.value for each in ALLOCATIONS], Run.Allocation.ALL)
    return start_run(project, judges=judges, by=request.user, sampler=RECORDED, allocation=allocation)


def _say_stored(request: HttpRequest, stored: StoredRecording) -> None:
    judges = ngettext("%(n)s judge", "%(n)s judges", len(stored.judges)) % {"n": len(stored.judges)}
    known = _("%(known)s of %(answers)s answers of %(judges)s can be replayed.")
    text = known % {"known": f"{stored.known:,}", "answers": f"{stored.answers:,}", "judges": judges}
    if stored.left_out:
        text += " " + _("The others name unknown queries or documents, or texts that have changed.")
    messages.success(request, text)


def _page(request: HttpRequest, project: Project, error: Exception | None = None) -> HttpResponse:
    found = recorded_judges(project)
    shown = [
        ShownRecording(checksum, judges, Judgment.objects.live().filter(annotator__in=judges).count())
        for checksum, judges in found.items()
    ]
    context: dict[str, Any] = {
        "project": project,
        "recordings": shown,
        "allocations": [(each.value, each.label) for each in ALLOCATIONS],
        "error": error,
        "may_change": may_change(request, project),
        "here": "judges",
    }
    return render(request, "zelo/judging/recordings.html", context, status=422 if error else 200)
