"""Finds or makes the annotator that stands for one judge's configuration, or for one person.

Changed options, another prompt or other weights are another annotator: its judgments are kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from labeling.models import Annotator, Project, config_hash
from labeling.plugins import Judge, get_plugin


def get_judge(project: Project, plugin: str, options: Mapping[str, Any] | None = None, *, name: str = "") -> Annotator:
    """The annotator of this judge configuration in the project, made on first use.

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
    """The annotator that stands for `user` in the project, made on first use."""
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
