"""The synchronous client."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Zelo:
    """A server at `url`, asked with an API key; close it, or use it as a context manager. Methods raise Problem."""

    def __init__(self, url: str, key: str, *, timeout_s: float = 300.0, bars: bool | None = None) -> None:
        self._bars = sys.stderr.isatty() if bars is None else bars
        headers = {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Zelo:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def send(self, request: requests.Request[T]) -> T:
        """Send a request of `zelo_client.requests`. Raises Problem, Unreachable."""
        return request.read((self._answered(request)).json())

    def pages(self, request: requests.Request[list[T]]) -> Iterator[T]:
        """The rows of a list, page after page. Raises Problem, Unreachable."""
        following: requests.Request[list[T]] | None = request
        while following is not None:
            response = self._answered(following)
            yield from following.read(response.json())
            following = following.after(response.links.get("next", {}).get("url", ""))

    def _answered(self, request: requests.Request[Any]) -> httpx.Response:
        try:
            return checked(self._sent(request))
        except httpx.TransportError as error:
            raise Unreachable(f"no answer from {self._client.base_url}: {error}; check the address") from error

    def _sent(self, request: requests.Request[Any]) -> httpx.Response:
        """The response. A read is sent again where the server has just closed the idle connection."""
        try:
            return self._client.request(**request.arguments())
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if request.method != "GET":
                raise
            return self._client.request(**request.arguments())

    def create_project(self, name: str, *, instruction: str = "") -> Project:
        return self.send(requests.create_project(name, instruction))

    def import_file(
        self, slug: str, file: str | Path | bytes, *, importer: str = "auto", options: Mapping[str, Any] | None = None
    ) -> Imported:
        """Import a file, or bytes; all or nothing."""
        return self.send(requests.import_file(slug, file, importer, options))

    def upsert(self, slug: str, kind: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Upsert up to 100,000 rows of `kind`: queries, documents, candidates or grades."""
        return self.send(requests.upsert(slug, kind, rows))

    def run(self, slug: str, judges: Sequence[str | Mapping[str, Any]], **order: Any) -> Run:
        """Order a run of judges, named by plugin; `order`: sampler, allocation, pair_budget and the others of POST /runs."""
        return self.send(requests.start_run(slug, judges, order))

    def estimate(self, slug: str, judges: Sequence[str | Mapping[str, Any]], **order: Any) -> Estimate:
        """The questions and cost of a run before it starts; nothing is stored."""
        return self.send(requests.estimate(slug, judges, order))

    def wait(self, work: W, *, timeout_s: float = 86_400.0, every_s: float = 1.0) -> W:
        """The run, training or job once it has finished. Raises Failed if it failed, WaitedTooLong."""
        until = time.monotonic() + timeout_s
        while True:
            work = self.send(requests.again(work))
            requests.draw(work, shown=self._bars)
            if work.is_over:
                done: W = requests.successful(work)
                return done
            if time.monotonic() > until:
                raise WaitedTooLong(f"{work.address} is {work.state} after {timeout_s:.0f} s; wait again")
            time.sleep(every_s)

    def scores(self, slug: str, query: str = "") -> list[Scores]:
        """The scores of one query by its imported id, or of all."""
        return [self.send(requests.scores(each.id)) for each in self.queries(slug, query)]

    def queries(self, slug: str, query: str = "") -> Iterator[Query]:
        """All queries, or the one of an imported id, page after page."""
        return self.pages(requests.queries(slug, query))

    def comparisons(self, candidate: int) -> list[Comparison]:
        """The answers behind a candidate's score, newest first."""
        return list(self.pages(requests.comparisons(candidate)))

    def instruction(self, slug: str) -> Instruction:
        """The instruction for people, and the answers that they may give."""
        return self.send(requests.instruction(slug))

    def confirm(self, slug: str, read: Instruction) -> Instruction:
        """Confirm having read the instruction. Raises Problem 409 where it was changed since."""
        return self.send(requests.confirm(slug, read))

    def next_pairs(self, slug: str) -> NextPairs:
        """The next pairs of the key's owner, up to two; nobody else gets them meanwhile."""
        return self.send(requests.next_pairs(slug))

    def answer(self, slug: str, slot: int, choice: str, **given: Any) -> NextPairs:
        """Answer a pair, and get the next ones; `given`: reason, note, seconds, and key to repeat a request safely."""
        return self.send(requests.answer(slug, slot, choice, given))

    def snapshot(self, slug: str, name: str, **options: Any) -> Snapshot:
        return self.send(requests.freeze(slug, name, options))

    def train(self, slug: str, snapshot: Snapshot, *, trainer: str = "", **options: Any) -> Training:
        """Start a training, with the recommended trainer if none is named."""
        return self.send(requests.train(slug, snapshot, trainer, options))

    def publish(self, training: Training) -> Training:
        """Publish the student that the gate held back."""
        return self.send(requests.publish(training))

    def prove(self, slug: str, snapshot: Snapshot, *, split: str = "test") -> Board:
        """Evaluate all rerankers on a split, wait, and return the leaderboard."""
        ordered = self._in_turn(requests.evaluate(slug, snapshot, split))
        self.wait(self.send(requests.job(ordered["id"])))
        return self.send(requests.leaderboard(slug, snapshot, split))

    def _in_turn(self, order: requests.Request[T], *, timeout_s: float = 3600.0) -> T:
        """Send an order as soon as the other work of its kind has ended, such as the evaluation that follows a training."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                return self.send(order)
            except Problem as problem:
                if problem.status != 409 or requests.BUSY not in str(problem) or time.monotonic() > until:
                    raise
            time.sleep(1.0)

    def rerankers(self, slug: str) -> list[Reranker]:
        return self.send(requests.rerankers(slug))

    def rerank(self, model: str, query: str, documents: Sequence[str]) -> list[Ranked]:
        """The documents' places and relevance, best first; the key needs the scope rerank."""
        return self.send(requests.rerank(model, query, documents))
