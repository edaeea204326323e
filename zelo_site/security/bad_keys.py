"""Guessing of API keys: an address that sent too many bad keys waits, except with keys that this process has seen to be valid.

The counts live in the process: they are limits of load, not of luck; a key has 256 random bits.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse

from trainer.serving.protocols import RerankRefused, dialect_of, error_body
from zelo_site.api.conventions.problems import problem

MOST_BAD_KEYS, WINDOW_S = 20, 60.0
# Entries kept; the oldest are forgotten first.
MOST_ENTRIES = 10_000


class BadKeysMiddleware:
    """Answers 429, before sessions and the database are asked, to unknown keys from an address that guesses."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._valid: OrderedDict[bytes, None] = OrderedDict()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        key = request.META.get("HTTP_AUTHORIZATION", "")
        if not key:
            return self.get_response(request)
        digest, address = hashlib.sha256(key.encode()).digest(), request.META.get("REMOTE_ADDR", "")
        wait_s = self._wait_s(address, digest)
        if wait_s > 0:
            text = f"too many requests with bad keys from your address; wait {wait_s:.0f} s and correct the key"
            is_rest = request.path_info.startswith("/api/")
            body = error_body(dialect_of(request.path_info), RerankRefused(429, text))
            refused = problem(request, 429, text) if is_rest else JsonResponse(body, status=429)
            refused["Retry-After"] = str(int(wait_s) + 1)
            return refused
        response = self.get_response(request)
        failed = response.status_code == 401
        if failed or getattr(request, "has_valid_key", False):  # a page without keys says nothing of the key
            self._note(address, digest, failed=failed)
        return response

    def _wait_s(self, address: str, digest: bytes) -> float:
        with self._lock:
            since, count = self._failures.get(address, (0.0, 0))
            if count < MOST_BAD_KEYS or digest in self._valid:
                return 0.0
            return max(0.0, since + WINDOW_S - time.monotonic())

    def _note(self, address: str, digest: bytes, *, failed: bool) -> None:
        now = time.monotonic()
        with self._lock:
            if not failed:
                self._valid[digest] = None
                self._valid.move_to_end(digest)
            else:
                self._valid.pop(digest, None)
                since, count = self._failures.pop(address, (now, 0))
                self._failures[address] = (now, 1) if now > since + WINDOW_S else (since, count + 1)
            for kept in (self._failures, self._valid):
                while len(kept) > MOST_ENTRIES:
                    kept.popitem(last=False)
