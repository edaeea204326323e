"""Rerankers of a project from a published folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scoring.storage.files import storage
from trainer.models import Reranker
from trainer.publishing.manifests import MANIFEST, file_checksum
from trainer.serving.registry import TRAINED


def store(folder: Path, project: Any, name: str = "fish") -> Reranker:
    location = f"rerankers/{project.slug}/{name}"
    storage().upload_folder(folder, location)
    manifest = json.loads((folder / MANIFEST).read_text())
    return Reranker.objects.create(
        project=project,
        name=name,
        kind=TRAINED,
        location=location,
        checksum=file_checksum(folder / MANIFEST),
        manifest=manifest,
    )
