"""A host's cache about the forms of a reranker: its choice, and files made for engines. Imports no Django."""

from __future__ import annotations

import atexit
import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.publishing.manifests import MANIFEST, file_checksum, verify
from trainer.serving.forms.choice import Choice, choice_from, choose
from trainer.serving.forms.lists import FOLDER, read_lists

CHOICE = "choice.json"


def choice_here(model: Any, folder: Path, manifest: Mapping[str, Any], cache: Path | None) -> Choice | None:
    """The choice of forms on this host: the manifest's if it was made on such a processor, the cache's, or a new one.

    None for a reranker that was published without lists. Raises ManifestBroken.
    """
    published = choice_from(manifest.get("forms"))
    if published is None or published.is_from_here:
        return published
    file = files_of(folder, cache) / CHOICE
    kept = choice_from(json.loads(file.read_text())) if file.is_file() else None
    if kept is not None and kept.is_from_here:
        return kept
    verify(folder, artefact=FOLDER)
    found = choose(model, read_lists(folder), file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(found.as_dict()))
    draft.replace(file)
    return found


def files_of(folder: Path, cache: Path | None) -> Path:
    """The host's folder for the files of a published reranker's forms."""
    return (cache or _own_folder()) / "forms" / file_checksum(folder / MANIFEST)


@functools.cache
def _own_folder() -> Path:
    """A private folder of this process, removed at its end."""
    folder = tempfile.TemporaryDirectory(prefix="zelo-forms-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
