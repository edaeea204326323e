"""Truncates documents to the model's maximum length and counts the tokens of every row. Imports no Django.

A tokenizer's own truncation would remove the end of a chat template, where the answer is, and a long document could
displace the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from labeling.records import IntArray
from trainer.serving.plain_text import PlainText
from trainer.text_columns import TextColumn

TEXTS_AT_ONCE, ROWS_AT_ONCE = 1000, 8192
# A text that was truncated between two tokens may be tokenised into one or two tokens more.
SLACK = 2
LEAST_DOCUMENT = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """Truncated texts, `lengths` int64[n] in tokens of the full pair, and the number of truncated rows."""

    queries: TextColumn
    documents: TextColumn
    lengths: IntArray
    cut: int

    def columns(self) -> dict[str, pa.ChunkedArray]:
        """The texts as Arrow columns for a data set."""
        return {"query": self.queries.strings(), "document": self.documents.strings()}


class TooShort(ValueError):
    """`max_length` leaves no room for a document."""


def fit_texts(model: Any, queries: Sequence[str], documents: Sequence[str], *, max_length: int) -> Fitted:
    """Truncate pairs to `max_length` tokens: the query to at most half of the space, the document to the rest.

    As when the model is served, special tokens that a text spells are broken up, so that they are read as text. `model` is a CrossEncoder. Raises TooShort.
    """
    tokenizer, plain = model.tokenizer, PlainText(model.tokenizer)
    around = tokens_around(model)
    room = max_length - around
    if room < 2 * LEAST_DOCUMENT:
        raise TooShort(
            f"max_length is {max_length}, but every pair has {around} special tokens; expected at least "
            f"{around + 2 * LEAST_DOCUMENT}"
        )
    lengths = np.empty(len(queries), dtype=np.int64)
    kept_queries: list[pa.Array] = []
    kept_documents: list[pa.Array] = []
    cut = 0
    # Some rows at a time, so that a million documents are never strings all at once.
    for start in range(0, len(queries), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        asked, shown = ([plain(each) for each in own[some]] for own in (queries, documents))
        fitted = _fit_some(tokenizer, asked, shown, lengths[some], room)
        lengths[some] += around
        kept_queries.append(pa.array(fitted[0], type=pa.string()))
        kept_documents.append(pa.array(fitted[1], type=pa.string()))
        cut += fitted[2]
    return Fitted(TextColumn(kept_queries), TextColumn(kept_documents), lengths, cut)


def _fit_some(
    tokenizer: Any, queries: list[str], documents: list[str], lengths: IntArray, room: int
) -> tuple[list[str], list[str], int]:
    """(queries, documents, number of truncated rows) for a room of so many tokens; writes the tokens of both into `lengths`."""
    known: dict[str, int] = {}
    _count(tokenizer, [*dict.fromkeys(queries), *dict.fromkeys(documents)], known)
    kept_queries, kept_documents, cut = list(queries), list(documents), 0
    cuts: dict[tuple[str, int], str] = {}
    for at, (query, document) in enumerate(zip(queries, documents, strict=True)):
        of_query, of_document = known[query], known[document]
        if of_query + of_document > room:
            cut += 1
            most = max(room // 2, room - of_document)
            if of_query > most:
                kept_queries[at], of_query = _cut(tokenizer, query, most - SLACK, cuts), most
            if of_query + of_document > room:
                most = room - of_query
                kept_documents[at], of_document = _cut(tokenizer, document, most - SLACK, cuts), most
        lengths[at] = of_query + of_document
    return kept_queries, kept_documents, cut


def tokens_around(model: Any) -> int:
    """Number of tokens of a pair besides its two texts: separators, or the chat template."""
    pair = model.preprocess([("a", "a")])["input_ids"].shape[-1]
    single = len(model.tokenizer("a", add_special_tokens=False)["input_ids"])
    return int(pair) - 2 * single


def _count(tokenizer: Any, texts: Sequence[str], known: dict[str, int]) -> None:
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some = list(texts[start : start + TEXTS_AT_ONCE])
        encoded = tokenizer(some, add_special_tokens=False, return_attention_mask=False, verbose=False)
        known.update({text: len(ids) for text, ids in zip(some, encoded["input_ids"], strict=True)})


def _cut(tokenizer: Any, text: str, most: int, cuts: dict[tuple[str, int], str]) -> str:
    """The first `most` tokens of the text."""
    if (text, most) not in cuts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        cuts[text, most] = text[: encoded["offset_mapping"][most - 1][1]]
    return cuts[text, most]
