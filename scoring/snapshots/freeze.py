"""Freezes scores for training. Writes Parquet, checksum, manifest and row in this order, so visible snapshots are complete.

It reads in one transaction snapshot and writes in chunks; the manifest records the origin of the scores.
`scoring.snapshots.pairs` writes the pairs with the panel's preference beside the rows.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from django.db import connection, transaction

from labeling import audit
from labeling.models import Project, Query
from labeling.records import FloatArray, IntArray
from labeling.retrieval import query_instruction
from labeling.stored_texts import counted, stored_text
from scoring.columns import copy_columns
from scoring.models import Score, Snapshot
from scoring.snapshots.fingerprints import document_prints, earlier_splits, earlier_weights
from scoring.snapshots.lineage import lineage, software
from scoring.snapshots.named_splits import named_split, nothing_named
from scoring.snapshots.options import SnapshotOptions
from scoring.snapshots.other_grades import other_grades
from scoring.snapshots.pairs import Pairable, write_pairs
from scoring.snapshots.splits import (
    PROVING,
    TEST,
    TRAIN,
    Prints,
    fingerprint,
    largest_islands,
    names_of,
    rows_to_keep,
    split_queries,
)
from scoring.snapshots.stored_rows import ROWS_FILE
from scoring.snapshots.tally import NoSpread, SnapshotRefused, Tally
from scoring.snapshots.unscored import unscored_queries
from scoring.storage.files import storage
from scoring.storage.write_guards import in_the_making

__all__ = ["NoSpread", "NothingToFreeze", "SnapshotOptions", "SnapshotRefused", "TooManyRows", "freeze", "software"]

FORMAT = 1
ROWS_AT_ONCE = 20_000
# The most rows that a web request freezes, which takes some seconds.
MOST_ROWS_OF_A_REQUEST = 100_000
FOLDER, MANIFEST_FILE = "snapshots", "manifest.json"

COLUMNS = pa.schema(
    [
        ("project", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("query_id", pa.int64()),
        ("query", pa.string()),
        ("candidate_id", pa.int64()),
        ("document_id", pa.int64()),
        ("document", pa.string()),
        ("relevance", pa.float64()),
        ("calibrated", pa.bool_()),
        ("elo", pa.float64()),
        ("stderr", pa.float64()),
        ("comparisons", pa.int64()),
        ("grade", pa.int64()),
        ("first_stage_rank", pa.int64()),
        ("weight", pa.float64()),
        ("query_external_id", pa.string()),
        ("document_external_id", pa.string()),
        ("judged_version", pa.int64()),
        # Of the query's documents that are no rows: they count for recall. The same in all rows of a query.
        ("other_grades", pa.list_(pa.int64())),
        ("instruction", pa.string()),
        ("other_documents", pa.list_(pa.string())),
    ]
)

# The reasons for left out rows in the manifest.
OTHER_DOMAIN = stored_text("other domains")
FEW_COMPARISONS = stored_text("too few comparisons")
LARGE_ERROR = stored_text("too large a standard error")
ON_AN_ISLAND = stored_text("not connected to the query's largest group")
HELD_OUT_TEXT = stored_text("query text also in a held-out domain")
NAMED_TEXT = stored_text("query text also in a held-out domain or in another named split")
STRICTER_SPLIT = stored_text("document text also in a stricter split")


class NothingToFreeze(SnapshotRefused):
    """No score passes the filters, or too few queries have scores."""


class TooManyRows(SnapshotRefused):
    """Too many rows for a web request; the message names the command to use instead."""


@dataclass(frozen=True, slots=True)
class _Queries:
    """One entry per query, in id order. `named`: the split that its metadata names, -1 for none. `weights`: those of an earlier
    snapshot, NaN for none.
    """

    ids: IntArray
    projects: list[str]
    domains: list[str]
    prints: Prints
    named: IntArray
    weights: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Selected candidates in (query, id) order with split and weight, and counts of left out rows by reason.

    `joined`: whether the candidate is in its query's largest connected group, so that its Elo is comparable.
    """

    candidates: IntArray
    joined: npt.NDArray[np.bool_]
    queries: IntArray
    splits: IntArray
    weights: npt.NDArray[np.float64]
    removed: dict[str, int]
    pairable: Pairable


