"""From a file to a project: choose or paste, look at what is in it, then store all of it or nothing.

The preview reads the file and stores nothing, not even the file: the browser keeps it and sends it
again with the order to import. Both go through `labeling.importing.dataset`, as in REST and command line.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from labeling.importing.dataset import ImportFailed, Preview, import_dataset, preview_dataset
from labeling.models import Project
from labeling.plugins import UnknownPlugin, registered
from labeling.projects import BadProject, create_project, may_create
from labeling.retrieval.candidates import rank_candidates
from zelo_site.pages.scope import owned_project
from zelo_site.pages.texts import clipped, document_title

DEFAULT_IMPORTER = "zbench-jsonl"
GRADES_IMPORTER = "trec-qrels"


class NothingSent(ValueError):
    """Neither a file nor a text came with the form."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be read: a stream, its name for error messages, and the format to read it as."""

    stream: IO[bytes]
    name: str
    importer: str


def new_project(request: HttpRequest) -> HttpResponse:
    """The form of a new project with its first data; a POST stores both or neither."""
    if not may_create(request.user):
        raise PermissionDenied(_("starting a project needs a staff account or a project of one's own; ask an owner"))
    if request.method != "POST":
        return render(request, "zelo/wizard.html", _form(request, None))
    try:
        with transaction.atomic():
            project = create_project(
                request.POST.get("name", ""),
                owner=request.user,
                instruction=request.POST.get("instruction", ""),
                by=request.user,
            )
            stored = _import(project, _sources(request), by=request.user)
    except (BadProject, NothingSent, ImportFailed, UnknownPlugin) as error:
        return render(request, "zelo/wizard.html", _form(request, None, error), status=422)
    messages.success(request, stored)
    return redirect("new-run", slug=project.slug)


def import_page(request: HttpRequest, slug: str) -> HttpResponse:
    """The same form for a project that is there already."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/wizard.html", _form(request, project))
    try:
        with transaction.atomic():
            stored = _import(project, _sources(request), by=request.user)
    except (NothingSent, ImportFailed, UnknownPlugin) as error:
        return render(request, "zelo/wizard.html", _form(request, project, error), status=422)
    messages.success(request, stored)
    return redirect("project", slug=project.slug)


def preview(request: HttpRequest) -> HttpResponse:
    """What is in the file, its errors line by line; stores nothing."""
    if request.method != "POST":
        return redirect("new-project")
    if not may_create(request.user):
        raise PermissionDenied(_("previewing an import needs a staff account or a project of one's own"))
    try:
        looks = [_look(source) for source in _sources(request)]
        context: dict[str, Any] = {"looks": looks, "is_good": not any(look["preview"].errors for look in looks)}
    except (NothingSent, UnknownPlugin, ImportFailed) as error:
        context = {"error": error}
    template = "zelo/parts/preview.html" if request.headers.get("HX-Request") else "zelo/preview.html"
    return render(request, template, context)


def _form(request: HttpRequest, project: Project | None, error: Exception | None = None) -> dict[str, Any]:
    return {
        "project": project,
        "importers": [(name, importer.label) for name, importer in registered("importer").items()],
        "default_importer": request.POST.get("importer", DEFAULT_IMPORTER),
        "sent": request.POST,
        "error": error,
        "may_change": True,
        "here": "import" if project else "projects",
    }


def _sources(request: HttpRequest) -> list[Source]:
    """The file or the pasted text, then the grades; raises NothingSent where there is none of them."""
    importer = request.POST.get("importer", DEFAULT_IMPORTER)
    found = []
    file, text, grades = request.FILES.get("file"), request.POST.get("text", ""), request.FILES.get("grades")
    if file is not None:
        found.append(Source(file.file, file.name or "upload", importer))  # type: ignore[arg-type]
    elif text.strip():
        pasted = text.replace("\r\n", "\n").encode("utf-8", "surrogatepass")
        found.append(Source(io.BytesIO(pasted), _("pasted text"), importer))
    if grades is not None:
        found.append(Source(grades.file, grades.name or "grades", GRADES_IMPORTER))  # type: ignore[arg-type]
    if not found:
        raise NothingSent(_("no file was chosen and no text pasted; give one of them"))
    return found


def _import(project: Project, sources: list[Source], *, by: Any) -> str:
    """Store every source; returns the sentence that says what is new."""
    sentences = []
    for source in sources:
        source.stream.seek(0)
        summary = import_dataset(project, source.stream, importer=source.importer, filename=source.name, by=by)
        sentences.append(str(summary))
    rank_candidates(project)
    return " ".join(sentences)


def _look(source: Source) -> dict[str, Any]:
    """A preview with its first rows as the page lists them."""
    found: Preview = preview_dataset(source.stream, importer=source.importer, filename=source.name)
    return {"name": source.name, "preview": found, "rows": [_sample(row) for row in found.rows]}


def _sample(row: Any) -> dict[str, Any]:
    documents = getattr(row, "documents", None)
    if documents is None:
        text = _("document %(id)s has grade %(grade)s") % {"id": row.document_id, "grade": row.grade}
        return {"id": row.query_id, "text": text, "documents": []}
    return {
        "id": row.id,
        "text": clipped(row.text, 200),
        "documents": [document_title(each.text, each.metadata) for each in documents[:3]],
        "more": max(0, len(documents) - 3),
    }
