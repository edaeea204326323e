"""Loads models before requests need them: those that were loaded when the process ended, and those about to be deployed.

The list is a file, because the serving process has no database. Imports no Django.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from trainer.serving.embedding import LoadedEmbedder
from trainer.serving.model_cache import Artefact, NoMemory, WarmModels
from trainer.serving.published import LoadedModel

MOST_REMEMBERED = 20
REORDERED_EVERY_S = 60.0
TEXT = "Gills take oxygen from the water."
log = logging.getLogger(__name__)


class WarmUp:
    """Remembers which models are loaded, in `path`, and loads them at the next start. `is_over`: whether it has ended."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seen: dict[str, Artefact] = {each.key: each for each in self._read()}
        self._written_at = -REORDERED_EVERY_S
        self.is_over = not self._seen

    def note(self, artefact: Artefact) -> None:
        """Remember a loaded model, the latest last; the oldest are forgotten."""
        now = time.monotonic()
        if self._path is None or (artefact.key in self._seen and now - self._written_at < REORDERED_EVERY_S):
            return
        self._written_at = now
        self._seen.pop(artefact.key, None)
        self._seen[artefact.key] = artefact
        for key in list(self._seen)[:-MOST_REMEMBERED]:
            del self._seen[key]
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            draft.write_text(json.dumps([asdict(each) for each in self._seen.values()]))
            draft.replace(self._path)
        except OSError:
            log.warning("the list of loaded models could not be written to %s", self._path)

    def run(self, models: WarmModels) -> None:
        """Load the remembered models, the latest first, until memory is full; what fails is forgotten."""
        for artefact in list(reversed(self._seen.values())):
            try:
                with models.using(artefact) as model:
                    compute_once(model)
            except NoMemory:
                break
            except Exception:  # deleted or damaged since; a request for it says why
                log.warning("%s could not be loaded at the start", artefact.name)
                self._seen.pop(artefact.key, None)
        self.is_over = True

    def _read(self) -> Sequence[Artefact]:
        if self._path is None or not self._path.is_file():
            return []
        try:
            return [Artefact(**each) for each in json.loads(self._path.read_text())]
        except (OSError, ValueError, TypeError):
            return []


def compute_once(model: LoadedModel) -> None:
    """Let a model prepare itself, so that the first request does not pay for it."""
    if isinstance(model, LoadedEmbedder):
        model.logits(model.encode_texts([TEXT], role="document"))
        return
    model.prepare()
