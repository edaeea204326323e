"""Pages that show what would be deleted, with counts, and delete it after a confirmation; deleted projects; accounts."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import get_user_model, logout
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from django.views.decorators.http import require_POST

from labeling.access.members import role_of
from labeling.models import Project, Role
from workers.deletion.accounts import count_account, delete_account
from workers.deletion.orders import delete
from workers.deletion.projects import (
    KEPT_DAYS,
    archive_project,
    is_purging,
    purge_project,
    purged_at,
    restore_project,
)
from workers.deletion.targets import (
    COUNT_LABELS,
    KINDS,
    DeletionRefused,
    Target,
    UnknownTarget,
    count_project,
    find_target,
)
from workers.models import Job
from zelo_site.pages.forms import LARGEST_ID, text_of
from zelo_site.pages.scope import owned_project
from zelo_site.security.lineage import may_read_snapshot

# Further notes for people, and the page to which they return, by kind.
NOTES = {
    "query": gettext_noop("Its documents stay. Frozen snapshots stay as they are."),
    "document": gettext_noop("Scores of its queries are fitted again. Frozen snapshots stay as they are."),
    "candidate": gettext_noop(
        "The document is kept; the query’s scores are fitted again. Frozen snapshots stay as they are."
    ),
    "answers": gettext_noop(
        "The judge or person is kept. All scores are fitted again. Frozen snapshots stay as they are."
    ),
    "run": gettext_noop("An active run is cancelled. Its answers are kept, and its spend still counts."),
    "snapshot": gettext_noop("Its files are deleted too. Published rerankers stay."),
    "reranker": gettext_noop("Its files are deleted too, and it is no longer served."),
}
BACK = {
    "query": "queries", "document": "queries", "candidate": "queries", "answers": "scorecard", "run": "project",
    "snapshot": "snapshots", "reranker": "rerankers",
}  # fmt: skip
ACCOUNT_LABELS = {
    "memberships": gettext_noop("memberships"),
    "keys": gettext_noop("API keys"),
    "links": gettext_noop("links"),
}


def delete_page(request: HttpRequest, slug: str, what: str, target_id: int) -> HttpResponse:
    """Show what goes with a target; a POST deletes it."""
    project = owned_project(request, slug)
    if what == "snapshot":
        _check_joint(request, min(target_id, LARGEST_ID))
    try:
        target = find_target(project, what, min(target_id, LARGEST_ID))
    except UnknownTarget as error:
        raise Http404(str(error)) from error
    if request.method != "POST":
        return _shown(request, target)
    try:
        job = delete(target, by=request.user)
    except DeletionRefused as error:
        return _shown(request, target, error)
    if job.state == Job.State.FINISHED:
        messages.success(request, _("%(name)s deleted.") % {"name": target.name})
    else:
        messages.success(request, _("Deleting %(name)s. The Jobs page shows the progress.") % {"name": target.name})
    return redirect(BACK[what], slug=project.slug)


def _check_joint(request: HttpRequest, snapshot_id: int) -> None:
    """Raise Http404 unless the user may read all projects of a snapshot, PermissionDenied unless they own them all."""
    if not may_read_snapshot(request.user, snapshot_id):
        raise Http404
    for project in Project.objects.filter(snapshots=snapshot_id):
        if role_of(request.user, project) != Role.OWNER:
            raise PermissionDenied(_("only owners can change %(project)s; ask an owner") % {"project": project.name})


def _shown(request: HttpRequest, target: Target, error: Exception | None = None) -> HttpResponse:
    context = {
        "project": target.project,
        "kind": KINDS[target.kind].label,
        "name": target.name,
        "counts": _counted(target.counted(), COUNT_LABELS),
        "note": NOTES[target.kind],
        "back": BACK[target.kind],
        "below": BACK[target.kind],
        "error": error,
        "here": "project",
    }
    return render(request, "zelo/lifecycle/delete.html", context, status=409 if error else 200)


def _counted(counts: dict[str, int], labels: Any) -> list[tuple[str, int]]:
    return [(labels[key], number) for key, number in counts.items() if key in labels and number]


def delete_project_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what a project holds; a POST with its typed name hides it, to be purged later."""
    project = owned_project(request, slug)
    wrong = request.method == "POST" and text_of(request.POST, "confirm", 100) != project.slug
    if request.method == "POST" and not wrong:
        archive_project(project, by=request.user)
        messages.success(
            request,
            _("%(name)s deleted. You can restore it for %(days)s days.") % {"name": project.name, "days": KEPT_DAYS},
        )
        return redirect("archived")
    context = {
        "project": project,
        "name": project.name,
        "counts": _counted(count_project(project), COUNT_LABELS),
        "days": KEPT_DAYS,
        "wrong": wrong,
        "here": "project",
    }
    return render(request, "zelo/lifecycle/delete_project.html", context, status=422 if wrong else 200)


