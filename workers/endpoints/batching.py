"""Contract of judges whose questions can be sent in batches: the provider's files and batches, limits, results.

Providers answer a batch of requests within a day at a lower price. `workers.judging.provider_batches` forms the batches
and follows them; the judge `openai-http` implements the protocols. Imports no Django.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

from labeling.records import Comparison, Failure, FailureKind, Verdict

# The marker of a batch, so that it is found again after a crash or a lost reply.
MARKER = "zelo_batch"
# Codes of lines that were not processed before the batch ended. They cost nothing.
UNPROCESSED = {"batch_expired", "batch_cancelled", "batch_canceled"}


class BatchCallFailed(Exception):
    """A call to /files or /batches failed. `is_unknown`: the provider may have carried it out all the same."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        retryable: bool,
        is_unknown: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.code = code
        self.retryable = retryable
        self.is_unknown = is_unknown
        self.retry_after_s = retry_after_s


_STATUS = re.compile(r"[^a-z]+")
# Beginnings of the states in which a batch ends, at any provider, and the end that each is.
_ENDS = (
    (("complete", "succe", "done", "finish", "ended"), "completed"),
    (("cancel", "abort"), "cancelled"),
    (("expir", "time"), "expired"),
    (("error", "fail", "invalid", "reject", "refus"), "failed"),
)
# A batch that is on its way to its end: "cancelling", "cancellation_requested", "finalizing".
_ON_ITS_WAY = re.compile(r"ing\Z|request|pending|queued|progress")


def batch_status(stated: str) -> str:
    """The state of a batch in OpenAI's words: completed, failed, expired or cancelled; any other as it is stated, lower case."""
    words = _STATUS.sub("_", stated.lower()).strip("_")
    word = words.removeprefix("job_state_").removeprefix("batch_state_").removeprefix("state_")
    if not _ON_ITS_WAY.search(word):
        for beginnings, end in _ENDS:
            if word.startswith(beginnings):
                return end
    return word


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Limits of one batch: `requests`, `size` in bytes, `tokens` of all batches out at once (None: no limit).

    A batch is sent when it is full, or when its oldest question has waited `wait_s`; its state is read every `poll_s`.
    """

    requests: int
    size: int
    tokens: int | None
    wait_s: float
    poll_s: float


@dataclass(frozen=True, slots=True)
class BatchError:
    """An error of a whole batch, or of one `line` (from 1) of its file."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its provider describes it. `marker` is what we created it with, empty for a batch of somebody else."""

    id: str
    status: str
    marker: str = ""
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    errors: tuple[BatchError, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def is_over(self) -> bool:
        return self.status in {"completed", "failed", "expired", "cancelled"}


@dataclass(frozen=True, slots=True)
class BatchQuestion:
    """The body of one request, and upper bounds of its tokens and of its cost in millionths of a dollar."""

    body: dict[str, Any]
    input_tokens: int
    output_tokens: int
    cost_micros: int


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line of a result file: an HTTP `status` and `body`, or an error `code` and no status."""

    custom_id: str
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    message: str = ""

    @property
    def is_unprocessed(self) -> bool:
        return self.code in UNPROCESSED


class BatchApi(Protocol):
    """The files and batches of one provider. All methods raise BatchCallFailed."""

    def upload(self, name: str, content: BinaryIO, *, timeout_s: float) -> str:
        """Upload a file of requests; returns its id."""
        ...

    def find_file(self, name: str) -> str:
        """The id of the uploaded file with this name; "" where there is none."""
        ...

    def create(self, file_id: str, marker: str, *, timeout_s: float) -> RemoteBatch:
        """Create a batch of an uploaded file. From here on it costs."""
        ...

    def find_batch(self, marker: str, file_id: str) -> RemoteBatch | None:
        """The batch with this marker or of this file, if there is one."""
        ...

    def retrieve(self, batch_id: str) -> RemoteBatch: ...

    def cancel(self, batch_id: str) -> None: ...

    def lines(self, file_id: str) -> Iterator[BatchLine | None]:
        """The lines of a result file in the provider's order; None for an unreadable one."""
        ...

    def delete_file(self, file_id: str) -> None: ...


@runtime_checkable
class BatchingJudge(Protocol):
    """A judge whose questions may be sent in batches."""

    @property
    def is_batched(self) -> bool:
        """Whether its questions are to be sent in batches rather than one by one."""
        ...

    def batch_channel(self) -> tuple[str, str, BatchLimits, BatchApi]:
        """(endpoint, model, limits, api). Raises LookupError or ValueError where the endpoint cannot be called."""
        ...

    def batch_question(self, comparison: Comparison) -> BatchQuestion: ...

    def batch_answer(self, comparison: Comparison, line: BatchLine) -> Verdict | Failure:
        """The answer that a line of a result file holds."""
        ...
