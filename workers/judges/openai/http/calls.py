"""Makes the calls of one comparison in the form that the endpoint accepts, and learns that form from its rejections.

A rejected request reached no model: it is changed and sent again at once, and counts neither as an answer nor as an attempt.
The judge `openai-http` uses it; imports no Django.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.endpoints import learned
from workers.endpoints.gates import Gate
from workers.endpoints.learned import Learned
from workers.judges.openai.answers import VALID_VOTES
from workers.judges.openai.http.adaptation import MOST_CHANGES, adapted, lesson
from workers.judges.openai.http.client import Completion, Connection
from workers.judges.openai.http.statuses import CallFailed


@dataclass
class Calls:
    """The calls of one comparison: replies, and failures in the order of time.

    `tokens`: estimate of one call for the rate limit; `deadline`: by time.monotonic(); `gate`: admits the calls.
    """

    connection: Connection
    model: str
    tokens: int
    deadline: float
    gate: Gate | None = None
    completions: list[Completion] = field(default_factory=list)
    failed: list[CallFailed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._identity = self.connection.endpoint.channel(self.model).identity

    @property
    def known(self) -> Learned:
        """The learned facts about this model at this endpoint."""
        return learned.recall(self._identity, self.model)

    async def ask(self, request: Mapping[str, Any], *, times: int = 1) -> None:
        """Make this many calls of the same request concurrently; every result is kept, even if one raises."""
        outcomes = await asyncio.gather(*(self._ask_once(request) for _ in range(times)), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def ask_for_votes(self, request: Mapping[str, Any], *, votes: int) -> None:
        """Ask for all votes with `n`, and one by one for those that an endpoint without `n` leaves out."""
        if self.known.n != "ignored":
            await self.ask(request)
            if not self.completions:
                return
            found = sum(_choices(completion.body) for completion in self.completions)
            is_whole = found >= VALID_VOTES * votes
            learned.learn(self._identity, self.model, Learned(n="works" if is_whole else "ignored"))
            if is_whole:
                return
            votes -= max(1, found)  # a reply without choices was paid, too: no more calls than votes
        await self.ask({name: value for name, value in request.items() if name != "n"}, times=votes)

    async def _ask_once(self, request: Mapping[str, Any]) -> None:
        try:
            self.completions.append(await self._accepted(request))
        except CallFailed as error:
            self.failed.append(error)

    async def _accepted(self, request: Mapping[str, Any]) -> Completion:
        """Call, and call again while a rejection teaches something new."""
        tried: set[Learned] = set()
        while True:
            known = self.known
            body = adapted(request, known)
            try:
                return await self.connection.complete(body, tokens=self.tokens, deadline=self.deadline, gate=self.gate)
            except CallFailed as error:
                change = lesson(body, error.rejects) if error.rejects else None
                if change is None or known in tried or len(tried) >= MOST_CHANGES:
                    raise
                tried.add(known)
                learned.learn(self._identity, self.model, change)


def _choices(body: Mapping[str, Any]) -> int:
    choices = body.get("choices")
    return len(choices) if isinstance(choices, list) else 0
