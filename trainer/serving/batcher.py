"""Batches the pairs of concurrent requests by length and computes them in a few threads.

Each thread takes the longest open pair of the oldest request and fills the batch with pairs of similar length from all
requests. This needs little padding, and requests finish in the order of arrival. Two threads with one core each are faster
than one thread with two cores, and do not wait for each other. Imports no Django.
"""

from __future__ import annotations

import bisect
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from trainer.serving.forms.pairs import EncodedPair, too_padded
from trainer.serving.loading import ExactPart
from trainer.serving.published import LoadedModel

# Weight of a new pass in the measured tokens per second.
NEW_WEIGHT = 0.1
MOST_RETRY_S = 60


class TooBusy(RuntimeError):
    """The queue is longer than the server can process in reasonable time; `retry_after_s` says when to retry."""

    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass
class _Job:
    """The pairs of one request; `open_rows` lists those not taken yet, longest first."""

    number: int
    model: LoadedModel | ExactPart
    pairs: Sequence[EncodedPair]
    logits: list[Any]
    future: Future[list[Any]]
    open_rows: deque[int]
    unfinished: int
    dropped: bool = False


@dataclass
class _Pool:
    """The open pairs of one model, shortest first, those of older jobs behind others as long: (length, -job number, row)."""

    entries: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, entries: Sequence[tuple[int, int, int]]) -> None:
        self.entries = sorted([*self.entries, *entries])


