"""Pages of project archives: download one, and import one as a new project."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from labeling.projects import BadProject, may_create
from scoring.storage.files import StorageFull
from workers.archives.exporting import PEOPLE, PSEUDONYMS, stream_archive
from workers.archives.format import SUFFIX
from workers.archives.importing import order_import
from workers.archives.reading import BadArchive
from zelo_site.pages.forms import BadForm, PageForm, one_of, shown_form
from zelo_site.pages.scope import owned_project


class ArchiveForm(PageForm):
    """An archive, and another name for its project."""

    file = forms.FileField(label=gettext_lazy("File"), allow_empty_file=True)
    name = forms.CharField(label=gettext_lazy("Project name"), max_length=200, required=False)


@require_POST
def export_archive(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Download the project's archive."""
    project = owned_project(request, slug)
    blocks = stream_archive(project, people=one_of(request.POST, "people", PEOPLE, PSEUDONYMS), by=request.user)
    response = StreamingHttpResponse(blocks, content_type="application/gzip")
    response["Content-Disposition"] = f'attachment; filename="{project.slug}{SUFFIX}"'
    return response


def import_archive_page(request: HttpRequest) -> HttpResponse:
    """Show the form; a POST creates a project and orders the import."""
    if not may_create(request.user):
        raise PermissionDenied(_("only staff and project owners can create projects; ask an owner"))
    error: Exception | None = None
    if request.method == "POST":
        try:
            sent = ArchiveForm(request.POST, request.FILES).checked()
            job = order_import(sent["file"], name=sent["name"], owner=request.user, by=request.user)
        except (BadForm, BadArchive, BadProject, StorageFull) as refused:
            error = refused
        else:
            messages.success(request, _("Importing the archive. The Jobs page shows the progress."))
            return redirect("project", slug=job.project.slug)
    form = shown_form(ArchiveForm, request.POST or None, error)
    context = {"form": form, "error": error, "here": "projects"}
    return render(request, "zelo/lifecycle/import_archive.html", context, status=422 if error else 200)
