"""Published rerankers: which ones a person may use, by which name, and where their files are on this machine.

The web process resolves a name with `find_reranker`; the serving process and evaluations get the files with
`artefact_folder`. Neighbours: `trainer.publishing.export` makes them, `trainer.serving.loading` loads them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from labeling.models import Membership, Role
from scoring.storage.files import storage
from trainer.models import Reranker
from trainer.publishing.manifests import MANIFEST, ManifestBroken, file_checksum
from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import model_id

TRAINED = "trained"
NAMES_SHOWN = 20


class UnknownReranker(LookupError):
    """No reranker of that name is published and visible to the asker, or several are; the message lists which."""


def servable() -> QuerySet[Reranker]:
    """Published rerankers, ours and whole; baselines and outside rerankers have nothing to load."""
    return Reranker.objects.filter(kind=TRAINED).exclude(checksum="").exclude(location="")


def usable_by(user: Any) -> QuerySet[Reranker]:
    """The servable rerankers of the projects that `user` may read, newest first, each with its project.

    Whoever only compares in a project does so blind, and a reranker says what others answered.
    """
    found = servable().select_related("project")
    if user.is_superuser:
        return found
    roles = Membership.objects.filter(user=user, role__in=[Role.OWNER, Role.VIEWER])
    return found.filter(project__in=roles.values("project"))


def full_name(reranker: Reranker) -> str:
    """What programs call a reranker wherever it is: project/name, the name without blanks and signs."""
    return f"{reranker.project.slug}/{model_id(reranker.name)}"


_CALLED: tuple[Callable[[Reranker], str], ...] = (
    lambda each: f"{each.project.slug}/{each.name}",
    full_name,
    lambda each: each.name,
    lambda each: model_id(each.name),
)


def find_reranker(user: Any, name: str) -> Reranker:
    """The reranker called `name` or `project/name`, as it is shown or as programs write it; without a name the only one
    there is. Raises UnknownReranker.
    """
    usable = list(usable_by(user))
    if not name and len(usable) == 1:
        return usable[0]
    found: list[Reranker] = []
    for called in _CALLED:  # the first way that fits anything
        found = found or [each for each in usable if called(each) == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(full_name(each) for each in usable[:NAMES_SHOWN]) or "none; train and publish one first"
    more = f" and {len(usable) - NAMES_SHOWN} more" if len(usable) > NAMES_SHOWN else ""
    problem = "several models have the name" if found else "no model has the name"
    asked = f"{problem} {name[:200]!r}" if name else "the request names no model"
    raise UnknownReranker(f"{asked}; you can use: {names}{more}; name one of them as project/name in `model`")


def artefact_of(reranker: Reranker) -> Artefact:
    """What the serving process needs to know of a reranker."""
    return Artefact(name=full_name(reranker), location=reranker.location, checksum=reranker.checksum)


def artefact_folder(artefact: Artefact) -> Path:
    """The published folder on this machine: in the storage itself, or downloaded once into the cache.

    Raises ManifestBroken where it is not what was published.
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
    """Whole or not at all; a second process that does the same leaves the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
    try:
        storage().download_folder(location, draft)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
