"""Finds published rerankers by name and user, and their files on this machine.

The web process resolves a name with `find_reranker`; the serving process and evaluations get the files with
`artefact_folder`. Neighbours: `trainer.publishing.export` writes them, `trainer.serving.loading` loads them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from labeling.models import Membership, Role
from scoring.storage.files import storage
from trainer.models import Reranker
from trainer.publishing.manifests import (
    BI_ENCODER,
    CROSS_ENCODER,
    MANIFEST,
    ManifestBroken,
    file_checksum,
    is_embedding,
)
from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import model_id

TRAINED = "trained"
# Students that judge pairs: stored as rerankers are, and used by the judge `pairwise-student`.
PAIRWISE_JUDGE = "pairwise-judge"
NAMES_SHOWN = 20


class UnknownReranker(LookupError):
    """The user can see no published reranker of that name, or several; the message lists the available ones."""


def servable() -> QuerySet[Reranker]:
    """Published rerankers that can be loaded; baselines and external rerankers have no files, held-back ones wait."""
    found = Reranker.objects.filter(kind=TRAINED, project__archived_at__isnull=True)
    found = found.exclude(checksum="").exclude(location="")
    return found.exclude(release=Reranker.Release.HELD_BACK)


def usable_by(user: Any) -> QuerySet[Reranker]:
    """The servable rerankers of the projects that `user` may read, newest first, each with its project.

    Annotators are excluded: they must not see other people's answers, and a reranker reflects them.
    """
    return _of(user, servable()).select_related("project")


def _of(user: Any, rerankers: QuerySet[Reranker]) -> QuerySet[Reranker]:
    if user.is_superuser:
        return rerankers
    roles = Membership.objects.filter(user=user, role__in=[Role.OWNER, Role.VIEWER])
    return rerankers.filter(project__in=roles.values("project"))


def full_name(reranker: Reranker) -> str:
    """The full name of a reranker for programs: project/name, in lowercase without spaces."""
    return f"{reranker.project.slug}/{model_id(reranker.name)}"


_CALLED: tuple[Callable[[Reranker], str], ...] = (
    lambda each: f"{each.project.slug}/{each.name}",
    full_name,
    lambda each: each.name,
    lambda each: model_id(each.name),
)


def find_reranker(user: Any, name: str, *, beside: Sequence[str] = ()) -> Reranker:
    """The reranker with the display name or program name `name` or `project/name`; without a name, the only one.

    `beside`: the other names that the user may use. Raises UnknownReranker.
    """
    return _found(user, list(usable_by(user).defer("manifest")), name, beside)


def find_embedder(user: Any, name: str, *, beside: Sequence[str] = ()) -> Reranker:
    """As `find_reranker`; without a name, the only embedding student. Raises UnknownReranker."""
    usable = list(usable_by(user))
    return _found(user, usable if name else [each for each in usable if form_of(each) == BI_ENCODER], name, beside)


def _found(user: Any, usable: list[Reranker], name: str, beside: Sequence[str]) -> Reranker:
    if not name and len(usable) == 1:
        return usable[0]
    found = rerankers_called(usable, name)
    if len(found) == 1:
        return found[0]
    held_back = _of(user, Reranker.objects.filter(kind=TRAINED, release=Reranker.Release.HELD_BACK))
    if (
        name
        and not found
        and (waiting := rerankers_called(list(held_back.select_related("project").defer("manifest")), name))
    ):
        raise UnknownReranker(
            f"{full_name(waiting[0])} is held back, because it ranked worse than a baseline; publish it on the page of its "
            "training, or name another model"
        )
    problem = "several models have the name" if found else "no model has the name"
    asked = f"{problem} {name[:200]!r}" if name else "the request names no model"
    raise UnknownReranker(f"{asked}; {_usable([*beside, *map(full_name, usable)])}")


def rerankers_called(rerankers: list[Reranker], name: str) -> list[Reranker]:
    """Those with that name, of the first kind of name that matches."""
    found: list[Reranker] = []
    for called in _CALLED:
        found = found or [each for each in rerankers if called(each) == name]
    return found


def _usable(names: Sequence[str]) -> str:
    if not names:
        return "your key can use none: owners and viewers of a project can use what it has published"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"you can use: {', '.join(names[:NAMES_SHOWN])}{more}; name one of them as project/name in `model`"


def form_of(reranker: Reranker) -> str:
    """`cross-encoder`, or `bi-encoder` for an embedding student."""
    manifest = reranker.manifest if isinstance(reranker.manifest, dict) else {}
    return BI_ENCODER if is_embedding(manifest) else CROSS_ENCODER


def artefact_of(reranker: Reranker) -> Artefact:
    """The artefact of a reranker for the serving process."""
    name = full_name(reranker)
    return Artefact(name=name, location=reranker.location, checksum=reranker.checksum, version=name)


def artefact_folder(artefact: Artefact) -> Path:
    """The published folder on this machine: in the storage, or downloaded once into the cache.

    Raises ManifestBroken if the files differ from the published ones.
    """
    folder = storage().local_folder(artefact.location)
    if folder is None:
        folder = Path(settings.ZELO_CACHE) / "rerankers" / artefact.checksum
        if not (folder / MANIFEST).is_file():
            _download(artefact.location, folder)
    found = file_checksum(folder / MANIFEST) if (folder / MANIFEST).is_file() else "nothing"
    if found != artefact.checksum:
        raise ManifestBroken(
            f"the manifest of reranker {artefact.name!r} has the SHA-256 {found[:12]}, expected {artefact.checksum[:12]}: its "
            "files are missing or were changed after publishing; restore them or publish again"
        )
    return folder


def _download(location: str, folder: Path) -> None:
    """Download atomically; two processes may do it at the same time with the same result."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
    try:
        storage().download_folder(location, draft)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
