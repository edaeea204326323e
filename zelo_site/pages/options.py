"""Forms for plugin options: converts pydantic fields to inputs, and submitted values back, with errors per field."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from django.utils.translation import gettext as _
from pydantic_core import PydanticUndefined

from labeling.plugins import Plugin
from labeling.strict_json import BadJson, parse


@dataclass(frozen=True, slots=True)
class OptionField:
    """One option in a form; `kind` is text, number, checkbox, choice or json."""

    name: str
    label: str
    help: str
    kind: str
    value: Any
    required: bool
    choices: tuple[str, ...] = ()
    error: str = ""


class BadOptions(ValueError):
    """Plugin options failed validation; `fields` are the form's fields with their errors."""

    def __init__(self, plugin: type[Plugin], fields: list[OptionField]) -> None:
        wrong = "; ".join(f"{field.label}: {field.error}" for field in fields if field.error)
        wrong = wrong or _("these options conflict; change one of them")
        super().__init__(f"{plugin.label}: {wrong}")
        self.fields = fields


def option_fields(plugin: type[Plugin], *, prefix: str, sent: Mapping[str, Any] | None = None) -> list[OptionField]:
    """Return the form's fields for a plugin; `sent` holds submitted values."""
    return [_field(f"{prefix}-{name}", name, info, sent) for name, info in plugin.Options.model_fields.items()]


def read_options(plugin: type[Plugin], *, prefix: str, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the submitted options for `Plugin.from_dict`. Raises BadOptions."""
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, info in plugin.Options.model_fields.items():
        text = str(sent.get(f"{prefix}-{name}", ""))
        kind, __ = _kind(info.annotation)
        if kind == "checkbox":
            values[name] = text == "on"
        elif text.strip():
            values[name], problem = _value(text.strip(), kind)
            if problem:
                errors[name] = problem
    if not errors:
        try:
            return plugin.Options.model_validate(values).model_dump(mode="json")
        except pydantic.ValidationError as error:
            errors = {str(each["loc"][0]) if each["loc"] else "": each["msg"] for each in error.errors()}
    fields = option_fields(plugin, prefix=prefix, sent=sent)
    marked = [_with_error(field, errors.get(field.name.removeprefix(f"{prefix}-"), "")) for field in fields]
    raise BadOptions(plugin, marked)


def _value(text: str, kind: str) -> tuple[Any, str]:
    if kind != "json":
        return text, ""
    try:
        return parse(text.encode("utf-8", "surrogatepass")), ""
    except BadJson as error:
        return None, str(error)


def _with_error(field: OptionField, error: str) -> OptionField:
    return OptionField(
        field.name, field.label, field.help, field.kind, field.value, field.required, field.choices, error
    )


def _kind(annotation: Any) -> tuple[str, tuple[str, ...]]:
    """Return the input kind for an annotation, with the choices of a Literal."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [each for each in typing.get_args(annotation) if each is not type(None)]
        return _kind(inner[0]) if len(inner) == 1 else ("text", ())
    if origin is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if origin is Literal:
        return "choice", tuple(str(each) for each in typing.get_args(annotation))
    if annotation is bool:
        return "checkbox", ()
    if annotation in (int, float):
        return "number", ()
    if annotation is str:
        return "text", ()
    return "json", ()


def option_label(name: str, info: pydantic.fields.FieldInfo) -> str:
    """Return an option's label: its title, or its name in words."""
    return info.title or name_in_words(name)


def name_in_words(name: str) -> str:
    """Return the label of an option without a title: learning_rate -> Learning rate."""
    return name.replace("_", " ").capitalize()


def _field(full_name: str, name: str, info: pydantic.fields.FieldInfo, sent: Mapping[str, Any] | None) -> OptionField:
    kind, choices = _kind(info.annotation)
    default = info.get_default(call_default_factory=True)
    value = "" if default is None or default is PydanticUndefined else default
    if kind == "json" and value != "":
        value = json.dumps(value)
    if sent is not None:
        value = sent.get(full_name, "") == "on" if kind == "checkbox" else sent.get(full_name, value)
    return OptionField(
        name=full_name,
        label=option_label(name, info),
        help=info.description or "",
        kind=kind,
        value=value,
        required=info.is_required(),
        choices=choices,
    )
