"""The tokens of a run's questions: an expected number, and one that tokenizers do not exceed.

The texts of a project are measured in bytes by the database; a sample of them gives the tokens a byte. A judge that
names a tokenizer is counted with it. Otherwise four bytes are expected to make a token, and `most_tokens` is the bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from workers.judges.prompting import BYTES_PER_TOKEN, counter_of

# The sample: so many places in the order of the documents, so many documents from each.
PLACES, AT_EACH = 16, 12
SAMPLED_CHARACTERS = 4000

# A word, a capital, a digit, a run of one kind of blank, or one other character. Tokenizers join a single blank to the
# word after it, so that one is left out.
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]|[0-9]|(?! [A-Za-z])(\s)\1*|[^\sA-Za-z0-9]")
_LETTERS_A_TOKEN = 2


def most_tokens(text: str) -> int:
    """A number of tokens that the tokenizers of common language models do not exceed on ordinary text.

    Two letters of a word, a digit, a capital, a sign and each byte of a character outside ASCII count as a token. English
    prose needs about half of that; a tokenizer that is named gives a closer bound.
    """
    return sum(_most_of_piece(found[0]) for found in _PIECE.finditer(text))


def _most_of_piece(piece: str) -> int:
    if piece.isspace():
        return min(len(piece), 2)
    return -(-len(piece) // _LETTERS_A_TOKEN) if piece.isascii() else len(piece.encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class TokenRate:
    """Tokens a byte of text: `expected`, and `most`."""

    expected: float
    most: float


def token_rate(texts: list[str], tokenizer: str) -> TokenRate:
    """The rate of these texts by the tokenizer that is named, "" for none. Raises what loading a tokenizer raises."""
    whole = sum(len(text.encode(errors="replace")) for text in texts)
    if not whole:
        return TokenRate(1.0 / BYTES_PER_TOKEN, 1.0)
    if not tokenizer:
        return TokenRate(1.0 / BYTES_PER_TOKEN, max(sum(map(most_tokens, texts)) / whole, 1.0 / BYTES_PER_TOKEN))
    count = counter_of(tokenizer)
    each = [(count(text), len(text.encode(errors="replace"))) for text in texts if text]
    # The texts that a run asks about may be denser than the mean: the bound takes the rate of the densest tenth.
    dense = sorted(tokens / size for tokens, size in each)[int(0.9 * (len(each) - 1))]
    mean = sum(tokens for tokens, _ in each) / whole
    return TokenRate(mean, max(mean, dense))


@dataclass(frozen=True, slots=True)
class PairBytes:
    """Bytes of query and both documents, summed over all pairs of a design: expected and at most. `longest`: those of the
    longest pair that can be asked.
    """

    expected: float
    most: float
    longest: float


_QUERIES = """
WITH lengths AS (
    SELECT candidate.query_id, LEAST(octet_length(document.text), %(document)s) AS size
    FROM labeling_candidate candidate
    JOIN labeling_query query ON query.id = candidate.query_id
    JOIN labeling_document document ON document.id = candidate.document_id
    WHERE query.project_id = %(project)s AND (%(queries)s::bigint[] IS NULL OR query.id = ANY(%(queries)s))
), queries AS (
    SELECT query_id, count(*) AS n, sum(size)::float8 AS total, (array_agg(size ORDER BY size DESC))[1:2] AS longest
    FROM lengths GROUP BY query_id HAVING count(*) >= 2
)
SELECT n, sum(total), sum(LEAST(octet_length(query.text), %(query)s))::float8, max(octet_length(query.text)),
       array_agg(total), array_agg(longest[1] + longest[2])
FROM queries JOIN labeling_query query ON query.id = queries.query_id
GROUP BY n
"""


def pair_bytes(
    project_id: int,
    pairs: Mapping[int, float],
    options: Mapping[str, Any],
    rate: TokenRate,
    *,
    query_ids: Sequence[int] | None = None,
    documents: int = 2,
) -> PairBytes:
    """The bytes of a design, cut as the judge's options cut them; `pairs`: pairs of a query by its number of candidates.

    At most: each pair of a query has the size of its longest one, or all its pairs are asked, whichever is less.
    `documents`: how many of them a question shows instead of two; k are no longer than k / 2 times the longest pair.
    """
    limits: dict[str, int] = {
        "document": _most_bytes(options.get("max_document_tokens"), rate),
        "query": _most_bytes(options.get("max_query_tokens"), rate),
    }
    expected = most = longest = 0.0
    with connection.cursor() as cursor:
        cursor.execute(
            _QUERIES, {"project": project_id, "queries": None if query_ids is None else list(query_ids), **limits}
        )
        for n, total, query_bytes, longest_query, totals, longest_pairs in cursor.fetchall():
            each = pairs.get(n, 0.0)
            expected += each * (documents * total / n + query_bytes)
            part = max(documents / 2.0, 1.0)
            bounds = (
                min(part * each * top, (n - 1) * whole if documents <= 2 else math.inf)
                for top, whole in zip(longest_pairs, totals, strict=True)
            )
            most += sum(bounds) + each * query_bytes
            longest = max(longest, part * max(longest_pairs) + min(longest_query, limits["query"]))
    return PairBytes(expected, most, longest)


def _most_bytes(tokens: int | None, rate: TokenRate) -> int:
    """The bytes that a limit of tokens keeps: by the judge's own cutting, four a token unless a tokenizer is named."""
    return 2**31 - 1 if tokens is None else min(2**31 - 1, int(tokens / min(rate.expected, 1.0 / BYTES_PER_TOKEN)) + 1)


_SAMPLE = """
WITH ends AS (SELECT min(id) AS low, max(id) AS high FROM labeling_document WHERE project_id = %(project)s)
SELECT DISTINCT ON (sampled.id) left(sampled.text, %(characters)s)
FROM ends CROSS JOIN generate_series(0, %(places)s - 1) AS place CROSS JOIN LATERAL (
    SELECT id, text FROM labeling_document
    WHERE project_id = %(project)s AND id >= low + (high - low) * place / %(places)s
    ORDER BY id LIMIT %(each)s
) AS sampled
"""


def sample_texts(project_id: int) -> list[str]:
    """Beginnings of up to 192 documents, from all parts of a project."""
    parameters = {"project": project_id, "characters": SAMPLED_CHARACTERS, "places": PLACES, "each": AT_EACH}
    with connection.cursor() as cursor:
        cursor.execute(_SAMPLE, parameters)
        return [text for (text,) in cursor.fetchall()]
