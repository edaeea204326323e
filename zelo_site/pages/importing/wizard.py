"""The import form: upload or paste data, preview it, then import it. Imports are all-or-nothing by default.

The preview stores nothing, not even the file; the browser sends the file again for the import. Both use
`labeling.importing.dataset`, as the REST API and the command line do.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.importing.dataset import ImportFailed, Preview, import_dataset, preview_dataset
from labeling.models import Project
from labeling.plugins import UnknownPlugin, registered
from labeling.projects import BadProject, create_project, may_create
from labeling.retrieval.candidates import rank_candidates
from zelo_site.pages.forms import BadForm, PageForm, check_all, shown_form
from zelo_site.pages.scope import owned_project
from zelo_site.pages.texts import clipped, document_title

DEFAULT_IMPORTER = "zbench-jsonl"
GRADES_IMPORTER = "trec-qrels"


@dataclass(frozen=True, slots=True)
class Source:
    """Data to import: a stream, its name for error messages, and its format."""

    stream: IO[bytes]
    name: str
    importer: str
    options: dict[str, str]


class ProjectForm(PageForm):
    """Name and instruction of a new project."""

    name = forms.CharField(label=gettext_lazy("Project name"), max_length=200)
    instruction = forms.CharField(label=gettext_lazy("Relevance instruction"), required=False)


class ImportForm(PageForm):
    """The data to import: a file or pasted text, and optional grades."""

    file = forms.FileField(label=gettext_lazy("File"), required=False, allow_empty_file=True)
    importer = forms.CharField(label=gettext_lazy("Format"), required=False, initial=DEFAULT_IMPORTER)
    text = forms.CharField(required=False, strip=False)
    grades = forms.FileField(label=gettext_lazy("Human grades"), required=False, allow_empty_file=True)
    leave_out = forms.BooleanField(required=False)
    negative_ungraded = forms.BooleanField(required=False)
    repeated_maximum = forms.BooleanField(required=False)

    def clean_importer(self) -> str:
        """Return the importer's name, or the default; the import itself refuses unknown names."""
        return self.cleaned_data["importer"] or DEFAULT_IMPORTER

    def clean(self) -> dict[str, Any]:
        """Require a file, pasted text or grades."""
        values = self.cleaned_data
        if not (values.get("file") or values.get("grades") or values.get("text", "").strip() or self.errors):
            self.add_error("file", _("nothing to import; choose a file or paste text"))
        return values


def new_project(request: HttpRequest) -> HttpResponse:
    """Show the form for a new project with data; a POST stores both or neither."""
    if not may_create(request.user):
        raise PermissionDenied(_("only staff and project owners can create projects; ask an owner"))
    if request.method != "POST":
        return render(request, "zelo/importing/wizard.html", _form(request, None))
    try:
        form, data = ProjectForm(request.POST), ImportForm(request.POST, request.FILES)
        check_all(form, data)
        with transaction.atomic():
            project = create_project(owner=request.user, by=request.user, **form.cleaned_data)
            stored = _import(project, data.cleaned_data, by=request.user)
    except (BadForm, BadProject, ImportFailed, UnknownPlugin) as error:
        return render(request, "zelo/importing/wizard.html", _form(request, None, error), status=422)
    messages.success(request, stored)
    return redirect("new-run", slug=project.slug)


def import_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the form for an existing project."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/importing/wizard.html", _form(request, project))
    try:
        values = ImportForm(request.POST, request.FILES).checked()
        with transaction.atomic():
            stored = _import(project, values, by=request.user)
    except (BadForm, ImportFailed, UnknownPlugin) as error:
        return render(request, "zelo/importing/wizard.html", _form(request, project, error), status=422)
    messages.success(request, stored)
    return redirect("project", slug=project.slug)


def preview(request: HttpRequest) -> HttpResponse:
    """Show the file's content and its errors per line; stores nothing."""
    if request.method != "POST":
        return redirect("new-project")
    if not may_create(request.user):
        raise PermissionDenied(_("only staff and project owners can preview an import; ask an owner"))
    try:
        values = ImportForm(request.POST, request.FILES).checked()
        looks = [_look(source) for source in _sources(values)]
        context: dict[str, Any] = {
            "looks": looks,
            "is_good": not any(look["preview"].errors for look in looks),
            "leave_out": values["leave_out"],
        }
    except (BadForm, UnknownPlugin, ImportFailed) as error:
        context = {"error": error}
    template = (
        "zelo/importing/parts/preview.html" if request.headers.get("HX-Request") else "zelo/importing/preview.html"
    )
    return render(request, template, context)


def _form(request: HttpRequest, project: Project | None, error: Exception | None = None) -> dict[str, Any]:
    return {
        "project": project,
        "importers": [(name, importer.label) for name, importer in registered("importer").items()],
        "form": shown_form(ProjectForm, request.POST or None, error),
        "data": shown_form(ImportForm, request.POST or None, error),
        "error": error,
        "may_change": True,
        "here": "import" if project else "projects",
    }


def _sources(values: Mapping[str, Any]) -> list[Source]:
    """Return the file or the pasted text of a checked ImportForm, then the grades."""
    importer, file, text, grades = (values[name] for name in ("importer", "file", "text", "grades"))
    options = _grade_options(values)
    of_file = options if importer == GRADES_IMPORTER else {}
    found = []
    if file is not None:
        found.append(Source(file.file, file.name or "upload", importer, of_file))
    elif text.strip():
        pasted = text.replace("\r\n", "\n").encode("utf-8", "surrogatepass")
        found.append(Source(io.BytesIO(pasted), _("pasted text"), importer, of_file))
    if grades is not None:
        found.append(Source(grades.file, grades.name or "grades", GRADES_IMPORTER, options))
    return found


def _grade_options(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of the qrels importer."""
    options = {}
    if values["negative_ungraded"]:
        options["negative"] = "ungraded"
    if values["repeated_maximum"]:
        options["repeated"] = "maximum"
    return options


def _import(project: Project, values: Mapping[str, Any], *, by: Any) -> str:
    """Import every source of a checked ImportForm; return a summary of the new data."""
    sentences = []
    for source in _sources(values):
        source.stream.seek(0)
        summary = import_dataset(
            project,
            source.stream,
            importer=source.importer,
            options=source.options,
            filename=source.name,
            leave_out_bad_rows=values["leave_out"],
            by=by,
        )
        sentences.append(str(summary))
    rank_candidates(project)
    return " ".join(sentences)


def _look(source: Source) -> dict[str, Any]:
    """Return a preview with its first rows as the page shows them."""
    found: Preview = preview_dataset(
        source.stream, importer=source.importer, options=source.options, filename=source.name
    )
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
