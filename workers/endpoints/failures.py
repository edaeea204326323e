"""Failures that language-model judges share: the question was never put, or it was and the endpoint is to blame.

Used by `openai_http` and `transformers_local`; imports no Django.
"""

from __future__ import annotations

from labeling.records import Failure


class NotAsked(Failure):
    """No call was made, or it was turned away unpaid: no attempt, no cost, ask again later."""

    __slots__ = ()


class Excused(Failure):
    """A call was made and booked, and failed because its endpoint is out of order: no attempt is counted."""

    __slots__ = ()