class RequestBatcher:
    """Computes the logits of submitted pairs. `close` ends the threads and fails all open jobs.

    Refuses a request that would wait: behind more than `most_waiting_tokens`, or longer than `most_wait_s` at the speed of the
    last passes (0: no such limit). `observe` is called after each pass, with its pairs and seconds.
    """

    def __init__(
        self,
        *,
        threads: int,
        most_waiting_tokens: int = 4_000_000,
        most_wait_s: float = 0.0,
        prepare_thread: Callable[[], None] = lambda: None,
        observe: Callable[
            [LoadedModel | ExactPart, Sequence[EncodedPair], float], None
        ] = lambda model, pairs, seconds: None,
    ) -> None:
        self._most_waiting_tokens = most_waiting_tokens
        self._most_wait_s = most_wait_s
        self._tokens_per_s = 0.0  # of one thread
        self._passes: dict[int, tuple[int, float]] = {}  # of each thread: its tokens, and when it began
        self._prepare_thread = prepare_thread
        self._observe = observe
        self._changed = threading.Condition()
        self._jobs: dict[int, _Job] = {}
        self._pools: dict[int, _Pool] = {}
        self._numbers = itertools.count()
        self._waiting_tokens = 0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"rank-{n}") for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        return self._waiting_tokens

    def submit(self, model: LoadedModel | ExactPart, pairs: Sequence[EncodedPair]) -> Future[list[Any]]:
        """A future of the model's output for each pair, a logit or a vector, in order; cancelling it removes its open pairs. Raises TooBusy."""
        future: Future[list[Any]] = Future()
        if not pairs:
            future.set_result([])
            return future
        tokens = sum(len(pair) for pair in pairs)
        with self._changed:
            if self._closed:
                raise TooBusy("the server is stopping; retry in a moment")
            self._check_queue(tokens)
            number = next(self._numbers)
            rows = sorted(range(len(pairs)), key=lambda row: (-len(pairs[row]), -row))
            job = _Job(number, model, pairs, [0.0] * len(pairs), future, deque(rows), len(pairs))
            self._jobs[number] = job
            self._waiting_tokens += tokens
            pool = self._pools.setdefault(id(model), _Pool())
            pool.add([(len(pair), -number, row) for row, pair in enumerate(pairs)])
            self._changed.notify_all()
        future.add_done_callback(lambda done: self._drop(number) if done.cancelled() else None)
        return future

    @property
    def wait_s(self) -> float:
        """Seconds until the queue is computed, at the speed of the last passes; 0 before the first."""
        together = self._tokens_per_s * len(self._threads)
        return self._waiting_tokens / together if together else 0.0

    def _check_queue(self, tokens: int) -> None:
        """Raise TooBusy for a request of `tokens` tokens that would wait too long."""
        wait_s, most = self.wait_s, self._most_waiting_tokens
        if not self._waiting_tokens:
            return
        queued = f"the server is busy: {self._waiting_tokens:,} tokens are queued"
        retry_s = min(MOST_RETRY_S, max(1, math.ceil(wait_s / 2)))
        if self._waiting_tokens + tokens > most:
            raise TooBusy(
                f"{queued} and this request adds {tokens:,}; expected at most {most:,}; retry later or send fewer documents",
                retry_after_s=retry_s,
            )
        if self._most_wait_s and wait_s > self._most_wait_s:
            raise TooBusy(
                f"{queued}, about {wait_s:.0f} s of work; expected at most {self._most_wait_s:.0f} s; retry in {retry_s} s",
                retry_after_s=retry_s,
            )

    def close(self) -> None:
        with self._changed:
            self._closed = True
            jobs = list(self._jobs.values())
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(CancelledError())

    def _work(self) -> None:
        self._prepare_thread()
        while True:
            with self._changed:
                while not self._closed and not self._jobs_with_open_rows():
                    self._changed.wait()
                if self._closed:
                    return
                batch = self._take()
                tokens = sum(len(job.pairs[row]) for job, row in batch)
                self._passes[threading.get_ident()] = (tokens, time.monotonic())
            self._compute(batch)

    def _jobs_with_open_rows(self) -> bool:
        return any(pool.entries for pool in self._pools.values())

    def _take(self) -> list[tuple[_Job, int]]:
        """The next batch: at the end of the queue as much as lets all threads finish together."""
        oldest = next(job for job in self._jobs.values() if job.open_rows)
        model, row = oldest.model, oldest.open_rows[0]
        pool = self._pools[id(model)]
        longest = len(oldest.pairs[row])
        target = min(model.batch_tokens, self._share())
        end = bisect.bisect_left(pool.entries, (longest, -oldest.number, row)) + 1
        start = end - 1
        tokens = longest
        while start > 0:
            length = pool.entries[start - 1][0]
            more = tokens + length
            size = (end - start + 1) * longest if model.pads else more
            # The size that is closer to the target, but never more than a pass may have.
            too_large = size > model.batch_tokens or size - target > length // 2
            if too_large or (model.pads and too_padded(more, size)):
                break
            start, tokens = start - 1, more
        taken = pool.entries[start:end]
        del pool.entries[start:end]
        if not pool.entries:
            del self._pools[id(model)]
        batch = []
        for length, number, taken_row in taken:
            job = self._jobs[-number]
            job.open_rows.remove(taken_row)
            self._waiting_tokens -= length
            batch.append((job, taken_row))
        return batch

    def _share(self) -> int:
        """The tokens that a thread computes until the queue and the passes that have begun are over."""
        now = time.monotonic()
        begun = sum(max(0.0, tokens - (now - at) * self._tokens_per_s) for tokens, at in self._passes.values())
        return math.ceil((self._waiting_tokens + begun) / len(self._threads))

    def _compute(self, batch: list[tuple[_Job, int]]) -> None:
        begun = time.monotonic()
        try:
            model, pairs = batch[0][0].model, [job.pairs[row] for job, row in batch]
            logits = model.logits(pairs)
            self._observe(model, pairs, time.monotonic() - begun)
        except Exception as error:
            for job in {id(job): job for job, _ in batch}.values():
                self._fail(job, error)
            return
        finally:
            self._passes[threading.get_ident()] = (0, 0.0)
        finished = []
        speed = sum(len(job.pairs[row]) for job, row in batch) / max(1e-6, time.monotonic() - begun)
        with self._changed:
            weight = NEW_WEIGHT if self._tokens_per_s else 1.0
            self._tokens_per_s += weight * (speed - self._tokens_per_s)
            for (job, row), logit in zip(batch, logits, strict=True):
                job.logits[row] = logit
                job.unfinished -= 1
                if job.unfinished == 0 and not job.dropped:
                    self._jobs.pop(job.number, None)
                    finished.append(job)
        for job in finished:
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(job.logits)

    def _fail(self, job: _Job, error: Exception) -> None:
        """End a job with an error, once: its other passes may fail in other threads, and its client may cancel it meanwhile."""
        if self._drop(job.number) and job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)

    def _drop(self, number: int) -> bool:
        """Remove a job that was cancelled or has failed; whether it was still there."""
        with self._changed:
            job = self._jobs.pop(number, None)
            if job is None:
                return False
            job.dropped = True
            key = id(job.model)
            pool = self._pools.get(key, _Pool())
            self._waiting_tokens -= sum(length for length, owner, _ in pool.entries if owner == -number)
            pool.entries = [entry for entry in pool.entries if entry[1] != -number]
            if not pool.entries:
                self._pools.pop(key, None)
            return True
