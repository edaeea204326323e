"""Mixes several snapshots into one, each with a weight, so that a trainer reads one file of whatever the panel judged over time.

Two passes, each some thousand rows at a time: the first keeps some fifty bytes a row and decides which rows stay, the second copies them.
A query counts in the first snapshot that has it. No text is in two splits of the mixture, whatever the splits of the parts.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from django.db import transaction
from django.utils import timezone

from labeling import audit
from labeling.records import BoolArray, FloatArray, IntArray
from labeling.stored_texts import stored_text
from scoring.models import Snapshot
from scoring.snapshots import freeze, pairs
from scoring.snapshots.lineage import software
from scoring.snapshots.splits import SPLITS, TRAIN, Prints, fingerprint, strictest_splits
from scoring.snapshots.stored_rows import ROWS_FILE, opened_rows
from scoring.snapshots.tally import SnapshotRefused, Tally
from scoring.storage.files import storage
from scoring.storage.write_guards import in_the_making

ROWS_AT_ONCE = 8_192
EARLIER_PART = stored_text("query also in a snapshot named before")
STRICTER_SPLIT = stored_text("text also in a stricter split of another snapshot")


@dataclass(frozen=True, slots=True)
class Part:
    """A snapshot of the mixture; its rows' weights are multiplied by `weight`."""

    snapshot: Snapshot
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    """The first pass over the rows or pairs of all parts, in order. `texts` uint64[m, 1 or 2]: of their documents."""

    part: IntArray
    query: IntArray
    split: IntArray
    question: Prints
    texts: Prints
    weight: FloatArray


def mix(parts: Sequence[Part], *, name: str, by: Any = None) -> Snapshot:
    """Store a snapshot with the rows and pairs of these; weights are scaled so that the training rows have a mean of 1.

    Raises SnapshotRefused, scoring.storage.files.StoredFileUnusable, scoring.storage.files.StorageFull. After an error no files remain.
    """
    name = freeze.checked_name(name)
    _check(parts)
    folder = f"{freeze.FOLDER}/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:40] or 'mixture'}-{secrets.token_hex(4)}"
    with in_the_making(folder):
        manifest = _write(folder, parts, name)
        manifest["created_by"] = getattr(by, "pk", None)
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        storage().write_bytes(f"{folder}/{freeze.MANIFEST_FILE}", text.encode())
        with transaction.atomic():
            mixed = Snapshot.objects.create(
                name=name, location=folder, manifest=manifest, checksum=manifest["checksum"], rows=manifest["rows"]
            )
            projects = {project.pk: project for part in parts for project in part.snapshot.projects.all()}
            mixed.projects.set(projects.values())
            for project in projects.values():
                audit.note("snapshot.frozen", project=project, actor=by, subject=name, rows=mixed.rows)
    return mixed


def _check(parts: Sequence[Part]) -> None:
    if len({part.snapshot.pk for part in parts}) < 2 or len(parts) != len({part.snapshot.pk for part in parts}):
        raise SnapshotRefused("a mixture needs two or more snapshots, each once; name another one")
    for part in parts:
        if not 0.0 < part.weight <= 1e6:
            raise SnapshotRefused(
                f"the weight of {part.snapshot.name!r} is {part.weight}; expected a number above 0, at most 1,000,000"
            )


def _write(folder: str, parts: Sequence[Part], name: str) -> dict[str, Any]:
    rows = _known(parts, ROWS_FILE, ("document",))
    of_pairs = _known(parts, pairs.PAIRS_FILE, ("document_a", "document_b"))
    # A text is everywhere in the strictest split that any part has it in.
    questions = strictest_splits([rows.question, of_pairs.question], [rows.split, of_pairs.split])
    documents = strictest_splits(
        [rows.texts.ravel(), of_pairs.texts.ravel()], [rows.split, np.repeat(of_pairs.split, 2)]
    )
    fixed = all(part.snapshot.manifest.get("options", {}).get("shared_documents") == "keep" for part in parts)
    owner = _owners(rows, of_pairs)
    kept, removed = _kept(rows, owner, questions, None if fixed else documents)
    learned = rows.weight[kept & (rows.split == TRAIN)]
    if not learned.any() and (rows.split == TRAIN).any():
        raise SnapshotRefused("no training rows are left: the snapshots hold each other's texts in stricter splits")
    tally = Tally()
    scale = 1.0 / float(learned.mean()) if len(learned) else 1.0
    checksum, size = _copy(folder, ROWS_FILE, parts, kept, scale, freeze.COLUMNS, tally)
    tally.check_spread()
    mixed_from = [
        {"snapshot": part.snapshot.name, "checksum": part.snapshot.checksum, "weight": part.weight} for part in parts
    ]
    sources = {each["slug"]: each for part in reversed(parts) for each in part.snapshot.manifest.get("projects", [])}
    return {
        "format": freeze.FORMAT,
        "name": name,
        "rows_file": ROWS_FILE,
        "checksum": checksum,
        "bytes": size,
        "rows": int(np.count_nonzero(kept)),
        "columns": freeze.COLUMNS.names,
        "splits": tally.splits(),
        "domains": tally.domains(),
        "relevance": {"low": tally.low, "high": tally.high},
        "calibrated_rows": tally.calibrated,
        "removed": {reason: count for reason, count in removed.items() if count},
        "pairs": _write_pairs(folder, parts, of_pairs, owner, questions, None if fixed else documents),
        "options": parts[0].snapshot.manifest.get("options", {}),
        "seed": parts[0].snapshot.manifest.get("seed", 0),
        "projects": [sources[slug] for slug in sorted(sources)],
        "mixed_from": mixed_from,
        "software": software(),
        "read_at": timezone.now().isoformat(),
    }


