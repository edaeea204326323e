"""A failure that language-model judges share: the question was never put.

Used by `openai_http` and `transformers_local`; imports no Django.
"""

from __future__ import annotations

from labeling.records import Failure


class NotAsked(Failure):
    """No call was made, because the batch ended before its turn: no attempt, no cost, ask again later."""

    __slots__ = ()
