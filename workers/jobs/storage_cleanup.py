"""Deletes unfinished uploads of crashed processes from the storage, unless a row names them (`scoring.storage.write_guards`)."""

from __future__ import annotations

import logging
import math
import time

from django.db import Error

from scoring.models import Snapshot
from scoring.storage import write_guards
from trainer.models import Reranker

log = logging.getLogger(__name__)

# After an error of the storage the next try waits so long: the caller has other work.
AGAIN_S = 60.0
_again_at = -math.inf


def collect_unfinished() -> list[str]:
    """Delete unfinished uploads; returns the deleted folders. An error of the storage is only logged."""
    global _again_at
    if time.monotonic() < _again_at:
        return []
    try:
        return write_guards.collect(_is_used)
    except Error:
        raise
    except Exception as error:  # every kind of storage has errors of its own, and nothing of this is urgent
        _again_at = time.monotonic() + AGAIN_S
        log.warning("unfinished uploads of crashed processes are not deleted yet: %s: %s", type(error).__name__, error)
        return []


def _is_used(folder: str) -> bool:
    return any(model.objects.filter(location=folder).exists() for model in (Snapshot, Reranker))
