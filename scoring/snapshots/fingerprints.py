"""Fingerprints of texts in the database, and the splits that an earlier snapshot gave to them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from labeling.models import Document
from labeling.records import FloatArray, IntArray
from scoring.models import Snapshot
from scoring.snapshots.splits import SPLITS, TRAIN, Prints, fingerprint
from scoring.snapshots.stored_rows import opened_rows


def document_prints(project_ids: list[int], document_ids: IntArray) -> Prints:
    """Return the fingerprint of each row's document."""
    ids, prints = [], []
    documents = Document.objects.filter(project__in=project_ids).order_by("id").values_list("id", "text")
    for pk, text in documents.iterator(chunk_size=2000):
        ids.append(pk)
        prints.append(fingerprint(text))
    place = np.searchsorted(np.array(ids, dtype=np.int64), document_ids)
    return np.array(prints, dtype=np.uint64)[place]


def earlier_splits(snapshot: Snapshot, prints: Prints) -> IntArray:
    """Return the split of each query in the rows of an earlier snapshot, by its text; TRAIN for one that it did not have."""
    with opened_rows(snapshot) as stream:
        rows = pq.read_table(stream, columns=["query", "split"])
    pairs = set(zip(rows.column("query").to_pylist(), rows.column("split").to_pylist(), strict=True))
    known = {fingerprint(text): SPLITS.index(split) for text, split in pairs}
    return np.array([known.get(each, TRAIN) for each in prints.tolist()], dtype=np.int64)


def earlier_weights(snapshot: Snapshot, query_ids: IntArray) -> FloatArray:
    """Return the weight of each query in the rows of an earlier snapshot; NaN for one that it did not have."""
    with opened_rows(snapshot) as stream:
        rows = pq.read_table(stream, columns=["query_id", "weight"])
    known = dict(zip(rows.column("query_id").to_pylist(), rows.column("weight").to_pylist(), strict=True))
    return np.array([known.get(each, np.nan) for each in query_ids.tolist()], dtype=np.float64)
