"""Counts the rows of a snapshot while `scoring.snapshots.freeze` writes them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from scoring.snapshots.splits import SPLITS, TRAIN

LEAST_SPREAD = 1e-3


class SnapshotRefused(ValueError):
    """The scores or the options do not allow a snapshot; nothing was stored."""


class NoSpread(SnapshotRefused):
    """All scores are equal, so a model cannot learn from them."""


class Tally:
    """Counts written rows for the manifest."""

    def __init__(self) -> None:
        self.low: float | None = None  # of the training rows; None without any
        self.high: float | None = None
        self.calibrated = 0
        self._rows: Counter[tuple[str, str, str]] = Counter()
        self._weight: Counter[tuple[str, str, str]] = Counter()
        self._queries: dict[tuple[str, str, str], set[int]] = {}

    def count(self, batch: pa.RecordBatch) -> None:
        columns = {
            name: batch.column(name).to_pylist() for name in ("project", "domain", "split", "query_id", "weight")
        }
        relevance = batch.column("relevance").to_numpy(zero_copy_only=False)
        train = np.array([each == SPLITS[TRAIN] for each in columns["split"]])
        if train.any():
            low, high = float(relevance[train].min()), float(relevance[train].max())
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
        self.calibrated += batch.column("calibrated").to_pylist().count(True)
        for project, domain, split, query, weight in zip(*columns.values(), strict=True):
            key = (project, domain, split)
            self._rows[key] += 1
            self._weight[key] += weight
            self._queries.setdefault(key, set()).add(query)

    def check_spread(self) -> None:
        if self.low is not None and self.high is not None and self.high - self.low < LEAST_SPREAD:
            raise NoSpread(
                f"every training document has the relevance {self.low:.4f}; expected different scores: judge more "
                "pairs, or check the judges' answers"
            )

    def splits(self) -> dict[str, dict[str, int]]:
        found = {split: {"queries": 0, "rows": 0} for split in SPLITS}
        for (_, _, split), rows in self._rows.items():
            found[split]["rows"] += rows
        for (_, _, split), queries in self._queries.items():
            found[split]["queries"] += len(queries)
        return found

    def domains(self) -> list[dict[str, Any]]:
        learned = sum(weight for (_, _, split), weight in self._weight.items() if split == SPLITS[TRAIN])
        return [
            {
                "project": project,
                "domain": domain,
                "split": split,
                "queries": len(self._queries[project, domain, split]),
                "rows": rows,
                "share_of_training": self._weight[project, domain, split] / learned if split == SPLITS[TRAIN] else 0.0,
            }
            for (project, domain, split), rows in sorted(self._rows.items())
        ]
