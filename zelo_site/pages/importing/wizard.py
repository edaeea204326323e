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
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.dataset import ImportFailed, Preview, import_dataset, preview_dataset
from labeling.importing.detection import AUTO
from labeling.importing.formats import Row
from labeling.models import Project
from labeling.plugins import UnknownPlugin, get_plugin, registered
from labeling.projects import BadProject, create_project, may_create
from labeling.records import AnswerKind, ImportedCandidate, ImportedDocument, ImportedGrade
from labeling.retrieval.candidates import rank_candidates
from scoring.storage.files import StorageFull
from workers.archives.data_files import AlreadyImporting, DataFile, order_data_import
from zelo_site.pages.forms import BadForm, PageForm, check_all, shown_form
from zelo_site.pages.importing.formats import (
    chosen_options,
    file_key,
    has_columns,
    importer_of,
    options_shown,
)
from zelo_site.pages.scope import owned_project
from zelo_site.pages.texts import clipped, document_title

DEFAULT_IMPORTER = AUTO
GRADES_IMPORTER = "trec-qrels"


@dataclass(frozen=True, slots=True)
class Source:
    """Data to import: a stream, its name for error messages, and its format."""

    stream: IO[bytes]
    name: str
    importer: str
    options: dict[str, Any]


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
    replaces = forms.BooleanField(required=False)
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
            stored = _import(project, data.cleaned_data, request.POST, by=request.user)
    except (BadForm, BadProject, ImportFailed, UnknownPlugin, StorageFull) as error:
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
            stored = _import(project, values, request.POST, by=request.user)
    except (BadForm, ImportFailed, UnknownPlugin, AlreadyImporting, StorageFull) as error:
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
        slug = str(request.POST.get("project", ""))
        project = owned_project(request, slug) if slug else None
        looks = [_look(source, project) for source in _sources(values, request.POST)]
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
        "importers": [
            (AUTO, _("Detect the format")),
            *((name, each.label) for name, each in registered("importer").items()),
        ],
        "form": shown_form(ProjectForm, request.POST or None, error),
        "data": shown_form(ImportForm, request.POST or None, error),
        "error": error,
        "may_change": True,
        "here": "import" if project else "projects",
    }


def _sources(values: Mapping[str, Any], sent: Mapping[str, Any]) -> list[Source]:
    """Return the file or the pasted text of a checked ImportForm, then the grades. Raises BadForm, UnknownPlugin."""
    file, text, grades = (values[name] for name in ("file", "text", "grades"))
    found = []
    if file is not None:
        found.append(_source(file.file, file.name or "upload", values, sent))
    elif text.strip():
        pasted = text.replace("\r\n", "\n").encode("utf-8", "surrogatepass")
        found.append(_source(io.BytesIO(pasted), _("pasted text"), values, sent))
    if grades is not None:
        found.append(Source(grades.file, grades.name or "grades", GRADES_IMPORTER, _grade_options(values)))
    return found


def _source(stream: IO[bytes], name: str, values: Mapping[str, Any], sent: Mapping[str, Any]) -> Source:
    importer = importer_of(stream, name, values["importer"])
    options = chosen_options(sent, importer, name)
    if importer == GRADES_IMPORTER:
        options = options | _grade_options(values)
    return Source(stream, name, importer, options)


