"""Reads the texts behind claimed tasks: the questions that a judge is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from django.db import transaction

from labeling.database import prepared_cursor
from labeling.models import Candidate
from labeling.records import Comparison, TextRecord
from labeling.retrieval.query_instruction import instruction_of
from workers.judging.queue import ClaimedTask
from workers.judging.sets import shown_order


class DocumentsDeleted(LookupError):
    """Documents of a question about a set have been deleted since it was planned."""


_PAIRS = """
SELECT pair.id, a.query_id, a.document_id, b.query_id, b.document_id
FROM labeling_pair pair JOIN labeling_candidate a ON a.id = pair.a_id JOIN labeling_candidate b ON b.id = pair.b_id
WHERE pair.id = ANY(%s)
"""
_DOCUMENTS = "SELECT id, text FROM labeling_document WHERE id = ANY(%s)"
_QUERIES = """
SELECT query.id, query.text,
       CASE WHEN jsonb_typeof(query.metadata -> 'instruction') = 'string' THEN query.metadata ->> 'instruction' END,
       project.instruction
FROM labeling_query query JOIN labeling_project project ON project.id = %s WHERE query.id = ANY(%s)
"""


def comparisons_of(project_id: int, tasks: Sequence[ClaimedTask]) -> list[Comparison]:
    """The questions behind these tasks, in their order, with texts."""
    # Prepared, and each text is read once: a batch asks about a document several times, and about few queries.
    with transaction.atomic(), prepared_cursor() as cursor:
        cursor.execute(_PAIRS, [_ids(task.pair_id for task in tasks)])
        pairs: dict[int, tuple[int, int, int, int]] = {row[0]: row[1:] for row in cursor.fetchall()}
        cursor.execute(_DOCUMENTS, [_ids(each for _, a, _, b in pairs.values() for each in (a, b))])
        documents = {pk: TextRecord(pk, text) for pk, text in cursor.fetchall()}
        cursor.execute(_QUERIES, [project_id, _ids(each for a, _, b, _ in pairs.values() for each in (a, b))])
        rows = cursor.fetchall()
    queries = {pk: TextRecord(pk, text) for pk, text, *_ in rows}
    own = {pk: instruction_of(instruction, of_project) for pk, _, instruction, of_project in rows}
    of_project = rows[0][3] if rows else ""
    sets = _texts_of_sets(tasks)
    comparisons = []
    for task in tasks:
        query_a, a, query_b, b = pairs[task.pair_id]
        comparisons.append(
            Comparison(
                key=task.id,
                query_a=queries[query_a],
                query_b=queries[query_b],
                a=documents[a],
                b=documents[b],
                swapped=task.swapped,
                # A question about two queries has the instruction that both share.
                instruction=own[query_a] if query_a == query_b else instruction_of(None, of_project),
                documents=sets.get(task.id, ()),
            )
        )
    return comparisons


def _ids(values: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.unique(np.fromiter(values, dtype=np.int64))


def _texts_of_sets(tasks: Sequence[ClaimedTask]) -> dict[int, tuple[TextRecord, ...]]:
    """The documents of each question about a set by task, in the order in which they are shown. Raises DocumentsDeleted."""
    wanted = {candidate for task in tasks for candidate in task.documents}
    if not wanted:
        return {}
    rows = Candidate.objects.filter(pk__in=wanted).values_list("pk", "document_id", "document__text")
    texts = {row[0]: TextRecord(row[1], row[2]) for row in rows}
    if wanted - texts.keys():
        raise DocumentsDeleted(
            f"candidates {sorted(wanted - texts.keys())} have been deleted; cancel or replan the run"
        )
    return {task.id: tuple(texts[each] for each in shown_order(task)) for task in tasks if task.documents}
