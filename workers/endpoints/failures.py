"""Failures that language-model judges share: the call was never made, or the endpoint failed it.

Used by `openai_http` and `transformers_local`; imports no Django.
"""

from __future__ import annotations

from labeling.records import Failure


class NotAsked(Failure):
    """No call was made, or a rate limit rejected it unpaid: no attempt, no cost, retry later."""

    __slots__ = ()


class Excused(Failure):
    """A call was made and recorded, and failed because the endpoint is down: it counts as no attempt."""

    __slots__ = ()
