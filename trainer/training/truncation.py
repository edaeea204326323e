"""Truncates documents to the model's maximum length and counts the tokens of every row. Imports no Django.

A tokenizer's own truncation would remove the end of a chat template, where the answer is, and a long document could
displace the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeling.records import IntArray

TEXTS_AT_ONCE = 1000
# A text that was truncated between two tokens may be tokenised into one or two tokens more.
SLACK = 2
LEAST_DOCUMENT = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """Truncated texts, `lengths` int64[n] in tokens of the full pair, and the number of truncated rows."""

    queries: list[str]
    documents: list[str]
    lengths: IntArray
    cut: int


class TooShort(ValueError):
    """`max_length` leaves no room for a document."""


def fit_texts(model: Any, queries: Sequence[str], documents: Sequence[str], *, max_length: int) -> Fitted:
    """Truncate pairs to `max_length` tokens: the query to at most half of the space, the document to the rest.

    `model` is a CrossEncoder. Raises TooShort.
    """
    tokenizer = model.tokenizer
    around = tokens_around(model)
    room = max_length - around
    if room < 2 * LEAST_DOCUMENT:
        raise TooShort(
            f"max_length is {max_length}, but every pair has {around} special tokens; expected at least "
            f"{around + 2 * LEAST_DOCUMENT}"
        )
    known: dict[str, int] = {}
    _count(tokenizer, [*dict.fromkeys(queries), *dict.fromkeys(documents)], known)
    kept_queries, kept_documents = list(queries), list(documents)
    lengths = np.empty(len(queries), dtype=np.int64)
    cut = 0
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
        lengths[at] = around + of_query + of_document
    return Fitted(kept_queries, kept_documents, lengths, cut)


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
