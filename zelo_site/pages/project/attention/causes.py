"""Why calls and jobs fail, in words: for each cause what happens, when it is tried again, and what to do.

The cause is read from the kind and the message of a failure; the message itself is shown beside the words.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from django.utils.translation import gettext as _

from labeling.records import FailureKind


class Cause(enum.StrEnum):
    """A cause that operators know by name."""

    SERVER_ERROR = "server_error"
    UNREACHABLE = "unreachable"
    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    KEY_REFUSED = "key_refused"
    NO_CREDIT = "no_credit"
    GPU_MEMORY = "gpu_memory"
    DISK_FULL = "disk_full"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Words:
    """A cause for readers."""

    title: str
    what: str
    again: str
    todo: str


_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|exceed the memory of the device", re.IGNORECASE)
_NO_ROOM = re.compile(r"no space (?:is )?left|disk full|DiskFull|ENOSPC|quota exceeded on the disk", re.IGNORECASE)
_BAD_KEY = re.compile(r"HTTP 40[13]\b|correct the key", re.IGNORECASE)
_SERVER_ERROR = re.compile(r"HTTP 5\d\d\b")


def cause_of(kind: str, message: str) -> Cause:
    """Return the cause of a failure of this kind ("" for a job) with this message."""
    if _OUT_OF_MEMORY.search(message):
        return Cause.GPU_MEMORY
    if _NO_ROOM.search(message):
        return Cause.DISK_FULL
    if kind == FailureKind.TIMEOUT:
        return Cause.TIMEOUT
    if kind == FailureKind.RATE_LIMITED:
        return Cause.RATE_LIMIT
    if kind == FailureKind.OVER_BUDGET:
        return Cause.NO_CREDIT
    if kind == FailureKind.BAD_REQUEST and _BAD_KEY.search(message):
        return Cause.KEY_REFUSED
    if kind == FailureKind.UNAVAILABLE:
        return Cause.SERVER_ERROR if _SERVER_ERROR.search(message) else Cause.UNREACHABLE
    return Cause.OTHER


def words_of(cause: Cause) -> Words:
    """Return the words of a cause, for an endpoint that workers keep testing."""
    waits = _("Its questions wait. Answers are kept, and a failure never counts as a vote.")
    tested = _("A worker tests the endpoint with one call after each pause; the pauses grow to a minute at most.")
    return {
        Cause.SERVER_ERROR: Words(
            _("server error"), waits, tested, _("See the server’s log, and restart the server if it has crashed.")
        ),
        Cause.UNREACHABLE: Words(
            _("not reachable"), waits, tested, _("Check that the server runs and that the endpoint’s base_url is right.")
        ),
        Cause.RATE_LIMIT: Words(
            _("rate limited (HTTP 429)"),
            _("The provider limits the calls, so questions wait. Rejected calls cost nothing and count as no failure."),
            _("Calls resume automatically after the provider’s pause, with fewer at a time."),
            _("Nothing if the run may take longer. Otherwise ask the provider for a higher limit, or set the endpoint’s rpm and max_concurrency to what it allows."),
        ),
        Cause.TIMEOUT: Words(
            _("no answer in time"), waits, tested,
            _("Check the server’s load; lower the endpoint’s max_concurrency, or raise its timeout_s."),
        ),
        Cause.KEY_REFUSED: Words(
            _("key refused"), waits, tested,
            _("Replace the key on the endpoint’s page, or in the variable that ZELO_ENDPOINTS names; then test the judge."),
        ),
        Cause.NO_CREDIT: Words(
            _("no credit at the provider"), waits, tested, _("Add credit at the provider, or raise its spending limit.")
        ),
        Cause.GPU_MEMORY: Words(
            _("out of GPU memory"),
            _("The GPU is out of memory for this work. Earlier results are kept."),
            tested,
            _("Stop other programs on the GPU, or choose a smaller model, shorter documents (max_document_tokens, max_length) or fewer at a time (max_concurrency, batch_size)."),
        ),
        Cause.DISK_FULL: Words(
            _("disk full"),
            _("The disk is full. Earlier results are kept; nothing new can be stored."),
            _("Workers keep finished answers and try to store them again every minute. A failed job starts again with its button."),
            _("Free some space, or move ZELO_HOME or STORAGE_URL to a larger disk."),
        ),
        Cause.OTHER: Words(_("fails"), waits, tested, _("The message says what to change.")),
    }[cause]  # fmt: skip


def not_by_itself() -> str:
    """Return the sentence on something that nothing tries again."""
    return _("No automatic retry: this waits for you.")
