"""What a published reranker reached, as a file beside its artefacts: `evaluation.json`, written after each evaluation.

A model card is closed by the manifest's checksums before anything is proved; the figures of the proof therefore stand in a
file that the manifest does not name. Neighbours: `trainer.leaderboard` has the figures, `workers.evaluating` asks for this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from labeling.models import Project
from scoring.models import Snapshot
from scoring.storage import storage
from trainer.evaluation import REFERENCES
from trainer.leaderboard import Leaderboard, NotEvaluated, Row, leaderboard
from trainer.manifests import EVALUATION
from trainer.rerankers import servable

FORMAT = 1


def store_proofs(project: Project, snapshot: Snapshot, split: str) -> None:
    """Write what the project's rerankers reached there beside their artefacts; what was proved elsewhere stays."""
    published = {each.pk: each for each in servable().filter(project=project)}
    found: dict[int, list[dict[str, Any]]] = {}
    for reference in REFERENCES:
        try:
            board = leaderboard(project, snapshot, split, reference)
        except NotEvaluated:
            continue
        for row in board.rows:
            if row.evaluation.reranker_id in published:
                found.setdefault(row.evaluation.reranker_id, []).append(_entry(board, row))
    for pk, entries in found.items():
        _merge(f"{published[pk].location}/{EVALUATION}", entries)


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


def _merge(path: str, entries: list[dict[str, Any]]) -> None:
    """Entries take the place of earlier ones of the same split and reference."""
    known = json.loads(storage().read_bytes(path)) if storage().exists(path) else {}
    new = {_place(each) for each in entries}
    kept = [each for each in known.get("evaluations", []) if _place(each) not in new]
    text = json.dumps({"format": FORMAT, "evaluations": [*kept, *entries]}, indent=1, ensure_ascii=False)
    storage().write_bytes(path, f"{text}\n".encode())


def _place(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["snapshot_sha256"], entry["split"], entry["reference"]
