"""Finds or creates the annotator of a judge configuration or of a person.

Changed options, prompts or weights create a new annotator, so that its judgments stay separate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from labeling.models import Annotator, Project, config_hash
from labeling.plugins import Judge, get_plugin


def get_judge(project: Project, plugin: str, options: Mapping[str, Any] | None = None, *, name: str = "") -> Annotator:
    """Return the project's annotator for this judge configuration; create it on first use.

    Raises UnknownPlugin, or pydantic.ValidationError that names the option.
    """
    judge = cast(Judge, get_plugin("judge", plugin).from_dict(dict(options or {})))
    provenance = {
        "plugin": plugin,
        "options": judge.options.model_dump(mode="json"),
        "prompt_hash": judge.prompt_hash,
        "model_revision": judge.model_revision,
    }
    annotator, _ = Annotator.objects.get_or_create(
        project=project, config_hash=config_hash(**provenance), defaults={"name": name or judge.label, **provenance}
    )
    return annotator


def get_person(project: Project, user: Any) -> Annotator:
    """Return the annotator of `user` in the project; create it on first use."""
    annotator, _ = Annotator.objects.get_or_create(
        project=project,
        user=user,
        defaults={
            "name": user.get_full_name() or user.get_username(),
            "is_person": True,
            "config_hash": config_hash(person=user.pk),
        },
    )
    return annotator
