"""Lineage of what was made from several projects: shown only to those who may read all of them.

A snapshot of two projects is visible to readers of both (`Snapshot.objects.visible_to`). A reranker that was trained on it
belongs to one project, and its manifest names the judges, and counts the judgments, of the other one.
"""

from __future__ import annotations

from typing import Any

from labeling.models import Membership, Project, Role, Viewer
from scoring.models import Snapshot

HIDDEN = {"hidden": "made from projects that you may not all read"}


def may_read_snapshot(user: Viewer, snapshot_id: int) -> bool:
    """Whether the user may read every project of the snapshot."""
    return bool(Snapshot.objects.visible_to(user).filter(pk=snapshot_id).exists())


def readable_slugs(user: Viewer) -> frozenset[str]:
    """The slugs of all projects that the user may read; annotators judge blind and read none."""
    read = Project.objects.visible_to(user)
    if not getattr(user, "is_superuser", False):
        blind = Membership.objects.filter(user_id=user.pk or 0, role=Role.ANNOTATOR).values("project")
        read = read.exclude(pk__in=blind)
    return frozenset(read.values_list("slug", flat=True))


def shown_manifest(manifest: dict[str, Any], readable: frozenset[str]) -> dict[str, Any]:
    """The manifest of a reranker without the lineage and data of projects that are not all `readable`."""
    card = manifest.get("card")
    lineage = card.get("lineage") if isinstance(card, dict) else None
    projects = lineage.get("projects", []) if isinstance(lineage, dict) else []
    if not isinstance(card, dict) or set(projects) <= readable:
        return manifest
    return {**manifest, "card": {**card, "lineage": HIDDEN, "data": HIDDEN}}