def freeze(
    projects: Sequence[Project],
    *,
    name: str,
    options: SnapshotOptions | None = None,
    by: Any = None,
    most_rows: int | None = None,
    panel: Sequence[int] = (),
    splits_of: Snapshot | None = None,
) -> Snapshot:
    """Freeze the live scores of these projects, and the judged pairs. After an error no files remain.

    `panel`: ids of the annotators whose mean preference the pairs hold; empty: all but students of a panel. `splits_of`: an
    earlier snapshot whose queries keep their splits, and their weights if it is a mixture; all others are trained on. Raises SnapshotRefused,
    scoring.storage.files.StorageFull, and TooManyRows before reading if more than `most_rows` documents have scores.
    """
    options = options or SnapshotOptions()
    name = checked_name(name)
    if not projects:
        raise SnapshotRefused("no project is given; name at least one project")
    if most_rows is not None:
        _check_size(projects, most_rows, name=name, options=options)
    folder = f"{FOLDER}/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:40] or 'snapshot'}-{secrets.token_hex(4)}"
    with in_the_making(folder):
        manifest = _write(folder, sorted(projects, key=lambda project: project.pk), name, options, panel, splits_of)
        manifest["created_by"] = getattr(by, "pk", None)
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        storage().write_bytes(f"{folder}/{MANIFEST_FILE}", text.encode())
        with transaction.atomic():
            facts = {field: manifest[field] for field in ("checksum", "rows")}
            snapshot = Snapshot.objects.create(name=name, location=folder, manifest=manifest, **facts)
            snapshot.projects.set(projects)
            for project in projects:
                audit.note("snapshot.frozen", project=project, actor=by, subject=name, rows=snapshot.rows)
    return snapshot


def _check_size(projects: Sequence[Project], most: int, *, name: str, options: SnapshotOptions) -> None:
    rows = Score.objects.filter(candidate__query__project__in=projects).count()
    if rows > most:
        slugs = " ".join(project.slug for project in projects)
        chosen = json.dumps(options.model_dump(mode="json", exclude_defaults=True))
        raise TooManyRows(
            f"{rows:,} documents have scores; expected at most {most:,} for a page or an API call; "
            f"run in the terminal: python manage.py snapshot {slugs} --name {shlex.quote(name)} "
            f"--options {shlex.quote(chosen)}"
        )


def checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 200 or "\x00" in name:
        raise SnapshotRefused(f"the name {name[:80]!r} cannot be stored; expected 1 to 200 characters")
    return name


def _write(
    folder: str,
    projects: list[Project],
    name: str,
    options: SnapshotOptions,
    panel: Sequence[int],
    splits_of: Snapshot | None,
) -> dict[str, Any]:
    """Write the rows; return the manifest, read in the same transaction snapshot."""
    ids = [project.pk for project in projects]
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SELECT clock_timestamp()")
            instant = cursor.fetchone()[0]
        chosen = _choose(ids, options, splits_of)
        tally = Tally()
        with (
            storage().writing(f"{folder}/{ROWS_FILE}") as stream,
            pq.ParquetWriter(stream, COLUMNS, compression="zstd") as writer,
        ):
            for batch in _batches(chosen):
                tally.count(batch)
                writer.write_batch(batch)
        tally.check_spread()
        pairs = write_pairs(folder, ids, chosen.pairable, panel=panel)
        sources = [lineage(project) for project in projects]
        unscored = unscored_queries(ids, options.domains)
    return {
        "format": FORMAT,
        "name": name,
        "rows_file": ROWS_FILE,
        "checksum": stream.checksum,
        "bytes": stream.bytes_written,
        "rows": len(chosen.candidates),
        "columns": COLUMNS.names,
        "splits": tally.splits(),
        "domains": tally.domains(),
        "relevance": {"low": tally.low, "high": tally.high},
        "calibrated_rows": tally.calibrated,
        "removed": chosen.removed,
        "unscored": unscored,
        "pairs": pairs,
        "options": options.model_dump(mode="json"),
        "seed": options.seed,
        "projects": sources,
        "software": software(),
        "read_at": instant.isoformat(),
    }


# --- what enters -------------------------------------------------------------------------

_SCORED = """
SELECT candidate.id, candidate.query_id, candidate.document_id, score.island::bigint, score.comparisons::bigint,
       ('x' || left(document.text_hash, 15))::bit(60)::bigint, score.elo_stderr
FROM scoring_score score JOIN labeling_candidate candidate ON candidate.id = score.candidate_id
JOIN labeling_document document ON document.id = candidate.document_id
JOIN labeling_query query ON query.id = candidate.query_id JOIN scoring_queryfit fit ON fit.query_id = query.id
WHERE query.project_id = ANY(%s) AND fit.error = '' AND query.excluded_at IS NULL
ORDER BY candidate.query_id, candidate.id
"""


