"""Freezes the judged pairs of a snapshot with the panel's mean preference, for trainers that read both documents.

`scoring.snapshots.freeze` calls it in its transaction. A pair holds its own texts, so that pairs whose documents have no
row in the snapshot, such as those of a small random part, are there as well. Preferences leave out the position biases that the
scores leave out; one between equal texts is nothing else, and is no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from django.db import connection

from labeling.models import Annotator, Query
from labeling.records import BoolArray, FloatArray, IntArray
from labeling.retrieval import query_instruction
from scoring.annotators.student_weights import student_plugins
from scoring.preferences import preference_without_bias
from scoring.snapshots.splits import TRAIN, names_of
from scoring.storage.files import storage

PAIRS_FILE = "pairs.parquet"
QUERIES_AT_ONCE = 25

COLUMNS = pa.schema(
    [
        ("project", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("query_id", pa.int64()),
        ("query", pa.string()),
        ("instruction", pa.string()),
        ("a_id", pa.int64()),
        ("b_id", pa.int64()),
        ("document_a", pa.string()),
        ("document_b", pa.string()),
        ("preference", pa.float64()),
        ("annotators", pa.int64()),
        ("weight", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Pairable:
    """The candidates that may be in a frozen pair, in id order, each with its split and the weight of its query."""

    candidates: IntArray
    splits: IntArray
    weights: FloatArray

    @classmethod
    def of(cls, candidates: IntArray, splits: IntArray, weights: FloatArray, apart: BoolArray | bool) -> Pairable:
        """`apart`: whether the document's text is in no stricter split, so that no text is in two splits."""
        kept = np.flatnonzero(np.broadcast_to(apart, candidates.shape))
        order = kept[np.argsort(candidates[kept], kind="stable")]
        return cls(candidates[order], splits[order], weights[order])

    def place(self, candidates: IntArray) -> IntArray:
        """The index of each candidate, -1 for one that may not be in a pair."""
        if not len(self.candidates):
            return np.full(len(candidates), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.candidates, candidates), len(self.candidates) - 1)
        return np.where(self.candidates[at] == candidates, at, -1)


def write_pairs(folder: str, project_ids: Sequence[int], pairable: Pairable, *, panel: Sequence[int]) -> dict[str, Any]:
    """Write the pairs of the snapshot in `folder`; return what its manifest says of them.

    `panel`: see `scoring.snapshots.freeze.freeze`. Without a pair there is no file. Equal answers and biases give equal files.
    """
    annotators = sorted(panel) or panel_of(project_ids)
    said: dict[str, Any] = {"rows": 0, "annotators": annotators}
    batches = _batches(project_ids, pairable, annotators)
    first = next(batches, None)
    if first is None:
        return said
    counts, queries = Counter[str](), dict[str, set[int]]()
    scale = _scale(pairable)
    with (
        storage().writing(f"{folder}/{PAIRS_FILE}") as stream,
        pq.ParquetWriter(stream, COLUMNS, compression="zstd") as writer,
    ):
        batch: dict[str, list[Any]] | None = first
        while batch is not None:
            batch["weight"] = [weight * scale for weight in batch["weight"]]
            writer.write_batch(pa.RecordBatch.from_pydict(batch, schema=COLUMNS))
            counts.update(batch["split"])
            for split, query in zip(batch["split"], batch["query_id"], strict=True):
                queries.setdefault(split, set()).add(query)
            batch = next(batches, None)
    splits = {split: {"pairs": pairs, "queries": len(queries[split])} for split, pairs in sorted(counts.items())}
    return {
        **said, "file": PAIRS_FILE, "checksum": stream.checksum, "bytes": stream.bytes_written,
        "rows": counts.total(), "splits": splits, "columns": COLUMNS.names,
    }  # fmt: skip


def panel_of(project_ids: Sequence[int]) -> list[int]:
    """The annotators of these projects whose preferences a student may learn from: all but students, people included."""
    found = Annotator.objects.filter(project__in=project_ids).exclude(plugin__in=student_plugins())
    return list(found.order_by("id").values_list("id", flat=True))


def _scale(pairable: Pairable) -> float:
    """Brings the mean weight of the training candidates to 1."""
    weights: npt.NDArray[np.float64] = pairable.weights[pairable.splits == TRAIN]
    return 1.0 / float(weights.mean()) if len(weights) and weights.mean() > 0 else 1.0


# The order of the sums is fixed, so that equal answers give equal bits.
_PAIRS = f"""
SELECT project.slug, query.domain, query.id, query.text, {query_instruction.SQL}, pair.a_id, pair.b_id, a.text, b.text,
       panel.mean, panel.annotators
FROM labeling_pair pair
JOIN labeling_query query ON query.id = pair.query_id JOIN labeling_project project ON project.id = query.project_id
JOIN labeling_candidate first ON first.id = pair.a_id JOIN labeling_document a ON a.id = first.document_id
JOIN labeling_candidate second ON second.id = pair.b_id JOIN labeling_document b ON b.id = second.document_id
CROSS JOIN LATERAL (
    SELECT avg(own.mean ORDER BY own.annotator_id) AS mean, count(*) AS annotators FROM (
        SELECT answer.annotator_id, avg({{preference}} ORDER BY answer.swapped, answer.id) AS mean
        FROM labeling_live_judgment answer
        WHERE answer.pair_id = pair.id AND answer.kind = 'preference' AND answer.annotator_id = ANY(%s)
        GROUP BY answer.annotator_id
    ) own
) panel
WHERE pair.query_id = ANY(%s) AND panel.annotators > 0 AND a.text_hash <> b.text_hash
ORDER BY pair.query_id, pair.a_id, pair.b_id
"""


def _batches(
    project_ids: Sequence[int], pairable: Pairable, annotators: Sequence[int]
) -> Iterator[dict[str, list[Any]]]:
    """Yield the columns of the pairs, some queries at a time; the weights are those of the queries."""
    queries = list(Query.objects.filter(project__in=project_ids).order_by("id").values_list("id", flat=True))
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        asked = queries[start : start + QUERIES_AT_ONCE]
        preference, biases = preference_without_bias(asked)
        with connection.cursor() as cursor:
            cursor.execute(_PAIRS.format(preference=preference), [*biases, list(annotators), asked])
            rows = cursor.fetchall()
        first, second = (pairable.place(np.array([row[side] for row in rows], dtype=np.int64)) for side in (5, 6))
        kept = np.flatnonzero((first >= 0) & (second >= 0)).tolist()
        if not kept:
            continue
        columns = list(zip(*(rows[at] for at in kept), strict=True))
        own = first[kept]
        yield {
            **{name: list(columns[at]) for at, name in enumerate(("project", "domain"))},
            "split": names_of(pairable.splits[own].tolist()),
            **{
                name: list(columns[at])
                for at, name in enumerate(
                    ("query_id", "query", "instruction", "a_id", "b_id", "document_a", "document_b"), start=2
                )
            },
            "preference": list(columns[9]),
            "annotators": list(columns[10]),
            "weight": pairable.weights[own].tolist(),
        }