def _grade_options(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of the qrels importer."""
    options = {}
    if values["negative_ungraded"]:
        options["negative"] = "ungraded"
    if values["repeated_maximum"]:
        options["repeated"] = "maximum"
    return options


def _is_large(sources: list[Source]) -> bool:
    """Whether a worker imports these files, because the web process must not be busy for so long."""
    return sum(_size(source.stream) for source in sources) > settings.ZELO_IMPORT_INLINE_BYTES


def _size(stream: IO[bytes]) -> int:
    place = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(place)
    return size


def _order(project: Project, sources: list[Source], values: Mapping[str, Any], *, by: Any) -> str:
    """Order the import by a worker; return what the page says."""
    files = [DataFile(each.stream, each.name, each.importer, each.options) for each in sources]
    order_data_import(project, files, leave_out_bad_rows=values["leave_out"], replaces=values["replaces"], by=by)
    return _("The import is queued; the jobs page shows when it has ended.")


def _import(project: Project, values: Mapping[str, Any], sent: Mapping[str, Any], *, by: Any) -> str:
    """Import every source of a checked ImportForm, large ones by a worker; return a summary of the new data."""
    sources, sentences = _sources(values, sent), []
    if _is_large(sources):
        return _order(project, sources, values, by=by)
    for source in sources:
        source.stream.seek(0)
        summary = import_dataset(
            project,
            source.stream,
            importer=source.importer,
            options=source.options,
            filename=source.name,
            leave_out_bad_rows=values["leave_out"],
            replaces=values["replaces"],
            by=by,
        )
        sentences.append(str(summary))
    rank_candidates(project)
    return " ".join(sentences)


def _look(source: Source, project: Project | None) -> dict[str, Any]:
    """Return a preview with its first rows, its errors by reason and the options of its format as the page shows them."""
    options = (
        None if source.importer == GRADES_IMPORTER else options_shown(source.stream, source.importer, source.options)
    )
    found: Preview = preview_dataset(
        source.stream, importer=source.importer, options=source.options, filename=source.name, project=project
    )
    return {
        "name": source.name,
        "annotators": found.annotators,
        "has_columns": has_columns(source.importer),
        "label": get_plugin("importer", source.importer).label,
        "preview": found,
        "figures": _figures(found),
        "error_count": max(sum(each.count for each in found.reasons), len(found.errors)),
        "rows": [_sample(row) for row in found.rows],
        "options": options,
        "for_file": file_key(source.importer, source.name),
    }


def _figures(found: Preview) -> list[tuple[int, str]]:
    """Return the counts above 0, each with its noun."""
    counted = (
        (found.queries, ngettext("query", "queries", found.queries)),
        (found.documents, ngettext("document", "documents", found.documents)),
        (found.candidates, ngettext("candidate", "candidates", found.candidates)),
        (found.grades, ngettext("grade", "grades", found.grades)),
        (found.judgments, ngettext("judgment", "judgments", found.judgments)),
        (found.ratings, ngettext("grade of a rater", "grades of raters", found.ratings)),
    )
    return [each for each in counted if each[0]]


def _sample(row: Row) -> dict[str, Any]:
    """Return a row as it will be stored."""
    if isinstance(row, ImportedGrade):
        text = _("document %(id)s has grade %(grade)s") % {"id": row.document_id, "grade": row.grade}
        return {"kind": _("grade"), "id": row.query_id, "text": text, "documents": []}
    if isinstance(row, ImportedCandidate):
        return {"kind": _("candidate"), "id": row.query_id, "text": _place(row), "documents": []}
    if isinstance(row, ImportedRating):
        said = {"name": row.annotator, "id": row.document_id, "grade": row.grade}
        text = _("%(name)s grades document %(id)s as %(grade)s") % said
        return {"kind": _("grade of a rater"), "id": row.query_id, "text": text, "documents": []}
    if isinstance(row, ImportedPreference):
        return {"kind": _("judgment"), "id": row.query_id, "text": _answer(row), "documents": []}
    text = clipped(row.text, 200)
    if isinstance(row, ImportedDocument):
        return {"kind": _("document"), "id": row.id, "text": text, "documents": []}
    return {
        "kind": _("query"),
        "id": row.id,
        "text": text,
        "documents": [document_title(each.text, each.metadata) for each in row.documents[:3]],
        "more": max(0, len(row.documents) - 3),
    }


def _answer(row: ImportedPreference) -> str:
    """Return a judgment in words, with P(a is better)."""
    said = {"name": row.annotator, "a": row.a_id, "b": row.b_id}
    if row.preference is None:
        neither = row.kind is AnswerKind.BOTH_IRRELEVANT
        return (
            _("%(name)s finds neither %(a)s nor %(b)s relevant")
            if neither
            else _("%(name)s cannot judge %(a)s and %(b)s")
        ) % said
    said["preference"] = f"{row.preference:.2f}"
    return _("%(name)s prefers %(a)s to %(b)s with %(preference)s") % said


def _place(row: ImportedCandidate) -> str:
    if row.rank is not None:
        return _("document %(id)s at rank %(rank)s") % {"id": row.document_id, "rank": row.rank}
    if row.score is not None:
        return _("document %(id)s with score %(score)s") % {"id": row.document_id, "score": row.score}
    return _("document %(id)s") % {"id": row.document_id}
