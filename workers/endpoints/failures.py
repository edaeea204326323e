"""Failures of language-model judges that do not count as an attempt of the question.

The judges `openai-http` and `transformers-local` return them; imports no Django.
"""

from __future__ import annotations

from labeling.records import Failure


class NotAsked(Failure):
    """No call was made, or a rate limit rejected it unpaid: no attempt, no cost, retry later."""

    __slots__ = ()


class Excused(Failure):
    """A call was made and stored, and failed because the endpoint is not working: no attempt is counted."""

    __slots__ = ()
