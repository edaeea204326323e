"""Writes the results of a published reranker to `evaluation.json` next to its artefacts, after each evaluation.

The manifest's checksums fix the model card before the evaluation, so the results are in a file that the manifest does not
list. The database keeps every evaluation, and the file repeats them. Each evaluation recomputes the leaderboards of its own
split, and other leaderboards only if the file lacks them; so the next evaluation repairs a file whose writer was killed.
Neighbours: `trainer.evaluation.leaderboard` computes the results, `workers.jobs.evaluation` calls this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple, cast

from labeling.models import Project
from scoring.models import Snapshot
from scoring.storage.files import storage
from trainer.evaluation.leaderboard import Leaderboard, Row, leaderboard
from trainer.evaluation.metrics import Reference
from trainer.models import Evaluation, Reranker
from trainer.publishing.manifests import EVALUATION
from trainer.serving.registry import servable

FORMAT = 1
# Two entries with equal values here belong to the same evaluation.
_MARKED = ("snapshot", "snapshot_sha256", "split", "reference", "evaluated_at")
_KEYS = {*_MARKED, "queries", "metrics", "domains", "ndcg@10_difference_to"}
Entry = dict[str, Any]
Mark = tuple[str, ...]


class _Place(NamedTuple):
    """A leaderboard that lists a reranker."""

    snapshot_id: int
    split: str
    reference: Reference


def store_proofs(project: Project, snapshot: Snapshot, split: str) -> None:
    """Write the results of the project's rerankers next to their artefacts, each file atomically.

    Results on `split` of `snapshot` are recomputed; those on other leaderboards only if they are missing in the file or
    older than the evaluation.
    """
    published = {each.pk: each for each in servable().filter(project=project)}
    reached = _reached(project, published)
    snapshots = Snapshot.objects.in_bulk({place.snapshot_id for places in reached.values() for place in places})
    entries = {pk: _known(published[pk], places, snapshots) for pk, places in reached.items()}
    own = (snapshot.pk, split)
    stale = {
        place for pk, places in reached.items() for place in places if place[:2] == own or place not in entries[pk]
    }
    changed: set[int] = set()
    for place in stale:
        board = leaderboard(project, snapshots[place.snapshot_id], place.split, place.reference)
        for row in board.rows:
            if row.evaluation.reranker_id in entries:
                entries[row.evaluation.reranker_id][place] = _entry(board, row)
                changed.add(row.evaluation.reranker_id)
    for pk in changed:
        _write(published[pk], [entries[pk][place] for place in sorted(entries[pk])])


def _reached(project: Project, published: Iterable[int]) -> dict[int, dict[_Place, datetime]]:
    """Leaderboards and times of the evaluations of each published reranker."""
    found: dict[int, dict[_Place, datetime]] = {}
    rows = Evaluation.objects.filter(project=project, reranker__in=published).values_list(
        "reranker_id", "snapshot_id", "split", "reference", "created_at"
    )
    for pk, snapshot_id, split, reference, at in rows:
        found.setdefault(pk, {})[_Place(snapshot_id, split, cast(Reference, reference))] = at
    return found


def _known(
    reranker: Reranker, places: Mapping[_Place, datetime], snapshots: Mapping[int, Snapshot]
) -> dict[_Place, Entry]:
    """Entries of these evaluations in the file of a reranker."""
    kept = _kept(reranker)
    found: dict[_Place, Entry] = {}
    for place, at in places.items():
        snapshot = snapshots[place.snapshot_id]
        mark = (snapshot.name, snapshot.checksum, place.split, place.reference, _said(at))
        if mark in kept:
            found[place] = kept[mark]
    return found


def _said(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")


def _kept(reranker: Reranker) -> dict[Mark, Entry]:
    """The entries of the file of a reranker; empty if it is missing, damaged or has another format."""
    try:
        told = json.loads(storage().read_bytes(f"{reranker.location}/{EVALUATION}"))
        if told["format"] != FORMAT:
            return {}
        return {tuple(entry[name] for name in _MARKED): entry for entry in told["evaluations"] if entry.keys() >= _KEYS}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(reranker: Reranker, entries: Sequence[Entry]) -> None:
    path = f"{reranker.location}/{EVALUATION}"
    text = json.dumps({"format": FORMAT, "evaluations": entries}, indent=1, ensure_ascii=False)
    storage().remove_unfinished(path)
    storage().write_bytes(path, f"{text}\n".encode())


def _entry(board: Leaderboard, row: Row) -> Entry:
    return {
        "snapshot": board.snapshot.name,
        "snapshot_sha256": board.snapshot.checksum,
        "split": board.split,
        "reference": board.reference,
        "queries": row.queries,
        "matched": None if row.matched is None else asdict(row.matched),
        "evaluated_at": _said(row.evaluation.created_at),
        "metrics": {metric: own.shown() for metric, own in row.metrics.items()},
        "domains": {
            domain: {metric: own.shown() for metric, own in metrics.items()} for domain, metrics in row.domains.items()
        },
        "ndcg@10_difference_to": {
            own.name: own.test.difference.shown() | {"p_value": own.test.p_value, "verdict": own.verdict}
            for own in row.against.values()
        },
    }
