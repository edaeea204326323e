"""Memory during training: detects exhaustion, frees memory, and measures its use. Imports no Django."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

import torch

from labeling.plugins import Report
from labeling.records import Trained

BATCH_FILE = "batch.json"


class OutOfMemory(MemoryError):
    """Memory does not suffice for a single row."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that memory of the GPU or the machine ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_in_use() -> int:
    """Peak memory in bytes, of the GPU or, without one, of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def with_less_memory(
    attempt: Callable[[int], Trained], *, most: int, what: str, workspace: Path, report: Report
) -> Trained:
    """Return `attempt(most)`; halve `most`, the number of texts (`what`) computed at once, while memory runs out.

    The workspace keeps the number for a resumed training. Raises OutOfMemory.
    """
    kept = workspace / BATCH_FILE
    if kept.exists():
        most = int(json.loads(kept.read_text())["most"])
    while True:
        try:
            return attempt(most)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        free_memory()
        if most <= 1:
            raise OutOfMemory(
                f"out of memory with one {what} at a time ({problem}); choose a shorter max_length, gradient_checkpointing, bf16 "
                "or a smaller base"
            )
        most //= 2
        kept.write_text(json.dumps({"most": most}))
        report("out_of_memory", batch_size=most, accumulation=1, problem=problem[:300])
