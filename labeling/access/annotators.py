"""Finds or creates the annotator of a judge's configuration, or of a person.

Changed options, another prompt or other weights make another annotator, with judgments of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from labeling.models import Annotator, Project, config_hash
from labeling.plugins import Judge, get_plugin


def get_judge(project: Project, plugin: str, options: Mapping[str, Any] | None = None, *, name: str = "") -> Annotator:
    """The annotator of this judge configuration in the project; the first call creates it. A judge without criteria of its
    own gets those of the project's rubric, so that another rubric makes another annotator.

    Raises UnknownPlugin, or pydantic.ValidationError that names the option.
    """
    judge = cast(Judge, get_plugin("judge", plugin).from_dict(with_rubric(project, plugin, options or {})))
    provenance: dict[str, Any] = {
        "plugin": plugin,
        "options": judge.options.model_dump(mode="json"),
        "prompt_hash": judge.prompt_hash,
        "model_revision": judge.model_revision,
    }
    options = {name: value for name, value in provenance["options"].items() if name not in _at_default(judge)}
    identity = config_hash(**{**provenance, "options": options})
    annotator, _ = Annotator.objects.get_or_create(
        project=project, config_hash=identity, defaults={"name": name or judge.label, **provenance}
    )
    return annotator


def with_rubric(project: Project, plugin: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a judge in this project, with the project's present rubric where the judge can use it and has no other.

    Only judges with the options `criteria` and `criteria_from` and the mode reasoned can. Raises UnknownPlugin.
    """
    fields, given = get_plugin("judge", plugin).Options.model_fields, dict(options)
    if not {"criteria", "criteria_from"} <= fields.keys() or given.get("mode") != "reasoned":
        return given
    if given.get("criteria") and given.get("criteria_from") != "project":
        return given
    rubric = list(project.rubric)
    return {**given, "criteria": rubric, "criteria_from": "project" if rubric else ""}


def _at_default(judge: Judge) -> set[str]:
    """The added options that this judge has at their default."""
    defaults = {
        name: type(judge.options).model_fields[name].get_default(call_default_factory=True)
        for name in judge.added_options
    }
    return {name for name, default in defaults.items() if getattr(judge.options, name) == default}


def names_told_apart(project: Project) -> dict[int, str]:
    """The names of a project's judges and people by id; those of one name, such as a model with two prompts, carry their id."""
    names = dict(Annotator.objects.filter(project=project).values_list("id", "name"))
    times = Counter(names.values())
    return {pk: f"{name} ({pk})" if times[name] > 1 else name for pk, name in names.items()}


def get_person(project: Project, user: Any) -> Annotator:
    """The annotator of `user` in the project; the first call creates it."""
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