def archived_page(request: HttpRequest) -> HttpResponse:
    """List the user's deleted projects with the day of their purge."""
    projects = [
        {"project": each, "purged_at": purged_at(each), "is_purging": is_purging(each)}
        for each in Project.with_archived.archived_by(request.user)[:200]
    ]
    return render(
        request, "zelo/lifecycle/archived.html", {"projects": projects, "days": KEPT_DAYS, "here": "projects"}
    )


def _archived(request: HttpRequest, archived: str) -> Project:
    project = Project.with_archived.archived_by(request.user).filter(slug=archived).first()
    if project is None:
        raise Http404
    return project


@require_POST
def restore(request: HttpRequest, archived: str) -> HttpResponse:
    """Restore a deleted project."""
    project = _archived(request, archived)
    try:
        restore_project(project, by=request.user)
    except DeletionRefused as error:
        messages.error(request, str(error))
        return redirect("archived")
    messages.success(request, _("%(name)s restored. Its runs are paused.") % {"name": project.name})
    return redirect("project", slug=project.slug)


def purge_page(request: HttpRequest, archived: str) -> HttpResponse:
    """Show what a purge deletes; a POST with the typed name orders it at once."""
    project = _archived(request, archived)
    wrong, error = False, None
    if request.method == "POST":
        wrong = text_of(request.POST, "confirm", 100) != project.slug
        try:
            if not wrong:
                purge_project(project, by=request.user)
                messages.success(request, _("%(name)s is being purged.") % {"name": project.name})
                return redirect("archived")
        except DeletionRefused as refused:
            error = refused
    context = {
        "archived": project,
        "name": project.name,
        "counts": _counted(count_project(project), COUNT_LABELS),
        "wrong": wrong,
        "error": error,
        "here": "projects",
    }
    return render(request, "zelo/lifecycle/purge.html", context, status=422 if wrong else 409 if error else 200)


def delete_account_page(request: HttpRequest, user_id: int) -> HttpResponse:
    """Show what goes with an account; a POST with its typed name deletes it. One's own, or any for superusers."""
    is_own = user_id == request.user.pk
    if not is_own and not getattr(request.user, "is_superuser", False):
        raise Http404
    user = get_user_model().objects.filter(pk=min(user_id, LARGEST_ID)).first()
    if user is None:
        raise Http404
    wrong, error = False, None
    if request.method == "POST":
        wrong = text_of(request.POST, "confirm", 200) != user.get_username()
        try:
            if not wrong:
                delete_account(user, by=request.user)
                if is_own:
                    logout(request)
                messages.success(request, _("Account %(name)s deleted.") % {"name": user.get_username()})
                return redirect("sign-in" if is_own else "projects")
        except DeletionRefused as refused:
            error = refused
    counts = count_account(user)
    context = {
        "account": user,
        "name": user.get_username(),
        "counts": _counted(counts, ACCOUNT_LABELS),
        "judgments": counts["judgments"],
        "wrong": wrong,
        "error": error,
    }
    return render(
        request, "zelo/lifecycle/delete_account.html", context, status=422 if wrong else 409 if error else 200
    )
