"""What a published reranker reached, as a file beside its artefacts: `evaluation.json`, written after each evaluation.

A model card is closed by the manifest's checksums before anything is proved; the figures of the proof therefore stand in a
file that the manifest does not name. It is written anew each time from the database, which keeps every evaluation: whatever
an earlier writer left when it was killed, the next one heals. Neighbours: `trainer.leaderboard` has the figures,
`workers.evaluating` asks for this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

from labeling.models import Project
from scoring.models import Snapshot
from scoring.storage import storage
from trainer.evaluation import Reference
from trainer.leaderboard import Leaderboard, Row, leaderboard
from trainer.manifests import EVALUATION
from trainer.models import Evaluation
from trainer.rerankers import servable

FORMAT = 1


def store_proofs(project: Project) -> None:
    """Write all that the project's rerankers reached beside their artefacts, each file at once or not at all."""
    published = {each.pk: each for each in servable().filter(project=project)}
    found: dict[int, list[dict[str, Any]]] = {}
    for snapshot, split, reference in _boards(project, published):
        board = leaderboard(project, snapshot, split, reference)
        for row in board.rows:
            if row.evaluation.reranker_id in published:
                found.setdefault(row.evaluation.reranker_id, []).append(_entry(board, row))
    for pk, entries in found.items():
        path = f"{published[pk].location}/{EVALUATION}"
        text = json.dumps({"format": FORMAT, "evaluations": entries}, indent=1, ensure_ascii=False)
        storage().remove_unfinished(path)
        storage().write_bytes(path, f"{text}\n".encode())


def _boards(project: Project, published: Iterable[int]) -> list[tuple[Snapshot, str, Reference]]:
    """Where any of the published rerankers was evaluated, earlier snapshots first."""
    places = Evaluation.objects.filter(project=project, reranker__in=published).order_by(
        "snapshot_id", "split", "reference"
    )
    distinct = places.values_list("snapshot_id", "split", "reference").distinct()
    snapshots = Snapshot.objects.in_bulk([pk for pk, _, _ in distinct])
    return [(snapshots[pk], split, cast(Reference, reference)) for pk, split, reference in distinct]


def _entry(board: Leaderboard, row: Row) -> dict[str, Any]:
    return {
        "snapshot": board.snapshot.name,
        "snapshot_sha256": board.snapshot.checksum,
        "split": board.split,
        "reference": board.reference,
        "queries": row.queries,
        "evaluated_at": row.evaluation.created_at.isoformat(timespec="seconds"),
        "metrics": {metric: asdict(own) for metric, own in row.metrics.items()},
        "domains": {
            domain: {metric: asdict(own) for metric, own in metrics.items()} for domain, metrics in row.domains.items()
        },
        "ndcg@10_difference_to": {
            own.name: asdict(own.test.difference) | {"p_value": own.test.p_value, "verdict": own.verdict}
            for own in row.against.values()
        },
    }
