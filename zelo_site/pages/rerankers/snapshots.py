"""Snapshots of a project: the frozen scores with their lineage; owners can create new ones."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from labeling.models import Membership, Project, Query, Role
from labeling.plugins import Plugin
from labeling.wording import translated
from scoring.models import Score, Snapshot
from scoring.snapshots.freeze import MOST_ROWS_OF_A_REQUEST, SnapshotOptions, SnapshotRefused, freeze
from scoring.storage.files import StorageFull
from zelo_site.pages.options import BadOptions, OptionField, option_fields, read_options
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.templatetags.figures import count

PREFIX = "freeze"
WORDS = ("domains", "heldout_domains")


class _Form(Plugin):
    """Adapter that lets the form for plugin options show snapshot options."""

    label = "Snapshot"
    Options = SnapshotOptions  # type: ignore[assignment]


def snapshots_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the list and the form; a POST creates a snapshot."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/snapshots.html", _context(request, project))
    owned_project(request, slug)
    try:
        options = SnapshotOptions.model_validate(read_options(_Form, prefix=PREFIX, sent=_as_json(request.POST)))
        joined = _others(request, project).filter(slug__in=request.POST.getlist("project"))
        snapshot = freeze(
            [project, *joined],
            name=request.POST.get("name", ""),
            options=options,
            by=request.user,
            most_rows=MOST_ROWS_OF_A_REQUEST,
        )
    except (BadOptions, SnapshotRefused, StorageFull) as error:
        return render(request, "zelo/snapshots.html", _context(request, project, error), status=422)
    messages.success(
        request, _("Snapshot “%(name)s” created with %(n)s rows.") % {"n": count(snapshot.rows), "name": snapshot.name}
    )
    return redirect("training", slug=project.slug)


def _context(request: HttpRequest, project: Project, error: Exception | None = None) -> dict[str, Any]:
    sent = request.POST if error is not None else None
    fields = error.fields if isinstance(error, BadOptions) else option_fields(_Form, prefix=PREFIX, sent=sent)
    domains = Query.objects.filter(project=project).exclude(domain="").values_list("domain", flat=True)
    return {
        "project": project,
        "here": "training",
        "snapshots": Snapshot.objects.visible_to(request.user).filter(projects=project),
        "rated": Score.objects.filter(candidate__query__project=project).exists(),
        "fields": [_in_words(field, sent) for field in fields],
        "domains": sorted(set(domains.distinct()[:50])),
        "others": _others(request, project),
        "joined": request.POST.getlist("project"),
        "name": request.POST.get("name", f"{project.name}, {Snapshot.objects.filter(projects=project).count() + 1}"),
        "error": error,
        "may_change": may_change(request, project),
    }


def _others(request: HttpRequest, project: Project) -> Any:
    """Return the user's other owned projects, which a snapshot can include."""
    found = Project.objects.visible_to(request.user).exclude(pk=project.pk)
    if not getattr(request.user, "is_superuser", False):
        mine = Membership.objects.filter(user_id=request.user.pk or 0, role=Role.OWNER).values("project")
        found = found.filter(pk__in=mine)
    return found.filter(queries__fit__isnull=False).distinct()


def _in_words(field: OptionField, sent: QueryDict | None) -> OptionField:
    """Show lists of domains as text with commas."""
    if field.name.removeprefix(f"{PREFIX}-") not in WORDS:
        return field
    value = "" if sent is None else sent.get(field.name, "")
    separated = _("Separate with commas.")
    return dataclasses.replace(field, kind="text", value=value, help=f"{translated(field.help)} {separated}")


def _as_json(sent: QueryDict) -> dict[str, Any]:
    values = dict(sent.items())
    for name in WORDS:
        words = [word.strip() for word in sent.get(f"{PREFIX}-{name}", "").split(",")]
        values[f"{PREFIX}-{name}"] = json.dumps([word for word in words if word])
    return values
