"""Pairs as the comparison screen gets them: texts and filtered metadata, in the order presented.

Before the answer, the server sends nothing that hints at it: no ids, ranks, scores, grades, and no reason of the spot
check. Others' answers follow after the submit, where the project allows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.utils.translation import gettext as _

from labeling.access.handles import handle_of

_READ = """
SELECT mine.id, mine.pair_id, mine.swapped, mine.lease_s, pair.query_id IS NULL,
       query_a.text, a.text, a.metadata, a.external_id, query_b.text, b.text, b.metadata, b.external_id
FROM mine JOIN labeling_pair pair ON pair.id = mine.pair_id
JOIN labeling_candidate of_a ON of_a.id = pair.a_id JOIN labeling_candidate of_b ON of_b.id = pair.b_id
JOIN labeling_document a ON a.id = of_a.document_id JOIN labeling_document b ON b.id = of_b.document_id
JOIN labeling_query query_a ON query_a.id = of_a.query_id JOIN labeling_query query_b ON query_b.id = of_b.query_id
ORDER BY mine.came, mine.id
"""

# The leased pairs of a person: renewed and read in one statement.
_BEFORE = f"""
WITH mine AS (
    UPDATE labeling_spotcheck SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    WHERE holder_id = %(person)s AND place IS NOT NULL
    RETURNING id, pair_id, swapped, %(lease_s)s::float8 AS lease_s, leased_at AS came
){_READ}"""

_AGAIN = f"""
WITH mine AS (
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::boolean[], %s::float8[])
    WITH ORDINALITY AS lay (id, pair_id, swapped, lease_s, came)
){_READ}"""

Reference = tuple[int, int, bool, float]


@dataclass(frozen=True, slots=True)
class Item:
    """A leased pair: its content for the screen, and a reference from which the content can be read again."""

    reference: Reference
    shown: dict[str, Any]


def items_before(person_id: int, *, lease_s: int, hidden: Collection[str]) -> list[Item]:
    """The person's leased pairs, oldest first; renews every lease."""
    with connection.cursor() as cursor:
        cursor.execute(_BEFORE, {"person": person_id, "lease_s": lease_s})
        return [_item(row, hidden=hidden) for row in cursor.fetchall()]


def items_again(references: Sequence[Reference], *, hidden: Collection[str]) -> list[Item]:
    """The pairs of earlier responses, in the order shown then; deleted pairs are left out."""
    columns = [list(column) for column in zip(*references, strict=True)] or [[], [], [], []]
    with connection.cursor() as cursor:
        cursor.execute(_AGAIN, columns)
        return [_item(row, hidden=hidden) for row in cursor.fetchall()]


def _item(row: tuple[Any, ...], *, hidden: Collection[str]) -> Item:
    assignment, pair_id, swapped, lease_s, cross_query = row[:5]
    a, b = _document(*row[5:9], hidden=hidden), _document(*row[9:], hidden=hidden)
    left, right = (b, a) if swapped else (a, b)
    shown = {
        "slot": handle_of(assignment),
        "cross_query": cross_query,
        "left": left,
        "right": right,
        "lease_s": lease_s,
        "note": "",
    }
    return Item((assignment, pair_id, swapped, lease_s), shown)


def _document(query: str, text: str, metadata: str, external_id: str, *, hidden: Collection[str]) -> dict[str, Any]:
    shown = harmless(json.loads(metadata), hidden=hidden, external_id=external_id)
    return {"query": query, "text": text, "metadata": shown, "words": len(text.split())}


# Parts of a key that hint at identity or at a judgment.
_TELLING = frozenset(
    part
    for line in (
        "id ids uid uuid guid docid documentid passageid queryid docno pid qid did doi hash checksum sha md5 key",
        "rank ranks ranking position score scores scoring bm25 tfidf similarity distance cosine",
        "relevance relevant irrelevant rel qrel qrels grade grades grading label labels gold truth",
        "elo theta strength stderr logit logits prob probability confidence",
        "judgment judgments judgement judgements judge verdict preference rating ratings vote votes click clicks ctr",
    )
    for part in line.split()
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+")


def is_telling(key: str) -> bool:
    """Whether a metadata key looks as if its value named the document or said how relevant it is."""
    parts = [part.lower() for part in _WORDS.findall(key)]
    return any(part in _TELLING for part in parts) or key.lower() in _TELLING or "".join(parts) in _TELLING


def harmless(metadata: Any, *, hidden: Collection[str], external_id: str) -> Any:
    """Metadata without keys that hint at the answer, without `hidden` keys (lower case) and without the document's id."""
    if isinstance(metadata, dict):
        return {
            key: harmless(value, hidden=hidden, external_id=external_id)
            for key, value in metadata.items()
            if key.lower() not in hidden and not is_telling(key) and str(value) != external_id
        }
    if isinstance(metadata, list):
        kept = [value for value in metadata if isinstance(value, dict | list) or str(value) != external_id]
        return [harmless(value, hidden=hidden, external_id=external_id) for value in kept]
    return metadata


_OTHERS = """
SELECT annotator.is_person, annotator.name, avg(answer.preference),
       (array_agg(rationale.text ORDER BY answer.id) FILTER (WHERE rationale.text IS NOT NULL))[1]
FROM labeling_live_judgment answer JOIN labeling_annotator annotator ON annotator.id = answer.annotator_id
LEFT JOIN labeling_rationale rationale ON rationale.judgment_id = answer.id
WHERE answer.pair_id = %s AND answer.annotator_id <> %s
GROUP BY annotator.id ORDER BY annotator.is_person, annotator.id LIMIT 12
"""


def others_on(pair_id: int, *, person_id: int, swapped: bool) -> list[dict[str, Any]]:
    """The others' answers to a pair, in the order that the person saw; people stay anonymous."""
    with connection.cursor() as cursor:
        cursor.execute(_OTHERS, [pair_id, person_id])
        rows = cursor.fetchall()
    return [
        {
            "who": _("a colleague") if is_person else name,
            "preference_left": None if mean is None else round(1.0 - mean if swapped else mean, 4),
            "rationale": rationale or "",
        }
        for is_person, name, mean, rationale in rows
    ]
