"""Keeps a judge over HTTP busy: claims ahead, has as many calls in flight as it was granted, stores answers as they come.

A round claims as many tasks as there is room for, and stores the answers that have arrived together; between rounds it
visits `workers.endpoints.limiter`. A worker that is stopping releases the tasks that it has not asked, and waits up to
STOP_S for its calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import Error

from labeling.database import is_lost
from labeling.models import Annotator
from labeling.records import Comparison, Failure, FailureKind, Verdict
from workers import failpoints
from workers.broker.hints import leave_hint
from workers.broker.routing import queue_of
from workers.endpoints.conversation import Conversation, ConversingJudge
from workers.endpoints.failures import NotAsked
from workers.endpoints.gates import Channel
from workers.endpoints.session import Presence
from workers.judging import questions, queue, recorder, trouble
from workers.judging.drift import watch_now_and_then
from workers.judging.leases import held
from workers.judging.queue import ClaimedTask
from workers.stopping import is_stopping

log = logging.getLogger(__name__)

ROUND_S = 0.25
STORED_AT_ONCE = 256
MOST_AHEAD = 512
# The shortest time between two hints by which a busy process invites others to join in.
INVITING_S = 0.5
# Under a rate limit, a process claims only what it can ask within so many seconds.
RATE_AHEAD_S = 20.0
# A process without a slot waits so long for others to give one up; then it does other work.
PATIENCE_S = 3.0
# A slice ends when other judges wait. With long calls it lasts longer, because its end costs a pause as long as a call.
SLICE_S, LONGEST_SLICE_S = 10.0, 60.0
CALLS_A_SLICE, MOST_SLICE_S = 20, 600.0
# A slice ends when the endpoint's definition or key has changed; how often that is checked.
REDEFINED_S = 2.0
# A worker that is stopping waits so long for calls in flight, because they are paid. Most calls take less.
STOP_S = 60.0


class _Live(Sequence[ClaimedTask]):
    """A live view of the tasks that are leased at the moment."""

    def __init__(self, tasks: dict[int, ClaimedTask]) -> None:
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, place: Any) -> Any:
        return list(self._tasks.values())[place]

    def __iter__(self) -> Iterator[ClaimedTask]:
        return iter(list(self._tasks.values()))


_starting = threading.Lock()
_busy: set[int] = set()


def converse(annotator: Annotator, judge: ConversingJudge, *, worker: str) -> tuple[int, bool]:
    """Judge for one slice with as many calls in flight as all workers together may have.

    Returns how many questions were answered and whether there is more to ask; (0, False) where another thread of this
    process keeps the judge busy already.
    """
    with _alone(annotator.pk) as is_alone:
        if not is_alone:
            return 0, False
        pump = Pump(annotator, judge, worker=worker)
        return pump.run(), pump.is_unfinished


@contextlib.contextmanager
def _alone(annotator_id: int) -> Iterator[bool]:
    """Whether no other thread of this process keeps this judge busy: one does as well as many, with less to store."""
    with _starting:
        is_alone = annotator_id not in _busy
        _busy.add(annotator_id)
    try:
        yield is_alone
    finally:
        if is_alone:
            _busy.discard(annotator_id)


def _others_wait(annotator_id: int) -> bool:
    """Whether a judge of the same queue has open questions that no thread of this process asks."""
    mine = queue_of("judge", annotator_id)
    waiting = [pk for pk, _ in queue.open_tasks_by_annotator() if pk not in _busy]
    return any(queue_of("judge", pk) == mine for pk in waiting)


@dataclass
class Pump:
    """One slice of one judge's work in one process."""

    annotator: Annotator
    judge: ConversingJudge
    worker: str
    channel: Channel = field(init=False)
    # By a number of the claim: after its lease has run out, a task can be claimed again while its first call continues.
    leased: dict[int, ClaimedTask] = field(default_factory=dict)
    answered: int = 0
    _hinted_at: float = -math.inf
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.channel = self.judge.channel()

    @property
    def is_unfinished(self) -> bool:
        """Whether the slice ended although there was more to ask."""
        return self._is_over and not self._is_dry

    def run(self) -> int:
        """Ask until there is nothing to ask, others wait, or the worker stops; returns how many were answered."""
        self._conversation: Conversation = self.judge.converse()
        self._conversation.on_answer = self._keep
        self._began = self._asked_at = self._dry_at = time.monotonic()
        self._is_dry = self._is_over = False
        self._look_at, self._compare_at = 0.0, self._began + REDEFINED_S
        self._per_s, self._round_s, self._stored_at = 0.0, ROUND_S, time.monotonic()
        self._stop_at = math.inf
        holder = f"{self.worker}:{threading.get_ident()}"
        self._presence = Presence(self.channel, holder, self._conversation)
        with held(_Live(self.leased)):
            try:
                self._presence.visit(wanted=self.channel.limits.concurrency)
                while self._round():
                    pass
            except Exception as error:
                # The calls in flight are paid, whatever went wrong: their answers go to the disk at least.
                self._drain(error)
                raise
            finally:
                self._leave()
        return self.answered

    # --- rounds --------------------------------------------------------------------------

    def _round(self) -> bool:
        """Claim, take, record, visit; False when it is over."""
        began = time.monotonic()
        if is_stopping():
            self._stop_at = min(self._stop_at, began + STOP_S)
        self._is_over = self._is_over or self._should_end(began)
        if self._is_over:
            self._conversation.hand_back("the worker ends its slice")
        else:
            self._top_up()
        self._take()
        if time.monotonic() >= self._presence.renew_at or self._conversation.is_urgent:
            self._presence.visit(wanted=self._wanted())
        if self._conversation.unanswered:
            return time.monotonic() < self._stop_at
        return not self._is_over and self._goes_on(time.monotonic())

    def _should_end(self, now: float) -> bool:
        lasted, slice_s = now - self._began, self._slice_s()
        is_long = lasted > max(LONGEST_SLICE_S, slice_s) or (lasted > slice_s and self._others_wait(now))
        return is_stopping() or is_long or self._is_redefined(now)

    def _is_redefined(self, now: float) -> bool:
        """Whether the endpoint has another address, key or limits than at the beginning of the slice, or none any more."""
        if now < self._compare_at:
            return False
        self._compare_at = now + REDEFINED_S
        try:
            return self.judge.channel() != self.channel
        except (LookupError, ValueError):  # retired, or its key is missing: the next slice reports it
            return True

    def _slice_s(self) -> float:
        """Length of a slice. Its end costs about the time of one call, estimated from calls in flight and answers a second."""
        call_s = self._presence.grant.slots / self._per_s if self._per_s > 0.01 else 0.0
        return min(MOST_SLICE_S, max(SLICE_S, CALLS_A_SLICE * call_s))

    def _others_wait(self, now: float) -> bool:
        if now < self._look_at:
            return False
        self._look_at = now + SLICE_S / 2
        return _others_wait(self.annotator.pk)

    def _goes_on(self, now: float) -> bool:
        """Whether more can be asked soon; called while no call is in flight."""
        grant = self._presence.grant
        if self._is_dry or grant.closed_s > PATIENCE_S:
            return False
        if grant.slots == 0 or grant.requests == 0 or grant.closed_s > 0.0:
            if now - self._asked_at > PATIENCE_S:
                return False
            time.sleep(max(0.0, self._presence.renew_at - now))
        return True

    def _top_up(self) -> None:
        """Claim as many tasks as there is room for, and some ahead."""
        now = time.monotonic()
        room = self._window() - self._conversation.unanswered
        if room < max(1, self._window() // 8) or (self._is_dry and now < self._dry_at + ROUND_S):
            return
        tasks = self._claim(room)
        # A judge that has to prove itself gets few at a time, and none before some of those are answered.
        is_held_back = self._is_on_trial(tasks or _Live(self.leased))
        self._is_dry, self._dry_at = len(tasks) < room and not is_held_back, now
        if tasks:
            self._asked_at = now
            self._ask(tasks)

    def _claim(self, limit: int) -> list[ClaimedTask]:
        """Lease up to `limit` tasks; where there were as many, hint now and then that other processes may join in."""
        tasks = queue.claim(annotator_id=self.annotator.pk, worker=self.worker, limit=limit, careful=True)
        if len(tasks) == limit and time.monotonic() > self._hinted_at + INVITING_S:
            self._hinted_at = time.monotonic()
            leave_hint("judge", self.annotator.pk)
        return tasks

    def _is_on_trial(self, tasks: Sequence[ClaimedTask]) -> bool:
        since = self.annotator.watched_from or self.annotator.created_at
        return not all(trouble.is_proven(task.run_id, self.annotator.pk, since) for task in tasks)

    def _ask(self, tasks: Sequence[ClaimedTask]) -> None:
        """Ask about these tasks. If the database is unreachable they are released; a task that cannot be read fails."""
        numbered = {next(self._numbers): task for task in tasks}
        self.leased.update(numbered)
        try:
            comparisons, failed = self._read(numbered)
        except Error as error:
            if not is_lost(error):
                raise
            unasked = NotAsked(FailureKind.JUDGE_ERROR, f"not asked: {error}", retryable=True)
            self._store_if_possible([(number, unasked) for number in numbered])
            raise
        if failed:
            self._store(failed)
        failpoints.reach("call.before")
        self._conversation.put(comparisons)

    def _read(self, numbered: dict[int, ClaimedTask]) -> tuple[list[Comparison], list[tuple[int, Failure]]]:
        """The comparisons of these tasks, and the failures of those that cannot be read (found by halving the list).

        Such a failure counts as an attempt: if it were released, a task with bad data would be claimed for ever.
        """
        try:
            read = questions.comparisons_of(self.annotator.project_id, list(numbered.values()))
            return [dataclasses.replace(each, key=key) for key, each in zip(numbered, read, strict=True)], []
        except Exception as error:  # one bad task must not fail the others
            if is_lost(error):
                raise
            if len(numbered) == 1:
                log.exception("a question to %s cannot be read", self.channel.name)
                reason = f"{type(error).__name__}: {error}"
                return [], [(key, Failure(FailureKind.JUDGE_ERROR, reason, retryable=True)) for key in numbered]
        items, half = list(numbered.items()), len(numbered) // 2
        first, second = self._read(dict(items[:half])), self._read(dict(items[half:]))
        return first[0] + second[0], first[1] + second[1]

    def _window(self) -> int:
        """The number of tasks to hold: one for each slot, and some more to ask while answers are stored."""
        grant, calls = self._presence.grant, self.judge.calls_per_comparison
        if grant.slots == 0 or grant.closed_s > 0.0:
            return 0
        if grant.is_down:
            return 1
        ahead = min(MOST_AHEAD, max(grant.slots // calls, math.ceil(2 * max(ROUND_S, self._round_s) * self._per_s)))
        window = max(1, grant.slots // calls) + ahead
        if self.channel.limits.rpm:
            window = min(window, max(1, math.ceil(self.channel.limits.rpm / 60 * RATE_AHEAD_S / calls)))
        return window

    def _wanted(self) -> int:
        """The number of slots that this process can use."""
        if self._is_over or self._is_dry:
            return min(self.channel.limits.concurrency, self._conversation.unanswered * self.judge.calls_per_comparison)
        return self.channel.limits.concurrency

    def _take(self) -> None:
        """Wait for the answers of one round and store them."""
        if not self._conversation.unanswered:
            return
        left = max(0.0, min(ROUND_S, self._presence.renew_at - time.monotonic()))
        answers = self._conversation.take(enough=STORED_AT_ONCE, timeout_s=left)
        if answers:
            self._store(answers)
            now = time.monotonic()
            lasted, self._stored_at = max(1e-3, now - self._stored_at), now
            self._round_s += 0.3 * (lasted - self._round_s)
            self._per_s += 0.3 * (len(answers) / lasted - self._per_s)

    def _keep(self, key: int, answer: Verdict | Failure) -> None:
        """Hand an answer to the disk the moment it has come; from then on the process may crash."""
        failpoints.reach("call.answered")
        recorder.keep(self.leased[key], answer)

    def _store(self, answers: Sequence[tuple[int, Verdict | Failure]]) -> None:
        """Store answers. Their leases are extended until the database has them."""
        answered = [(self.leased[key], answer) for key, answer in answers]
        self.answered += recorder.store(answered, spooled=True)
        watch_now_and_then(self.annotator)
        for key, _ in answers:
            self.leased.pop(key)

    def _store_if_possible(self, answers: Sequence[tuple[int, Verdict | Failure]]) -> None:
        """Store answers after an error; a second error is only logged."""
        try:
            self._store(answers)
        except Exception as error:
            log.warning("%d answers of %s not stored yet: %s", len(answers), self.channel.name, error)

    def _drain(self, error: Exception) -> None:
        """End the slice after an error: begin no call, and store the answers of the calls in flight as far as possible.

        Answers that cannot be stored are on disk (`_keep`).
        """
        self._conversation.hand_back(f"the slice breaks off: {type(error).__name__}")
        until = time.monotonic() + self.channel.limits.timeout_s
        while self._conversation.unanswered and time.monotonic() < until:
            self._store_if_possible(self._conversation.take(enough=STORED_AT_ONCE, timeout_s=1.0))

    def _leave(self) -> None:
        """Give the slots back."""
        self._conversation.hand_back("the worker ends its slice")
        if self._conversation.unanswered:
            log.warning("%d calls to %s were not waited for", self._conversation.unanswered, self.channel.name)
        self._presence.leave()