def _choose(project_ids: list[int], options: SnapshotOptions, splits_of: Snapshot | None) -> _Chosen:
    """Filter and split the rows, and keep each text in one split. Raises NothingToFreeze, SnapshotRefused."""
    scored = copy_columns(
        _SCORED,
        [project_ids],
        [(each, "i8") for each in ("id", "query", "document", "island", "comparisons", "text")] + [("stderr", "f8")],
    )
    if not len(scored):
        raise NothingToFreeze("no document has a score; start a run first")
    queries = _read_queries(project_ids, options.split_by)
    if splits_of is not None:
        queries = replace(queries, named=earlier_splits(splits_of, queries.prints))
        if "mixed_from" in splits_of.manifest:  # the options do not say what a part weighs
            queries = replace(queries, weights=earlier_weights(splits_of, queries.ids))
    _check_named(options, queries)
    removed: Counter[str] = Counter()
    place = np.searchsorted(queries.ids, scored["query"].astype(np.int64))
    # A document that nothing was compared with is an island of its own, even where the query has no larger one.
    joined = largest_islands(place, *(scored[each].astype(np.int64) for each in ("island", "text")))
    joined &= scored["comparisons"].astype(np.int64) > 0
    prints = np.zeros(len(scored), dtype=np.uint64)
    if options.shared_documents == "remove":
        prints = document_prints(project_ids, scored["document"].astype(np.int64))

    def keep(mask: npt.NDArray[np.bool_], reason: str) -> None:
        nonlocal scored, place, joined, prints
        removed[reason] += int(np.count_nonzero(~mask))
        scored, place, joined, prints = scored[mask], place[mask], joined[mask], prints[mask]

    if options.domains:
        keep(np.isin(np.array(queries.domains)[place], options.domains), OTHER_DOMAIN)
    present = np.unique(place)
    trains = _trains(queries, present, options)
    split = _split(queries, present, options, trains=trains)
    keep(split[place] >= 0, NAMED_TEXT if options.split_by else HELD_OUT_TEXT)
    of_query = _weights(queries, options)
    apart = options.shared_documents == "keep" or rows_to_keep(prints, split[place])
    pairable = Pairable.of(scored["id"].astype(np.int64), split[place], of_query[place], apart)

    def proves() -> npt.NDArray[np.bool_]:
        return np.isin(split[place], PROVING)

    keep(proves() | (scored["comparisons"].astype(np.int64) >= options.min_comparisons), FEW_COMPARISONS)
    if options.max_stderr is not None:
        keep(proves() | (scored["stderr"].astype(np.float64) <= options.max_stderr), LARGE_ERROR)
    keep(proves() | joined, ON_AN_ISLAND)
    if options.shared_documents == "remove":
        keep(rows_to_keep(prints, split[place]), STRICTER_SPLIT)
    if not np.count_nonzero(split[place] == TRAIN) and (trains or not len(place)):
        raise NothingToFreeze(
            f"no {'training ' if trains else ''} rows are left ({_reasons(removed)}); relax the "
            "filters, hold out fewer domains, or keep shared documents"
        )
    return _Chosen(
        candidates=scored["id"].astype(np.int64),
        joined=joined,
        queries=scored["query"].astype(np.int64),
        splits=split[place],
        weights=_normalised(of_query[place], split[place], options),
        removed={reason: count for reason, count in removed.items() if count},
        pairable=pairable,
    )


def _reasons(removed: Counter[str]) -> str:
    reasons = "; ".join(f"{counted(count, 'row')}: {reason}" for reason, count in removed.items() if count)
    return reasons or "every query is in another split"


def _read_queries(project_ids: list[int], split_by: str) -> _Queries:
    """Raises SnapshotRefused where a query's metadata names an unknown split."""
    ids, projects, domains, prints, named = [], [], [], [], []
    rows = Query.objects.filter(project__in=project_ids, fit__error="").order_by("id")
    fields = ("id", "project__slug", "domain", "text", "metadata", "external_id")
    for pk, slug, domain, text, metadata, name in rows.values_list(*fields).iterator(chunk_size=2000):
        ids.append(pk)
        named.append(named_split(metadata.get(split_by) if split_by else None, split_by, name))
        projects.append(slug)
        domains.append(domain)
        prints.append(fingerprint(text))
    if split_by and ids and max(named) < 0:
        raise nothing_named(split_by)
    return _Queries(
        np.array(ids, dtype=np.int64),
        projects,
        domains,
        np.array(prints, dtype=np.uint64),
        np.array(named, dtype=np.int64),
    )


def _check_named(options: SnapshotOptions, queries: _Queries) -> None:
    """Check that the named domains and projects exist, since a typing error would silently change the mixture."""
    domains, projects = set(queries.domains), set(queries.projects)
    pairs = {f"{project}/{domain}" for project, domain in zip(queries.projects, queries.domains, strict=True)}
    known = {
        "domains": domains,
        "heldout_domains": domains,
        "weights": domains | projects | pairs,
    }
    for field, names in known.items():
        unknown = sorted(set(getattr(options, field)) - names)
        if unknown:
            there = ", ".join(repr(each) for each in sorted(names)[:20])
            raise SnapshotRefused(f"{field} names {unknown[0]!r}, which no scored query has; expected some of {there}")


