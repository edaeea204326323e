"""Downloads of a project: the page that lists every exporter with its options, and the file itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from labeling.models import Project
from labeling.plugins import Exporter, ExportFailed, UnknownPlugin, get_plugin, registered
from scoring.exports.exporting import export
from zelo_site.pages.forms import BadForm, OptionsForm, plugin_form
from zelo_site.pages.scope import may_change, visible_project

BLOCK = 64 * 1024
IN_MEMORY = 16 * 1024 * 1024
PREFIX = "o"
GROUPS = (
    ("scores", _("Scores"), ("zbench-annotated-jsonl", "trec-run", "hugging-face")),
    ("grades", _("Texts and grades"), ("beir", "trec-qrels", "rater-grades-csv")),
    ("judgments", _("Judgments"), ("judgments-csv", "judgments-parquet", "judgments-jsonl")),
    ("training", _("Training sets"), ("st-pairs", "st-triplets", "st-lists")),
    (
        "tasks",
        _("Tasks for other tools"),
        ("label-studio-pairs", "label-studio-ratings", "argilla-pairs", "argilla-ratings"),
    ),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """An exporter on the page: its label, what it writes, and the form of its options."""

    name: str
    label: str
    help: str
    form: OptionsForm


def exports_page(request: HttpRequest, slug: str, error: Exception | None = None) -> HttpResponse:
    """List the exporters by what they hold; those of plugins stand last."""
    project = visible_project(request, slug)
    listed = {name for _key, _title, names in GROUPS for name in names}
    others = tuple(name for name in registered("exporter") if name not in listed)
    groups = [*GROUPS, ("more", _("More formats"), others)]
    context = {
        "project": project,
        "groups": [
            {
                "key": key,
                "title": title,
                "exporters": [_shown(name) for name in names if name in registered("exporter")],
            }
            for key, title, names in groups
            if names
        ],
        "error": error,
        "may_change": may_change(request, project),
        "here": "project",
    }
    return render(request, "zelo/exporting/exports.html", context, status=422 if error else 200)


def _shown(name: str) -> Shown:
    plugin = cast("type[Exporter]", get_plugin("exporter", name))
    return Shown(name, plugin.label, plugin.format_help, plugin_form(plugin, prefix=f"{PREFIX}-{name}")())


def download(request: HttpRequest, slug: str, exporter: str) -> HttpResponseBase:
    """Send the project in the format of an exporter; what it cannot hold is said on the page."""
    project = visible_project(request, slug)
    try:
        plugin = get_plugin("exporter", exporter)
        form = plugin_form(plugin, prefix=f"{PREFIX}-{exporter}")
        sent = any(name.startswith(f"{PREFIX}-{exporter}") for name in request.GET)
        options = form(request.GET).plain_options() if sent else {}
        return export_response(project, exporter, options=options, by=request.user)
    except (BadForm, ExportFailed, UnknownPlugin) as error:
        return exports_page(request, slug, error)


def export_response(project: Project, exporter: str, *, options: Mapping[str, Any], by: Any) -> StreamingHttpResponse:
    """The file, complete before its first byte is sent, so that a failure is no broken download.

    Raises UnknownPlugin, pydantic.ValidationError, ExportFailed.
    """
    plugin = cast("type[Exporter]", get_plugin("exporter", exporter))
    spool = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  closed by the stream
    try:
        export(project, exporter, cast(IO[bytes], spool), options=options, by=by)
    except BaseException:
        spool.close()
        raise
    spool.seek(0)
    response = StreamingHttpResponse(_blocks(cast(IO[bytes], spool)), content_type=plugin.content_type)
    response["Content-Disposition"] = f'attachment; filename="{project.slug}{plugin.suffix}"'
    return response


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while block := stream.read(BLOCK):
            yield block
