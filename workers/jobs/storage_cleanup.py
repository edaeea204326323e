"""Takes away what dead processes left half-written in the storage (`scoring.storage.write_guards`), unless a row names it."""

from __future__ import annotations

import logging
import math
import time

from django.db import Error

from scoring.models import Snapshot
from scoring.storage import write_guards
from trainer.models import Reranker

log = logging.getLogger(__name__)

# A storage that is away, or refuses, is asked again after so long: whoever collects has other work.
AGAIN_S = 60.0
_again_at = -math.inf


def collect_unfinished() -> list[str]:
    """Folders that were removed. What the storage raises is logged alone; what is left is collected later."""
    global _again_at
    if time.monotonic() < _again_at:
        return []
    try:
        return write_guards.collect(_is_used)
    except Error:
        raise
    except Exception as error:  # every kind of storage has errors of its own, and nothing of this is urgent
        _again_at = time.monotonic() + AGAIN_S
        log.warning("what dead processes left unfinished is not removed yet: %s: %s", type(error).__name__, error)
        return []


def _is_used(folder: str) -> bool:
    return any(model.objects.filter(location=folder).exists() for model in (Snapshot, Reranker))