def _write_pairs(
    folder: str, parts: Sequence[Part], known: _Known, owner: dict[int, int], questions: Any, documents: Any
) -> dict[str, Any]:
    """Copy the pairs that stay; returns what the manifest says of them."""
    manifests = [part.snapshot.manifest.get("pairs", {}) for part in parts]
    annotators = sorted({each for manifest in manifests for each in manifest.get("annotators", [])})
    kept, _ = _kept(known, owner, questions, documents)
    said: dict[str, Any] = {"rows": int(np.count_nonzero(kept)), "annotators": annotators}
    if not said["rows"]:
        return said
    learned = known.weight[kept & (known.split == TRAIN)]
    scale = 1.0 / float(learned.mean()) if learned.any() else 1.0
    checksum, size = _copy(folder, pairs.PAIRS_FILE, parts, kept, scale, pairs.COLUMNS)
    splits = {}
    for number, split in enumerate(SPLITS):
        mine = kept & (known.split == number)
        if mine.any():
            splits[split] = {"pairs": int(np.count_nonzero(mine)), "queries": len(np.unique(known.query[mine]))}
    return said | {
        "file": pairs.PAIRS_FILE, "checksum": checksum, "bytes": size, "splits": splits, "columns": pairs.COLUMNS.names,
    }  # fmt: skip


def _owners(*known: _Known) -> dict[int, int]:
    """The part that a query counts in: the first that has it."""
    of = np.concatenate([each.query for each in known]), np.concatenate([each.part for each in known])
    order = np.lexsort((of[1], of[0]))
    queries, first = np.unique(of[0][order], return_index=True)
    return dict(zip(queries.tolist(), of[1][order][first].tolist(), strict=True))


def _kept(known: _Known, owner: dict[int, int], questions: Any, documents: Any) -> tuple[BoolArray, dict[str, int]]:
    """The rows that stay, bool[m], and the number of the others by reason."""
    queries, place = np.unique(known.query, return_inverse=True)
    of_query = np.array([owner[query] for query in queries.tolist()], dtype=np.int64)
    ours = of_query[place] == known.part
    apart = questions(known.question) == known.split
    if documents is not None:
        apart &= (documents(known.texts.ravel()).reshape(known.texts.shape) == known.split[:, None]).all(axis=1)
    earlier, stricter = np.count_nonzero(~ours), np.count_nonzero(ours & ~apart)
    return ours & apart, {EARLIER_PART: int(earlier), STRICTER_SPLIT: int(stricter)}


def _batches(part: Part, file: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a part's file; none where it was frozen without pairs."""
    if file == pairs.PAIRS_FILE and not part.snapshot.manifest.get("pairs", {}).get("file"):
        return
    with (
        opened_rows(part.snapshot, file) as stream,
        pq.ParquetFile(stream, pre_buffer=False) as read,
    ):
        yield from read.iter_batches(
            batch_size=ROWS_AT_ONCE, columns=None if columns is None else list(columns), use_threads=False
        )


def _known(parts: Sequence[Part], file: str, documents: Sequence[str]) -> _Known:
    """The first pass over the file of each part."""
    found: list[tuple[Any, ...]] = []
    for number, part in enumerate(parts):
        for batch in _batches(part, file, ["query_id", "split", "query", "weight", *documents]):
            splits = batch.column("split").dictionary_encode()
            names = np.array([SPLITS.index(each) for each in splits.dictionary.to_pylist()], dtype=np.int64)
            found.append(
                (
                    np.full(len(batch), number, dtype=np.int64),
                    batch.column("query_id").to_numpy(zero_copy_only=False),
                    names[splits.indices.to_numpy(zero_copy_only=False)],
                    _prints(batch.column("query")),
                    np.stack([_prints(batch.column(name)) for name in documents], axis=1),
                    part.weight * batch.column("weight").to_numpy(zero_copy_only=False),
                )
            )
    if not found:
        none = np.zeros(0, dtype=np.int64)
        no_texts = np.zeros((0, len(documents)), dtype=np.uint64)
        return _Known(none, none, none, none.astype(np.uint64), no_texts, none.astype(np.float64))
    return _Known(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _prints(texts: pa.Array) -> Prints:
    """The fingerprint of each text; each different text of the batch is read once."""
    encoded = texts.dictionary_encode()
    prints = np.array([fingerprint(text) for text in encoded.dictionary.to_pylist()], dtype=np.uint64)
    return prints[encoded.indices.to_numpy(zero_copy_only=False)]


def _copy(
    folder: str,
    file: str,
    parts: Sequence[Part],
    kept: BoolArray,
    scale: float,
    schema: pa.Schema,
    tally: Tally | None = None,
) -> tuple[str, int]:
    """The second pass: the rows that stay, with their weights; returns the file's checksum and its bytes."""
    at = 0
    with (
        storage().writing(f"{folder}/{file}") as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as writer,
    ):
        for part in parts:
            for batch in _batches(part, file):
                chosen = batch.filter(pa.array(kept[at : at + len(batch)]))
                at += len(batch)
                if len(chosen):
                    written = _aligned(chosen, schema, scale * part.weight)
                    writer.write_batch(written)
                    if tally is not None:
                        tally.count(written)
    return stream.checksum, stream.bytes_written


def _aligned(batch: pa.RecordBatch, schema: pa.Schema, factor: float) -> pa.RecordBatch:
    """The batch with the columns of this version, empty where an earlier one had none, and its weights times `factor`."""
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(len(batch), field.type))
        elif field.name == "weight":
            columns.append(pa.array(factor * batch.column("weight").to_numpy(zero_copy_only=False)))
        else:
            columns.append(batch.column(field.name).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
