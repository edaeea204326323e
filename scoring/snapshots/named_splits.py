"""The splits that queries name themselves, in a field of their metadata."""

from __future__ import annotations

from typing import Any

from django.db.models.fields.json import KeyTransform

from labeling.models import Project, Query
from scoring.snapshots.splits import SPLITS, TRAIN
from scoring.snapshots.tally import SnapshotRefused


def named_split(value: Any, field: str, query: str) -> int:
    """The split in a query's metadata as its place in SPLITS, -1 where it names none. Raises SnapshotRefused."""
    if value is None:
        return -1
    if value not in SPLITS:
        raise SnapshotRefused(
            f"query {query!r} has {field} = {str(value)[:80]!r} in its metadata; expected {', '.join(SPLITS)}; correct it, or "
            "remove the field"
        )
    return SPLITS.index(value)


def check_split_field(project: Project, field: str) -> None:
    """Raise SnapshotRefused unless this field names the splits of queries and leaves some to train on; "" is no field."""
    if not field:
        return
    rows = Query.objects.filter(project=project).annotate(named=KeyTransform(field, "metadata"))
    named = [named_split(value, field, query) for value, query in rows.values_list("named", "external_id").iterator()]
    if max(named, default=0) < 0:
        raise nothing_named(field)
    if not {-1, TRAIN} & set(named):
        raise SnapshotRefused(
            f"split_by is {field!r}, which leaves no query to train on; remove the field from some queries, or write train"
        )


def nothing_named(field: str) -> SnapshotRefused:
    """The error of a field that no query has."""
    return SnapshotRefused(
        f"split_by is {field!r}, which no scored query has in its metadata; expected a field with train, dev, test or "
        "heldout as its value"
    )
