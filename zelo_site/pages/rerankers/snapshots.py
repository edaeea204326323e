"""Snapshots of a project: the frozen scores with their lineage; owners can create new ones."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from labeling.models import Membership, Project, Query, Role
from scoring.models import Score, Snapshot
from scoring.snapshots.freeze import MOST_ROWS_OF_A_REQUEST, SnapshotOptions, SnapshotRefused, freeze
from scoring.snapshots.splits import SPLITS, TEST, TRAIN
from scoring.storage.files import StorageFull
from zelo_site.pages.forms import BadForm, PageForm, check_all, options_form, shown_form
from zelo_site.pages.scope import may_change, owned_project, visible_project
from zelo_site.templatetags.figures import count


class SnapshotForm(PageForm):
    """The name of a new snapshot, and the other projects that it includes."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=200)
    project = forms.ModelMultipleChoiceField(
        Project.objects.none(),
        to_field_name="slug",
        required=False,
        label=gettext_lazy("Include other projects"),
        error_messages={"invalid_choice": gettext_lazy("You cannot include “%(value)s”; choose from the list.")},
    )


OptionsForm = options_form(SnapshotOptions, prefix="freeze", title="Snapshot")


def snapshots_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the list and the form; a POST creates a snapshot."""
    project = visible_project(request, slug)
    if request.method != "POST":
        return render(request, "zelo/rerankers/snapshots.html", _context(request, project))
    owned_project(request, slug)
    try:
        form = SnapshotForm(request.POST, rows={"project": _others(request, project)})
        options = OptionsForm(request.POST)
        check_all(form, options)
        snapshot = freeze(
            [project, *form.cleaned_data["project"]],
            name=form.cleaned_data["name"],
            options=SnapshotOptions.model_validate(options.plain_options()),
            by=request.user,
            most_rows=MOST_ROWS_OF_A_REQUEST,
        )
    except (BadForm, SnapshotRefused, StorageFull) as error:
        return render(request, "zelo/rerankers/snapshots.html", _context(request, project, error), status=422)
    messages.success(
        request, _("Snapshot “%(name)s” created with %(n)s rows.") % {"n": count(snapshot.rows), "name": snapshot.name}
    )
    if not snapshot.manifest["splits"][SPLITS[TRAIN]]["rows"]:
        return redirect(f"{reverse('proof', args=[project.slug])}?snapshot={snapshot.pk}&split={SPLITS[TEST]}")
    return redirect("training", slug=project.slug)


def _context(request: HttpRequest, project: Project, error: Exception | None = None) -> dict[str, Any]:
    sent = request.POST if error is not None else None
    snapshots = Snapshot.objects.visible_to(request.user).filter(projects=project)
    domains = Query.objects.filter(project=project).exclude(domain="").values_list("domain", flat=True)
    return {
        "project": project,
        "here": "training",
        "snapshots": [(each, _splits_of(each)) for each in snapshots],
        "rated": Score.objects.filter(candidate__query__project=project).exists(),
        "fields": shown_form(OptionsForm, sent, error),
        "domains": sorted(set(domains.distinct()[:50])),
        "others": (others := _others(request, project)),
        "form": shown_form(
            SnapshotForm,
            sent,
            error,
            rows={"project": others},
            initial={"name": f"{project.name}, {len(snapshots) + 1}", "project": []},
        ),
        "error": error,
        "may_change": may_change(request, project),
    }


def _splits_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the totals of a snapshot's splits over projects and domains, in the order of training."""
    totals: dict[str, dict[str, Any]] = {split: {"split": split, "queries": 0, "rows": 0} for split in SPLITS}
    for each in snapshot.manifest.get("domains", []):
        split = totals.setdefault(each["split"], {"split": each["split"], "queries": 0, "rows": 0})
        split["queries"] += each.get("queries", 0)
        split["rows"] += each.get("rows", 0)
    return [each for each in totals.values() if each["queries"] or each["rows"]]


def _others(request: HttpRequest, project: Project) -> Any:
    """Return the user's other owned projects, which a snapshot can include."""
    found = Project.objects.visible_to(request.user).exclude(pk=project.pk)
    if not getattr(request.user, "is_superuser", False):
        mine = Membership.objects.filter(user_id=request.user.pk or 0, role=Role.OWNER).values("project")
        found = found.filter(pk__in=mine)
    return found.filter(queries__fit__isnull=False).distinct()
