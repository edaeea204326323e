"""The annotators of imported answers: one for each name in a file, whichever file it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labeling.models import Annotator, Project, config_hash

PLUGIN = "imported"
Source = tuple[str, str, bool]  # name, the source's own id, whether a person


def imported_annotators(project: Project, sources: Sequence[Source]) -> dict[Source, int]:
    """The id of the annotator of each source; the first import of a source creates it."""
    return {source: _annotator(project, *source).pk for source in sources}


def _annotator(project: Project, name: str, key: str, is_person: bool) -> Annotator:
    defaults: dict[str, Any] = {"name": name, "is_person": is_person}
    if not is_person:
        defaults |= {"plugin": PLUGIN, "options": {"annotator": name, "key": key}}
    annotator, _ = Annotator.objects.get_or_create(
        project=project, config_hash=identity(name, key, is_person=is_person), defaults=defaults
    )
    return annotator


def identity(name: str, key: str, *, is_person: bool) -> str:
    """The configuration hash of an imported annotator, which no judge and no member has."""
    return config_hash(imported=name, key=key, person=is_person)
