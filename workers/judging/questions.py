"""Reads the texts behind claimed tasks: the questions that a judge is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labeling.models import Candidate, Pair, Project
from labeling.records import Comparison, TextRecord
from labeling.retrieval.query_instruction import instruction_of
from workers.judging.queue import ClaimedTask
from workers.judging.sets import shown_order


class DocumentsDeleted(LookupError):
    """Documents of a question about a set have been deleted since it was planned."""


def comparisons_of(project_id: int, tasks: Sequence[ClaimedTask]) -> list[Comparison]:
    """The questions behind these tasks, in their order, with texts."""
    project = Project.with_archived.values_list("instruction", flat=True).get(pk=project_id)
    # Plain values: a model instance for each query, document and candidate costs more than the call's own bookkeeping.
    rows = Pair.objects.filter(pk__in={task.pair_id for task in tasks}).values_list(
        "pk", "a__query_id", "a__query__text", "a__document_id", "a__document__text",
        "b__query_id", "b__query__text", "b__document_id", "b__document__text", "a__query__metadata__instruction",
    )  # fmt: skip
    pairs = {row[0]: _texts(row[1:9]) for row in rows}
    # A question about two queries has the instruction that both share.
    told = {row[0]: instruction_of(row[9] if row[1] == row[5] else None, project) for row in rows}
    sets = _texts_of_sets(tasks)
    return [_comparison(task, pairs[task.pair_id], sets.get(task.id, ()), told[task.pair_id]) for task in tasks]


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


def _texts(values: Sequence[Any]) -> list[TextRecord]:
    """Keys and texts in turn: query and document of either side."""
    return [TextRecord(pk, text) for pk, text in zip(values[::2], values[1::2], strict=True)]


def _comparison(
    task: ClaimedTask, texts: Sequence[TextRecord], documents: tuple[TextRecord, ...], instruction: str
) -> Comparison:
    query_a, a, query_b, b = texts
    return Comparison(
        key=task.id,
        query_a=query_a,
        query_b=query_b,
        a=a,
        b=b,
        swapped=task.swapped,
        instruction=instruction,
        documents=documents,
    )
