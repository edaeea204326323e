"""Takes away what dead processes left half-written in the storage (`scoring.unfinished`), unless a row names it."""

from __future__ import annotations

from scoring import unfinished
from scoring.models import Snapshot
from trainer.models import Reranker


def collect_unfinished() -> list[str]:
    """Folders that were removed."""
    return unfinished.collect(_is_used)


def _is_used(folder: str) -> bool:
    return any(model.objects.filter(location=folder).exists() for model in (Snapshot, Reranker))
