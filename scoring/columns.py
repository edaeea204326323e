"""Reads judgments from PostgreSQL into numpy columns by binary COPY, without Python code per row.

`scoring.rating` fits the columns; `scoring.quality` refits single judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from django.db import connection, transaction

from labeling.records import ComparisonColumns, IntArray
from scoring.models import INDEPENDENT
from scoring.numerics.judges.calls import UNMEASURED

# COPY's binary form: 19 bytes of header, each tuple a 2-byte count and for each field a 4-byte
# length before its bytes. With fixed-width columns that are never null a tuple is a fixed record.
_HEADER_BYTES = 19
_WIDTHS = {"i8": ">i8", "f8": ">f8", "b1": "?"}


def copy_columns(sql: str, parameters: Sequence[object], fields: Sequence[tuple[str, str]]) -> npt.NDArray[np.void]:
    """Return the rows of `sql` as a structured array. `fields`: (name, one of i8, f8, b1); nulls are not allowed."""
    layout: list[tuple[str, str]] = [("_count", ">i2")]
    for name, kind in fields:
        layout += [(f"_{name}", ">i4"), (name, _WIDTHS[kind])]
    record = np.dtype(layout)
    statement = f"COPY ({sql}) TO STDOUT (FORMAT BINARY)"
    # Uses the driver's cursor: with DEBUG, Django's cursor accepts no parameters for COPY.
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,
        cursor.cursor.copy(statement, parameters) as copy,
    ):
        data = b"".join(bytes(block) for block in copy)
    body = data[_HEADER_BYTES:-2]
    if len(body) % record.itemsize:
        raise ValueError("a column read by COPY contained a null or had an unexpected width; check the statement")
    return np.frombuffer(body, dtype=record)


@dataclass(frozen=True, slots=True)
class ProjectColumns:
    """Comparisons of some queries, and the ids of their local indices.

    `query_ids`, `judged_versions` int64[Q]; `candidate_ids` int64[sum sizes], query after query in
    id order; `annotator_ids` int64[J] by `columns.judge`; `pair_ids` int64[m] beside the columns. `calls` int64[m]:
    votes with the same number above 0 come from one call about a set; their weight is below 1 (`call_weight`).
    """

    query_ids: IntArray
    judged_versions: IntArray
    candidate_ids: IntArray
    annotator_ids: IntArray
    pair_ids: IntArray
    columns: ComparisonColumns
    calls: IntArray


# `call_weight` of an answer, as SQL over `answer` and the fit of its judge, `measured`.
CALL_WEIGHT = (
    f"(1.0 / (1.0 + COALESCE(answer.call_size - 2, 0) * COALESCE(measured.call_correlation, {UNMEASURED})))::float8"
)
_QUERIES = "SELECT id, judged_version FROM labeling_query WHERE id = ANY(%s) ORDER BY id"
_CANDIDATES = "SELECT query_id, id FROM labeling_candidate WHERE query_id = ANY(%s) ORDER BY query_id, id"
_VOTES = """
SELECT pair.query_id, pair.a_id, pair.b_id, pair.id, answer.annotator_id, COALESCE(answer.call, 0),
       answer.swapped, answer.preference, {weight}
FROM labeling_pair pair JOIN labeling_live_judgment answer ON answer.pair_id = pair.id
LEFT JOIN scoring_judgefit measured ON measured.annotator_id = answer.annotator_id AND answer.call IS NOT NULL
WHERE pair.query_id = ANY(%s) AND answer.kind = 'preference' AND {which}
ORDER BY pair.query_id, pair.id, answer.id
"""


def read_columns(query_ids: Sequence[int], *, independent: bool = False) -> ProjectColumns:
    """Return all votes of these queries; versions and votes come from one transaction snapshot.

    `independent`: without verdicts and without answers given after seeing others' opinions.
    """
    ids = [list(query_ids)]
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        queries = copy_columns(_QUERIES, ids, [("id", "i8"), ("judged_version", "i8")])
        candidates = copy_columns(_CANDIDATES, ids, [("query", "i8"), ("id", "i8")])
        votes = copy_columns(
            _VOTES.format(which=INDEPENDENT if independent else "TRUE", weight=CALL_WEIGHT),
            ids,
            [(name, "i8") for name in ("query", "a", "b", "pair", "annotator", "call")]
            + [("swapped", "b1"), ("preference", "f8"), ("weight", "f8")],
        )
    return _assemble(queries, candidates, votes)


def _assemble(
    queries: npt.NDArray[np.void], candidates: npt.NDArray[np.void], votes: npt.NDArray[np.void]
) -> ProjectColumns:
    """Turn primary keys into local indices.

    Candidates are in (query, id) order, so one sorted search per column is enough.
    """
    query_ids = queries["id"].astype(np.int64)
    candidate_ids = candidates["id"].astype(np.int64)
    starts = np.searchsorted(candidates["query"].astype(np.int64), query_ids)
    sizes = np.diff(np.append(starts, len(candidate_ids)))
    order = np.argsort(candidate_ids, kind="stable")
    vote_query = np.searchsorted(query_ids, votes["query"].astype(np.int64))

    def local(column: npt.NDArray[np.int64]) -> IntArray:
        return order[np.searchsorted(candidate_ids, column, sorter=order)] - starts[vote_query]

    annotator_ids, judge = np.unique(votes["annotator"].astype(np.int64), return_inverse=True)
    columns = ComparisonColumns(
        a=local(votes["a"].astype(np.int64)),
        b=local(votes["b"].astype(np.int64)),
        preference=votes["preference"].astype(np.float64),
        weight=votes["weight"].astype(np.float64),
        judge=judge.astype(np.int64),
        swapped=votes["swapped"].astype(np.bool_),
        offsets=np.searchsorted(vote_query, np.arange(len(query_ids) + 1)).astype(np.int64),
        sizes=sizes.astype(np.int64),
    )
    return ProjectColumns(
        query_ids=query_ids,
        judged_versions=queries["judged_version"].astype(np.int64),
        candidate_ids=candidate_ids,
        annotator_ids=annotator_ids,
        pair_ids=votes["pair"].astype(np.int64),
        columns=columns,
        calls=votes["call"].astype(np.int64),
    )


# A number for each candidate that its texts alone decide.
_NAMES = """
SELECT candidate.id, min(hashtextextended(document.text, hashtextextended(query.text, 0)))
    OVER (PARTITION BY candidate.query_id, document.text_hash) AS name
