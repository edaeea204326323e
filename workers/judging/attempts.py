"""Writes into `Attempt` what came of the calls; `workers.judging.queue` stores a row for each before it is made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from labeling.database import Cursor, names_and_places
from labeling.records import Failure, Verdict
from workers.endpoints.failures import Excused

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 2000
LONGEST_LOGGED = 300


class Asked(Protocol):
    """A task as it was claimed."""

    @property
    def id(self) -> int: ...

    @property
    def fence(self) -> int: ...

    @property
    def run_id(self) -> int: ...

    @property
    def annotator_id(self) -> int: ...


def storable(text: str) -> str:
    """The text without what PostgreSQL refuses: NUL becomes a space, a lone surrogate a question mark."""
    return text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")


_CALLS = """
(
    SELECT task_id, fence, call, (%(names)s::text[])[outcome] AS outcome, input_tokens, output_tokens, cost_micros,
           NULLIF(latency_ms, -1) AS latency_ms, COALESCE(message, '') AS message, is_retryable, is_outage
    FROM unnest(%(tasks)s::bigint[], %(fences)s::bigint[], %(calls)s::bigint[], %(outcomes)s::bigint[], %(inputs)s::bigint[],
                %(outputs)s::bigint[], %(costs)s::bigint[], %(latencies)s::bigint[], %(messages)s::text[], %(retryable)s::bool[],
                %(outages)s::bool[])
    AS told (task_id, fence, call, outcome, input_tokens, output_tokens, cost_micros, latency_ms, message, is_retryable, is_outage)
) AS reported
"""

_CLOSE = f"""
UPDATE workers_attempt attempt
SET outcome = reported.outcome, input_tokens = reported.input_tokens, output_tokens = reported.output_tokens,
    cost_micros = reported.cost_micros, latency_ms = reported.latency_ms, message = reported.message,
    is_retryable = reported.is_retryable, is_outage = reported.is_outage,
    finished_at = CASE WHEN attempt.outcome IN ('', 'lost', 'reserved') THEN clock_timestamp() ELSE attempt.finished_at END
FROM {_CALLS}
WHERE attempt.task_id = reported.task_id AND attempt.fence = reported.fence AND attempt.call = reported.call
"""

# The claim stored the first call. Further calls of the same question join it, if it is still stored.
_BOOK_FURTHER = f"""
INSERT INTO workers_attempt (task_id, fence, call, run_id, annotator_id, outcome, input_tokens, output_tokens,
                             cost_micros, latency_ms, message, is_retryable, is_outage, started_at, finished_at)
SELECT reported.task_id, reported.fence, reported.call, booked.run_id, booked.annotator_id, reported.outcome, reported.input_tokens,
       reported.output_tokens, reported.cost_micros, reported.latency_ms, reported.message, reported.is_retryable,
       reported.is_outage, booked.started_at, clock_timestamp()
FROM {_CALLS}
JOIN workers_attempt booked ON booked.task_id = reported.task_id AND booked.fence = reported.fence AND booked.call = 1
WHERE reported.call > 1
ON CONFLICT DO NOTHING
"""


def close_attempts(cursor: Cursor, outcomes: Sequence[tuple[Asked, Verdict | Failure]]) -> None:
    """Write what came of the calls, a row for each that was really made."""
    rows = [
        (task, answer, number, call)
        for task, answer in outcomes
        for number, call in enumerate(answer.usage.calls or (answer.usage,), start=1)
    ]
    failures = [answer if isinstance(answer, Failure) else None for _, answer, _, _ in rows]
    names, outcomes_at = names_and_places([answer.kind.value for _, answer, _, _ in rows])
    reported: dict[str, Any] = {
        "names": names,
        "outcomes": outcomes_at,
        "tasks": _integers([task.id for task, _, _, _ in rows]),
        "fences": _integers([task.fence for task, _, _, _ in rows]),
        "calls": _integers([number for _, _, number, _ in rows]),
        "inputs": _integers([call.input_tokens for _, _, _, call in rows]),
        "outputs": _integers([call.output_tokens for _, _, _, call in rows]),
        "costs": _integers([call.cost_micros for _, _, _, call in rows]),
        "latencies": _integers([round(call.latency_s * 1000) if call.latency_s else -1 for _, _, _, call in rows]),
        # None stands for no message in every row.
        "messages": [storable(each.message[:LONGEST_MESSAGE]) if each else "" for each in failures]
        if any(failures)
        else None,
        "retryable": np.array([bool(each and each.retryable) for each in failures], dtype=np.bool_),
        "outages": np.array([isinstance(each, Excused) and each.retryable for each in failures], dtype=np.bool_),
    }
    cursor.execute(_CLOSE, reported)
    if len(rows) > len(outcomes):
        cursor.execute(_BOOK_FURTHER, reported)


def _integers(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def log_failures(failures: Sequence[tuple[Asked, Failure]]) -> None:
    """Log the failed call of each question with its reason."""
    for task, failure in failures:
        log_failure(failure, judge=task.annotator_id, run=task.run_id, task=task.id)


def log_failure(failure: Failure, *, judge: int, **fields: int) -> None:
    """Log a failed call of a judge; `fields` are those of `zelo_site.operations.logs` that its line has too."""
    reason, message = failure.kind.value, " ".join(failure.message[:LONGEST_LOGGED].split())
    more = {"reason": reason, "retryable": failure.retryable, "outage": isinstance(failure, Excused)}
    log.warning("call of judge %d failed: %s: %s", judge, reason, message, extra={"judge": judge, **fields, **more})
