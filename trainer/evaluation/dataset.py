"""Reads the queries of one split from a snapshot's Parquet file, as evaluations and the gate measure them.

`scoring.snapshots.freeze` writes the file. Imports no Django.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labeling.records import FloatArray
from trainer.evaluation.metrics import EvaluationQuery, NothingToMeasure

READ = (
    "project", "domain", "query_external_id", "query_id", "query", "candidate_id", "document_external_id", "document",
    "relevance", "elo", "comparisons", "grade", "first_stage_rank",
)  # fmt: skip
TEXTS = ("query", "document")
INSTRUCTION = "instruction"
OTHER_GRADES, OTHER_DOCUMENTS = "other_grades", "other_documents"

# Enough text to recognise a query.
LISTED = ["query_id", "query_external_id", "project"]


def read_queries(rows: IO[bytes] | Any, split: str, *, name: str, texts: bool = True) -> list[EvaluationQuery]:
    """The queries of one split with their candidates, in id order; `rows` is the file or its path.

    The id of a query is its imported id, or "project/id" if two projects use the same one. Without `texts`, which take most
    of the time, all texts are empty. Raises NothingToMeasure if the split of snapshot `name` is empty.
    """
    columns = [each for each in columns_in(rows) if texts or each not in TEXTS]
    table = pq.read_table(rows, columns=columns, filters=[("split", "=", split)])
    for column in () if texts else TEXTS:
        table = table.append_column(column, pa.array([""] * table.num_rows, pa.string()))
    return list(queries_of_table(table, listing_of(table, split, name=name)))


@dataclass(frozen=True, slots=True)
class JudgedDocuments:
    """Numbers of one query's candidates: all, those with a human grade and those with an Elo."""

    candidates: int
    graded: int
    compared: int


def judged_documents(rows: IO[bytes] | Any, split: str, *, name: str) -> dict[str, JudgedDocuments]:
    """The counts by query id, as `read_queries` names it. Raises NothingToMeasure."""
    table = pq.read_table(rows, columns=[*LISTED, "grade", "elo", "comparisons"], filters=[("split", "=", split)])
    listing = listing_of(table, split, name=name)
    graded = table.column("grade").is_valid().to_numpy()
    compared = table.column("elo").is_valid().to_numpy() & (table.column("comparisons").to_numpy() > 0)
    starts = listing.bounds[:-1]
    sums = (np.add.reduceat(each.astype(np.int64), starts).tolist() for each in (graded, compared))
    sizes = np.diff(listing.bounds).tolist()
    return dict(zip(listing.names, map(JudgedDocuments, sizes, *sums), strict=True))


def columns_in(rows: IO[bytes] | Any) -> list[str]:
    """READ, and the later columns where the file has them: files of earlier versions do not."""
    names = pq.read_schema(rows).names
    return [*READ, *(each for each in (OTHER_GRADES, INSTRUCTION, OTHER_DOCUMENTS) if each in names)]


@dataclass(frozen=True, slots=True)
class Listing:
    """The queries of a table by name; query k has the rows from `bounds[k]` to `bounds[k + 1]`."""

    names: tuple[str, ...]
    bounds: tuple[int, ...]


def listing_of(table: pa.Table, split: str, *, name: str) -> Listing:
    """Raise NothingToMeasure if the table is empty."""
    if not table.num_rows:
        raise NothingToMeasure(f"split {split!r} of snapshot {name!r} is empty; choose another split")
    starts = np.flatnonzero(np.diff(table.column("query_id").to_numpy(), prepend=-1))
    names = table.column("query_external_id").take(starts).to_pylist()
    projects = table.column("project").take(starts).to_pylist()
    whole = [f"{project}/{name}" for project, name in zip(projects, names, strict=True)]
    told, before = list(names), list[str]()
    # Again, because an imported id may read like another project's query with its project before it. A query that was deleted and
    # imported again can be in a mixture twice, with one name for both.
    while told != before:
        before, times = told, Counter(told)
        told = [long if times[short] > 1 else short for short, long in zip(told, whole, strict=True)]
    return Listing(names=tuple(told), bounds=(*starts.tolist(), table.num_rows))


def queries_of_table(table: pa.Table, listing: Listing) -> Iterator[EvaluationQuery]:
    columns = {name: table.column(name).to_pylist() for name in READ}
    told = table.column(INSTRUCTION).to_pylist() if INSTRUCTION in table.column_names else [""] * table.num_rows
    others, named = (
        table.column(each) if each in table.column_names else None for each in (OTHER_GRADES, OTHER_DOCUMENTS)
    )
    for name, (start, end) in zip(listing.names, itertools.pairwise(listing.bounds), strict=True):
        rows = slice(start, end)
        compared = np.array(columns["comparisons"][rows]) > 0
        yield EvaluationQuery(
            id=name,
            text=columns["query"][start],
            domain=columns["domain"][start] or "",
            candidate_ids=np.array(columns["candidate_id"][rows], dtype=np.int64),
            document_ids=tuple(columns["document_external_id"][rows]),
            documents=tuple(columns["document"][rows]),
            grades=_floats(columns["grade"][rows]),
            relevance=_floats(columns["relevance"][rows]),
            elo=np.where(compared, _floats(columns["elo"][rows]), np.nan),
            first_stage_rank=_floats(columns["first_stage_rank"][rows]),
            other_grades=_floats([] if others is None else others[start].as_py() or []),
            other_documents=tuple([] if named is None else named[start].as_py() or []),
            instruction=told[start] or "",
            project=columns["project"][start],
            imported_id=columns["query_external_id"][start],
        )


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