def _trains(queries: _Queries, present: IntArray, options: SnapshotOptions) -> bool:
    """Whether the snapshot is to have training queries; without them it is a test collection."""
    drawn = [queries.named[at] for at in present.tolist() if queries.domains[at] not in options.heldout_domains]
    return not drawn or TRAIN in drawn or (options.leaves_training and -1 in drawn)


def _split(queries: _Queries, present: IntArray, options: SnapshotOptions, *, trains: bool) -> IntArray:
    """Return the split of every query of `present`; -1 for the others."""
    prints = queries.prints[present]
    names = [(queries.projects[at], queries.domains[at]) for at in present.tolist()]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    heldout = np.array([domain in options.heldout_domains for _, domain in names], dtype=np.bool_)
    named = queries.named[present]
    needed = options.leaves_training + (options.dev_share > 0) + (options.test_share > 0)
    texts = len(np.unique(prints[~heldout & (named < 0)]))
    if not texts and (TRAIN in named or not trains):
        needed = 0
    if texts < needed:
        raise NothingToFreeze(
            f"{texts} different queries with scores are left beside heldout_domains and those that split_by names; the splits "
            f"need at least {needed}: judge more queries, choose more domains, or "
            + ("set dev_share and test_share to 0" if needed > 1 else "leave some queries for training")
        )
    split = np.full(len(queries.ids), -1, dtype=np.int64)
    split[present] = split_queries(
        prints,
        np.array([numbers[name] for name in names], dtype=np.int64),
        heldout,
        dev=options.dev_share,
        test=options.test_share,
        seed=options.seed,
        named=named,
    )
    if not options.leaves_training:  # the shares of a small stratum are rounded
        split[present[(split[present] == TRAIN) & (named != TRAIN)]] = TEST
    return split


def _weights(queries: _Queries, options: SnapshotOptions) -> npt.NDArray[np.float64]:
    """Return the weight of each query by the most specific name, or that of the earlier snapshot."""
    chosen = np.array(
        [
            options.weights.get(f"{project}/{domain}", options.weights.get(domain, options.weights.get(project, 1.0)))
            for project, domain in zip(queries.projects, queries.domains, strict=True)
        ],
        dtype=np.float64,
    )
    return chosen if queries.weights is None else np.where(np.isnan(queries.weights), chosen, queries.weights)


def _normalised(weights: npt.NDArray[np.float64], split: IntArray, options: SnapshotOptions) -> npt.NDArray[np.float64]:
    """Return the weights of the rows, with a mean of 1 over the train rows if there are any."""
    if TRAIN not in split:
        return weights
    mean = weights[split == TRAIN].mean()
    if not mean > 0:
        raise SnapshotRefused(f"the weights {options.weights} exclude every training row; set one above 0")
    return np.asarray(weights / mean)


# --- rows --------------------------------------------------------------------------------

_ROWS = f"""
SELECT project.slug, query.domain, query.id, query.text, candidate.id, document.id, document.text, score.relevance,
       score.calibrated, score.elo, score.elo_stderr, score.comparisons, candidate.grade, candidate.first_stage_rank,
       query.external_id, document.external_id, score.judged_version, {query_instruction.SQL}
FROM labeling_candidate candidate JOIN scoring_score score ON score.candidate_id = candidate.id
JOIN labeling_query query ON query.id = candidate.query_id JOIN labeling_project project ON project.id = query.project_id
JOIN labeling_document document ON document.id = candidate.document_id
WHERE candidate.id = ANY(%s) ORDER BY candidate.query_id, candidate.id
"""


# Columns that are meaningless for a document that is not connected to the others.
_OF_ELO = (7, 9, 10)


def _batches(chosen: _Chosen) -> Iterator[pa.RecordBatch]:
    """Yield the rows with their texts, some thousand at a time."""
    for start in range(0, len(chosen.candidates), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        with connection.cursor() as cursor:
            cursor.execute(_ROWS, [chosen.candidates[part].tolist()])
            columns = list(zip(*cursor.fetchall(), strict=True))
        for number in _OF_ELO:
            columns[number] = tuple(
                value if known else None for value, known in zip(columns[number], chosen.joined[part], strict=True)
            )
        head, tail, named = columns[:2], columns[2:14], columns[14:17]
        grades, documents = other_grades(chosen.candidates, chosen.queries, np.isin(chosen.splits, PROVING), part)
        split, weights = names_of(chosen.splits[part].tolist()), chosen.weights[part].tolist()
        values = [*head, split, *tail, weights, *named, grades, columns[17], documents]
        yield pa.RecordBatch.from_arrays(
            [pa.array(column, type=field.type) for column, field in zip(values, COLUMNS, strict=True)], schema=COLUMNS
        )
