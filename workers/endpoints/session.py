"""The presence of one process at one endpoint: it visits `workers.endpoints.limiter`, uses its grants, and leaves.

`workers.judging.streaming` uses it for the queue, and the injection probe for calls beside the queue under the same limits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import Error

from labeling.plugins import Judge
from labeling.records import Comparison, Failure, Verdict
from workers.endpoints import limiter
from workers.endpoints.conversation import Conversation, ConversingJudge
from workers.endpoints.gates import Channel, Grant

log = logging.getLogger(__name__)

ROUND_S = 0.25


@dataclass
class Presence:
    """A conversation and its grant; `renew_at`: when the next visit is due, by time.monotonic()."""

    channel: Channel
    holder: str
    conversation: Conversation
    grant: Grant = field(default_factory=lambda: Grant(epoch=-1, slots=0))
    renew_at: float = 0.0

    def visit(self, *, wanted: int) -> None:
        """Report to the other processes, and draw the next grant. Raises django.db.Error."""
        asked_at = time.monotonic()
        report = self.conversation.report(wanted)
        try:
            self.grant = limiter.visit(self.channel, self.holder, report)
        except Error:
            self.conversation.take_back(report)
            raise
        self.conversation.apply(self.grant, asked_at)
        self.renew_at = asked_at + self.grant.renew_s

    def leave(self) -> None:
        """Give the slots back; if the database is unreachable, they expire."""
        try:
            limiter.leave(self.channel, self.holder, self.conversation.report(0))
        except Error as error:
            log.warning("cannot give back the slots of endpoint %s: %s", self.channel.name, error)


def ask_within_limits(judge: Judge, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
    """As `judge.judge`, within the limits shared by all processes. The comparisons must have different keys."""
    channel: Channel | None = None
    if isinstance(judge, ConversingJudge):
        with contextlib.suppress(LookupError, ValueError):  # the judge's own answers report the error
            channel = judge.channel()
    if channel is None or not isinstance(judge, ConversingJudge):
        return judge.judge(comparisons)
    conversation = judge.converse()
    holder = f"{socket.gethostname()}:{os.getpid()}:beside:{threading.get_ident()}"
    presence = Presence(channel, holder, conversation)
    answers: dict[int, Verdict | Failure] = {}
    try:
        presence.visit(wanted=len(comparisons))
        conversation.put(comparisons)
        while conversation.unanswered:
            answers |= conversation.take(enough=len(comparisons), timeout_s=ROUND_S)
            if conversation.is_urgent or time.monotonic() >= presence.renew_at:
                presence.visit(wanted=min(channel.limits.concurrency, conversation.unanswered))
    finally:
        conversation.hand_back("not waited for")
        presence.leave()
    return [answers[comparison.key] for comparison in comparisons]