FROM labeling_candidate candidate JOIN labeling_query query ON query.id = candidate.query_id
JOIN labeling_document document ON document.id = candidate.document_id
WHERE candidate.query_id = ANY(%s) ORDER BY candidate.query_id, candidate.id
"""


def in_name_order(read: ProjectColumns) -> ComparisonColumns:
    """The columns with queries, candidates and votes in an order that the texts decide, not the primary keys.

    Whatever draws from them, such as folds of pairs, then draws the same for the same data in every database. Queries and
    candidates without a vote are left out, so that those that an import adds do not move it. `read` is over distinct texts
    (`scoring.same_texts.distinct`), since equal ones have no order of their own.
    """
    rows = copy_columns(_NAMES, [read.query_ids.tolist()], [("id", "i8"), ("name", "i8")])
    kept = np.isin(rows["id"].astype(np.int64), read.candidate_ids)
    voted, is_voted = _voted(read.columns)
    return by_names(voted, rows["name"].astype(np.int64)[kept][is_voted])


def _voted(columns: ComparisonColumns) -> tuple[ComparisonColumns, npt.NDArray[np.bool_]]:
    """The columns without queries and candidates that no vote names, and which candidates stay."""
    votes = np.diff(columns.offsets)
    of_vote = np.repeat(np.arange(columns.queries), votes)
    before = (np.cumsum(columns.sizes) - columns.sizes)[of_vote]
    kept = np.zeros(int(columns.sizes.sum()), dtype=np.bool_)
    kept[before + columns.a] = kept[before + columns.b] = True
    place = np.cumsum(kept) - 1
    sizes = np.bincount(np.repeat(np.arange(columns.queries), columns.sizes)[kept], minlength=columns.queries)
    first = (np.cumsum(sizes) - sizes)[of_vote]
    a, b = (place[before + side] - first for side in (columns.a, columns.b))
    offsets = np.append(0, np.cumsum(votes[votes > 0])).astype(np.int64)
    return replace(columns, a=a, b=b, offsets=offsets, sizes=sizes[votes > 0].astype(np.int64)), kept


def by_names(columns: ComparisonColumns, names: IntArray) -> ComparisonColumns:
    """The columns in the order of `names`, int64 over all candidates; equal up to this order for every numbering of them."""
    starts = np.cumsum(columns.sizes) - columns.sizes
    owner = np.repeat(np.arange(columns.queries), columns.sizes)
    query_names = np.zeros(columns.queries, dtype=np.uint64)
    np.add.at(query_names, owner, names.astype(np.uint64))  # wraps around
    queries = np.argsort(query_names, kind="stable")
    rank = np.argsort(queries, kind="stable")
    place = np.empty(len(names), dtype=np.int64)
    place[np.lexsort((names, rank[owner]))] = np.arange(len(names))
    local = place - (np.cumsum(columns.sizes[queries]) - columns.sizes[queries])[rank[owner]]
    of_vote = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    a, b = (local[starts[of_vote] + side] for side in (columns.a, columns.b))
    turned = a > b
    preference = np.where(turned, 1.0 - columns.preference, columns.preference)
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((columns.weight, preference, high, low, rank[of_vote]))
    return ComparisonColumns(
        a=low[order],
        b=high[order],
        preference=preference[order],
        weight=columns.weight[order],
        judge=columns.judge[order],
        swapped=(columns.swapped ^ turned)[order],
        offsets=np.append(0, np.cumsum(np.diff(columns.offsets)[queries])).astype(np.int64),
        sizes=columns.sizes[queries],
    )


def only(columns: ComparisonColumns, rows: npt.NDArray[np.bool_]) -> ComparisonColumns:
    """Return the columns restricted to the rows of a mask bool[m]; queries keep their candidates."""
    kept = np.append(0, np.cumsum(rows))
    return ComparisonColumns(
        a=columns.a[rows],
        b=columns.b[rows],
        preference=columns.preference[rows],
        weight=columns.weight[rows],
        judge=columns.judge[rows],
        swapped=columns.swapped[rows],
        offsets=kept[columns.offsets].astype(np.int64),
        sizes=columns.sizes,
    )


def only_votes(read: ProjectColumns, rows: npt.NDArray[np.bool_]) -> ProjectColumns:
    """Return the votes of a mask bool[m], with their pairs and calls; queries and annotators keep their places."""
    return replace(read, columns=only(read.columns, rows), pair_ids=read.pair_ids[rows], calls=read.calls[rows])
