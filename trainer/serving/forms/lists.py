"""The lists on which the forms of a reranker are compared: tokens and float32 logits of real queries, beside the model.

Publishing writes them, so that another host can check its own forms without the snapshot. Imports no Django and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labeling.records import Examples, FloatArray
from labeling.retrieval.query_instruction import with_instruction
from trainer.serving.forms.pairs import EncodedPair

FOLDER, FILE = "order_check", "lists.json"
MOST_LISTS, MOST_DOCUMENTS = 200, 50


@dataclass(frozen=True, slots=True)
class CheckedList:
    """The tokens of one query with each of its documents, and their logits in float32, float[documents]."""

    pairs: tuple[EncodedPair, ...]
    exact: FloatArray


def texts_of(rows: Examples, *, told: bool = False) -> list[tuple[str, list[str]]]:
    """The first MOST_LISTS queries of the rows with at least two documents, each with at most MOST_DOCUMENTS of them.

    `told`: the model reads the queries' instructions.
    """
    found: dict[int, tuple[str, list[str]]] = {}
    instructions = rows.instructions if told and rows.instructions else [""] * len(rows.queries)
    columns = zip(rows.query_ids.tolist(), rows.queries, instructions, rows.documents, strict=True)
    for query_id, own, instruction, document in columns:
        query = with_instruction(own, instruction)
        documents = found.setdefault(query_id, (query, []))[1]
        if len(documents) < MOST_DOCUMENTS:
            documents.append(document)
    return [each for each in found.values() if len(each[1]) > 1][:MOST_LISTS]


def write_lists(folder: Path, lists: Sequence[CheckedList]) -> None:
    """Write the lists below a reranker's folder, which has no manifest yet."""
    rows = [
        {
            "ids": [pair.ids for pair in each.pairs],
            "types": [pair.types for pair in each.pairs],
            "exact": [float(logit) for logit in each.exact],
        }
        for each in lists
    ]
    (folder / FOLDER).mkdir()
    (folder / FOLDER / FILE).write_text(json.dumps(rows, separators=(",", ":")))


def read_lists(folder: Path) -> list[CheckedList]:
    """The lists of a published folder; none if it has no such file."""
    path = folder / FOLDER / FILE
    if not path.is_file():
        return []
    return [
        CheckedList(
            tuple(
                EncodedPair(tuple(ids), None if types is None else tuple(types), cut=False)
                for ids, types in zip(row["ids"], row["types"], strict=True)
            ),
            np.asarray(row["exact"], dtype=np.float64),
        )
        for row in json.loads(path.read_text())
    ]
