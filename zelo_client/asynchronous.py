"""The asynchronous client; the same methods as the synchronous one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx

from zelo_client import requests
from zelo_client.errors import Problem, Unreachable, WaitedTooLong, checked
from zelo_client.models import (
    Board,
    Comparison,
    Estimate,
    Imported,
    Instruction,
    NextPairs,
    Project,
    Query,
    Ranked,
    Reranker,
    Run,
    Scores,
    Snapshot,
    Training,
    Work,
)

T = TypeVar("T")
W = TypeVar("W", bound=Work)


class AsyncZelo:
    """A server at `url`, asked with an API key; close it, or use it with `async with`. Methods raise Problem."""

    def __init__(self, url: str, key: str, *, timeout_s: float = 300.0, bars: bool | None = None) -> None:
        self._bars = sys.stderr.isatty() if bars is None else bars
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s)

    async def __aenter__(self) -> AsyncZelo:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, request: requests.Request[T]) -> T:
        """Send a request of `zelo_client.requests`. Raises Problem, Unreachable."""
        return request.read((await self._answered(request)).json())

    async def pages(self, request: requests.Request[list[T]]) -> AsyncIterator[T]:
        """The rows of a list, page after page. Raises Problem, Unreachable."""
        following: requests.Request[list[T]] | None = request
        while following is not None:
            response = await self._answered(following)
            for row in following.read(response.json()):
                yield row
            following = following.after(response.links.get("next", {}).get("url", ""))

    async def _answered(self, request: requests.Request[Any]) -> httpx.Response:
        try:
            return checked(await self._sent(request))
        except httpx.TransportError as error:
            raise Unreachable(f"no answer from {self._client.base_url}: {error}; check the address") from error

    async def _sent(self, request: requests.Request[Any]) -> httpx.Response:
        """The response. A read is sent again where the server has just closed the idle connection."""
        try:
            return await self._client.request(**request.arguments())
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if request.method != "GET":
                raise
            return await self._client.request(**request.arguments())

    async def create_project(self, name: str, *, instruction: str = "") -> Project:
        return await self.send(requests.create_project(name, instruction))

    async def import_file(
        self, slug: str, file: str | Path | bytes, *, importer: str = "auto", options: Mapping[str, Any] | None = None
    ) -> Imported:
        """Import a file, or bytes; all or nothing."""
        return await self.send(requests.import_file(slug, file, importer, options))

    async def upsert(self, slug: str, kind: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Upsert up to 100,000 rows of `kind`: queries, documents, candidates or grades."""
        return await self.send(requests.upsert(slug, kind, rows))

    async def run(self, slug: str, judges: Sequence[str | Mapping[str, Any]], **order: Any) -> Run:
        """Order a run of judges, named by plugin; `order`: sampler, allocation, pair_budget and the others of POST /runs."""
        return await self.send(requests.start_run(slug, judges, order))

    async def estimate(self, slug: str, judges: Sequence[str | Mapping[str, Any]], **order: Any) -> Estimate:
        """The questions and cost of a run before it starts; nothing is stored."""
        return await self.send(requests.estimate(slug, judges, order))

    async def wait(self, work: W, *, timeout_s: float = 86_400.0, every_s: float = 1.0) -> W:
        """The run, training or job once it has finished. Raises Failed if it failed, WaitedTooLong."""
        until = time.monotonic() + timeout_s
        while True:
            work = await self.send(requests.again(work))
            requests.draw(work, shown=self._bars)
            if work.is_over:
                done: W = requests.successful(work)
                return done
            if time.monotonic() > until:
                raise WaitedTooLong(f"{work.address} is {work.state} after {timeout_s:.0f} s; wait again")
            await asyncio.sleep(every_s)

    async def scores(self, slug: str, query: str = "") -> list[Scores]:
        """The scores of one query by its imported id, or of all."""
        return [await self.send(requests.scores(each.id)) async for each in self.queries(slug, query)]

    def queries(self, slug: str, query: str = "") -> AsyncIterator[Query]:
        """All queries, or the one of an imported id, page after page."""
        return self.pages(requests.queries(slug, query))

    async def comparisons(self, candidate: int) -> list[Comparison]:
        """The answers behind a candidate's score, newest first."""
        return [each async for each in self.pages(requests.comparisons(candidate))]

    async def instruction(self, slug: str) -> Instruction:
        """The instruction for people, and the answers that they may give."""
        return await self.send(requests.instruction(slug))

    async def confirm(self, slug: str, read: Instruction) -> Instruction:
        """Confirm having read the instruction. Raises Problem 409 where it was changed since."""
        return await self.send(requests.confirm(slug, read))

    async def next_pairs(self, slug: str) -> NextPairs:
        """The next pairs of the key's owner, up to two; nobody else gets them meanwhile."""
        return await self.send(requests.next_pairs(slug))

    async def answer(self, slug: str, slot: int, choice: str, **given: Any) -> NextPairs:
        """Answer a pair, and get the next ones; `given`: reason, note, seconds, and key to repeat a request safely."""
        return await self.send(requests.answer(slug, slot, choice, given))

    async def snapshot(self, slug: str, name: str, **options: Any) -> Snapshot:
        return await self.send(requests.freeze(slug, name, options))

    async def train(self, slug: str, snapshot: Snapshot, *, trainer: str = "", **options: Any) -> Training:
        """Start a training, with the recommended trainer if none is named."""
        return await self.send(requests.train(slug, snapshot, trainer, options))

    async def publish(self, training: Training) -> Training:
        """Publish the student that the gate held back."""
        return await self.send(requests.publish(training))

    async def prove(self, slug: str, snapshot: Snapshot, *, split: str = "test") -> Board:
        """Evaluate all rerankers on a split, wait, and return the leaderboard."""
        ordered = await self._in_turn(requests.evaluate(slug, snapshot, split))
        await self.wait(await self.send(requests.job(ordered["id"])))
        return await self.send(requests.leaderboard(slug, snapshot, split))

    async def _in_turn(self, order: requests.Request[T], *, timeout_s: float = 3600.0) -> T:
        """Send an order as soon as the other work of its kind has ended, such as the evaluation that follows a training."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                return await self.send(order)
            except Problem as problem:
                if problem.status != 409 or requests.BUSY not in str(problem) or time.monotonic() > until:
                    raise
            await asyncio.sleep(1.0)

    async def rerankers(self, slug: str) -> list[Reranker]:
        return await self.send(requests.rerankers(slug))

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[Ranked]:
        """The documents' places and relevance, best first; the key needs the scope rerank."""
        return await self.send(requests.rerank(model, query, documents))
