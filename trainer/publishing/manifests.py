"""The manifest of a published reranker: its description, its provenance, and the SHA-256 of every file.

It is written last, so a folder without one is unfinished, and every loader checks it first. `trainer.publishing.export`
writes it; `trainer.serving.loading` and the pages read it. Imports no Django.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
# The evaluation results, written after the manifest (see `trainer.evaluation.evaluation_files`).
EVALUATION = "evaluation.json"
FORMAT = 1
ADAPTER, MERGED, SEQUENCE_CLASSIFICATION = "adapter", "merged", "sequence_classification"
SENTENCE_TRANSFORMERS = "sentence_transformers"
ARTEFACTS = (ADAPTER, MERGED, SEQUENCE_CLASSIFICATION)
EMBEDDING_ARTEFACTS = (ADAPTER, MERGED, SENTENCE_TRANSFORMERS)
PAIRWISE_ARTEFACTS = (ADAPTER, MERGED)
CROSS_ENCODER, BI_ENCODER, PAIRWISE = "cross-encoder", "bi-encoder", "pairwise"
_SAFE = {".safetensors", ".json", ".md", ".txt", ".jinja", ".model", ".vocab", ".merges"}


class ManifestBroken(ValueError):
    """A folder differs from its manifest or has none: it is unfinished, damaged or was changed."""


def write_manifest(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Hash every file of `folder`, write the manifest last, and return it."""
    manifest = {"format": FORMAT, **about, "files": file_records(folder)}
    path = folder / MANIFEST
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    draft.rename(path)
    return manifest


def file_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below `folder` except manifest and evaluation, by relative path."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
        for path in _files(folder, folder)
    }


def _files(folder: Path, root: Path) -> list[Path]:
    """All files below `root` that a manifest of `folder` must name."""
    unlisted = {folder / MANIFEST, folder / EVALUATION}
    return [path for path in sorted(root.rglob("*")) if path.is_file() and path not in unlisted]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest; checks its form but not the files. Raises ManifestBroken."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ManifestBroken(
            f"{folder} has no {MANIFEST}; expected the folder of a published reranker; publish it again"
        ) from None
    except ValueError as error:
        raise ManifestBroken(f"{folder / MANIFEST} is not JSON ({error}); publish the reranker again") from error
    if not _is_ours(manifest):
        raise ManifestBroken(
            f"{folder / MANIFEST} does not have format {FORMAT}; publish the reranker with this version"
        )
    return manifest


def is_embedding(manifest: Mapping[str, Any]) -> bool:
    """Whether the folder holds an embedding student; manifests without a form are those of rerankers."""
    return manifest.get("form", CROSS_ENCODER) == BI_ENCODER


def is_pairwise(manifest: Mapping[str, Any]) -> bool:
    """Whether the folder holds a pairwise student, which judges pairs and does not rank."""
    return manifest.get("form", CROSS_ENCODER) == PAIRWISE


def _is_ours(manifest: Any) -> bool:
    """Whether it has the form that `write_manifest` gives it."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return False
    files, card = manifest.get("files"), manifest.get("card", {})
    if not isinstance(files, dict) or not isinstance(card, dict):
        return False
    return all(isinstance(each, dict) and {"bytes", "sha256"} <= each.keys() for each in files.values())


def verify(folder: Path, *, artefact: str | None = None) -> dict[str, Any]:
    """The manifest; compares every file (of one artefact) with it. Raises ManifestBroken.

    Also refuses files that the manifest does not name, because a loader would read them.
    """
    manifest = read_manifest(folder)
    prefix = f"{artefact}/" if artefact else ""
    expected = {name: record for name, record in manifest["files"].items() if name.startswith(prefix)}
    if not expected:
        raise ManifestBroken(
            f"{folder / MANIFEST} names no files of {artefact or 'a model'}; publish the reranker again"
        )
    root = folder / artefact if artefact else folder
    found = {path.relative_to(folder).as_posix() for path in _files(folder, root)}
    if found != set(expected):
        odd = sorted(found ^ set(expected))
        raise ManifestBroken(
            f"{folder}: {', '.join(odd[:3])} missing or not in the manifest; publish the reranker again"
        )
    for name, record in expected.items():
        path = folder / name
        if path.suffix not in _SAFE:
            raise ManifestBroken(
                f"{name} in {folder} has a file type that is never loaded; expected safetensors and text"
            )
        if path.stat().st_size != record["bytes"] or file_checksum(path) != record["sha256"]:
            raise ManifestBroken(
                f"{name} in {folder} differs from the published file (SHA-256 mismatch); copy it again or publish "
                "the reranker again"
            )
    return manifest


def file_checksum(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
