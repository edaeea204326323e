"""Shadow requests and the request log, after the answer: one thread per process, with a bounded queue.

`offer` never waits: if too much is waiting, the request is counted as dropped instead. The ranking server computes shadow
requests only while it has nothing else to do.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, close_old_connections, connection, transaction
from django.db.models import F

from trainer.deployments.request_log import Answered, answered, to_log, trim
from trainer.deployments.routing import Route
from trainer.deployments.shares import agreement
from trainer.models import Deployment, ShadowResult
from trainer.serving.model_cache import Artefact

MOST_WAITING = 256
MOST_WAITING_BYTES = 64 << 20
TRIM_EVERY = 200
log = logging.getLogger(__name__)

# Computes a body of /v1/rerank in the background: the answer, or None if the ranking server had no time for it.
Compute = Callable[[Artefact, bytes], Any]


@dataclass(frozen=True, slots=True)
class Handled:
    """One request that was answered with status 200."""

    route: Route
    path: str
    content: bytes
    reply: bytes
    milliseconds: int

    @property
    def size(self) -> int:
        return len(self.content) + len(self.reply)


class Recorder:
    """Takes answered requests of deployments, and stores or compares them in its own thread."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._queue: queue.SimpleQueue[Handled] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._open = 0
        self._bytes = 0
        self._stored = 0
        self._dropped: Counter[int] = Counter()

    def offer(self, handled: Handled) -> None:
        """Take a request if its route is to be stored or compared. Returns at once."""
        route = handled.route
        if route.deployment_id is None or not (route.is_logged or route.shadow is not None):
            return
        with self._lock:
            if self._open >= MOST_WAITING or self._bytes + handled.size > MOST_WAITING_BYTES:
                self._dropped[route.deployment_id] += 1
                return
            self._open += 1
            self._bytes += handled.size
            if self._thread is None or not self._thread.is_alive():  # a fork has no threads
                self._thread = threading.Thread(target=self._work, daemon=True, name="recorder")
                self._thread.start()
        self._queue.put(handled)

    def wait(self, *, seconds: float) -> bool:
        """Whether everything that was offered has been handled within some seconds."""
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            time.sleep(0.01)
        return not self._open

    def _work(self) -> None:
        while True:
            handled = self._queue.get()
            try:
                close_old_connections()
                self.handle(handled)
            except Exception:  # a lost log entry must not end the thread
                log.exception("a request could not be stored or compared")
            finally:
                if self._queue.empty():
                    connection.close()  # none is held while nothing is to do
                with self._lock:
                    self._open -= 1
                    self._bytes -= handled.size

    def handle(self, handled: Handled) -> None:
        """Store and compare one request."""
        route = handled.route
        request = answered(handled.path, handled.content, handled.reply)
        if route.deployment_id is None or request is None:
            return
        try:
            with transaction.atomic():
                if route.is_logged:
                    to_log(request, route, milliseconds=handled.milliseconds).save()
            if route.shadow is not None:
                self._compare(handled, request)
            self._stored += 1
            if self._stored % TRIM_EVERY == 0:
                trim(route.deployment_id)
            self._report_dropped()
        except IntegrityError:
            log.info("a request was not stored: its deployment or reranker has been deleted")

    def _compare(self, handled: Handled, request: Answered) -> None:
        """Let the shadow compute the request, and store how its order differs."""
        route = handled.route
        if route.shadow is None or route.deployment_id is None:
            return
        body = json.dumps({"query": request.query, "documents": list(request.documents)}).encode()
        began = time.monotonic()
        found = self._compute(route.shadow.artefact, body)
        if found is None:
            with self._lock:
                self._dropped[route.deployment_id] += 1
            return
        scores = {row["index"]: row["relevance_score"] for row in found["results"]}
        tau, same = agreement(request.scores, scores)
        ShadowResult.objects.create(
            deployment_id=route.deployment_id,
            reranker_id=route.version.reranker_id,
            shadow_id=route.shadow.reranker_id,
            documents=len(request.documents),
            tau=tau,
            same_top=same,
            milliseconds=handled.milliseconds,
            shadow_milliseconds=round((time.monotonic() - began) * 1000),
        )

    def _report_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, Counter()
        for pk, count in dropped.items():
            Deployment.objects.filter(pk=pk).update(dropped=F("dropped") + count)
