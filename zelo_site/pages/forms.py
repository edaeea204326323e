"""Shared parts of the pages' Django forms, and one adapter from a pydantic model to a form.

A form validates the submitted values, shows them again and keeps each error at its field. `chosen_or_404`,
`whole_number` and `one_of` read a control that nobody types in: an id, a button's action, a filter of a list.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import pydantic
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404
from pydantic_core import PydanticUndefined

from labeling.importing.strict_json import BadJson, parse
from labeling.plugins import Plugin, registered
from labeling.wording import translated
from zelo_site.pages.option_errors import option_error

LARGEST_ID = 2**63 - 1
MOST_DOLLARS = 4_000_000_000_000  # as millionths it fits into 63 bits
SIMPLE = (str, int, float)

Row = TypeVar("Row", bound=Model)
AnyForm = TypeVar("AnyForm", bound="PageForm")


class BadForm(ValueError):
    """The submitted values are invalid. `forms` hold the errors at their fields; the message lists them all."""

    def __init__(self, *bad: PageForm) -> None:
        super().__init__("; ".join(form.summary() for form in bad))
        self.forms = bad


class PageForm(forms.Form):
    """Base class of forms whose markup is in the template: ids are field names, and browsers do not check `required`.

    `rows` are the rows that each field with a choice of rows offers.
    """

    use_required_attribute = False
    title: ClassVar[str] = ""

    def __init__(self, *args: Any, rows: Mapping[str, QuerySet[Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{"auto_id": "%s", **kwargs})
        for name, found in (rows or {}).items():
            cast(forms.ModelChoiceField, self.fields[name]).queryset = found

    @classmethod
    def filled(cls, sent: Mapping[str, Any] | None, **kwargs: Any) -> Self:
        """Return an unbound form that shows the submitted values; if `sent` is None, the initial values."""
        form = cls(**kwargs)
        for name, field in form.fields.items() if sent is not None else ():
            value = field.widget.value_from_datadict(sent, {}, form.add_prefix(name))
            if value is not None:
                form.initial[name] = value
        return form

    def checked(self) -> dict[str, Any]:
        """Return the cleaned values. Raises BadForm."""
        check_all(self)
        return self.cleaned_data

    def summary(self) -> str:
        """Return all errors in one line, each after its field's label."""
        lines = []
        for name, messages in self.errors.items():
            label = f"{translated(str(self.fields[name].label or name))}: " if name in self.fields else ""
            lines += [f"{label}{message}" for message in messages]
        return f"{translated(self.title)}: {'; '.join(lines)}" if self.title else "; ".join(lines)


def check_all(*forms: PageForm) -> None:
    """Raise one BadForm with every invalid form."""
    if bad := [form for form in forms if not form.is_valid()]:
        raise BadForm(*bad)


def shown_form(form: type[AnyForm], sent: Mapping[str, Any] | None, error: Exception | None, **kwargs: Any) -> AnyForm:
    """Return the invalid form from `error`, with its errors; otherwise a form that shows the submitted values unchecked."""
    kind = OptionsForm if issubclass(form, OptionsForm) else form  # each call creates a new class of options
    prefix = kwargs.get("prefix", form.prefix)
    for refused in error.forms if isinstance(error, BadForm) else ():
        if isinstance(refused, kind) and refused.prefix == prefix:
            return cast(AnyForm, refused)
    return form.filled(sent, **kwargs)


class OptionsForm(PageForm):
    """The form of a pydantic model, see `options_form`; a valid form has `options`."""

    options_class: ClassVar[type[pydantic.BaseModel]]
    options: pydantic.BaseModel

    def clean(self) -> dict[str, Any]:
        """Validate the values with the model, and move its errors to their fields."""
        given = {name: value for name, value in self.cleaned_data.items() if value not in (None, "", [])}
        try:
            self.options = self.options_class.model_validate(given)
        except pydantic.ValidationError as error:
            self._take_errors(error)
        return self.cleaned_data

    def _take_errors(self, error: pydantic.ValidationError) -> None:
        wrong = set(self.errors)
        for each in error.errors():
            name = str(each["loc"][0]) if each["loc"] else None
            message = option_error(each)
            if name in self.fields:
                if name not in wrong:
                    self.add_error(name, message)
            elif not wrong:  # a rule across fields says little while one field is invalid
                self.add_error(None, message)

    def plain_options(self) -> dict[str, Any]:
        """Return the options as plain values for `Plugin.from_dict`. Raises BadForm."""
        self.checked()
        return self.options.model_dump(mode="json")


def plugin_form(plugin: type[Plugin], *, prefix: str, stored: Mapping[str, Any] | None = None) -> type[OptionsForm]:
    """Return the form class of a plugin's options; the summary of its errors starts with the plugin's label."""
    return options_form(plugin.Options, prefix=prefix, title=plugin.label, stored=stored)


def options_form(
    model: type[pydantic.BaseModel], *, prefix: str, title: str = "", stored: Mapping[str, Any] | None = None
) -> type[OptionsForm]:
    """Return a form class with one field per model field; `stored` values replace the defaults as initial values."""
    fields = {name: _form_field(name, info) for name, info in model.model_fields.items()}
    for name, value in (stored or {}).items():
        if name in fields:
            fields[name].initial = value
    body = {"prefix": prefix, "title": title, "options_class": model}
    form = cast("type[OptionsForm]", type("Form", (OptionsForm,), body))
    form.base_fields = fields  # not in the class body: an option can have the name of a form's attribute
    return form


class PluginField(forms.ChoiceField):
    """The name of a registered plugin; without a choice, the default's."""

    def __init__(self, kind: str, *, default: str, **kwargs: Any) -> None:
        super().__init__(
            choices=lambda: [(name, plugin.label) for name, plugin in registered(kind).items()],
            required=False,
            initial=default,
            **kwargs,
        )
        self.default = default

    def clean(self, value: Any) -> Any:
        return super().clean(value) or self.default


class CommaList(forms.CharField):
    """A list of simple values, separated by commas."""

    is_list = True

    def to_python(self, value: Any) -> Any:
        return [word.strip() for word in (super().to_python(value) or "").split(",") if word.strip()]

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


class JsonText(forms.CharField):
    """A strict JSON value."""

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            return parse(text.encode("utf-8", "surrogatepass"))
        except BadJson as error:
            raise ValidationError(str(error)) from error

    def prepare_value(self, value: Any) -> Any:
        return value if value is None or isinstance(value, str) else json.dumps(value)


class Dollars(forms.DecimalField):
    """A positive amount of dollars; its cleaned value is in whole millionths."""

    def __init__(self, **kwargs: Any) -> None:
        least = Decimal("0.000001")
        super().__init__(min_value=least, max_value=MOST_DOLLARS, decimal_places=6, **kwargs)

    def to_python(self, value: Any) -> Any:
        return super().to_python(value.strip().removeprefix("$") if isinstance(value, str) else value)

    def clean(self, value: Any) -> Any:
        dollars = super().clean(value)
        return None if dollars is None else int(dollars * 1_000_000)

    def prepare_value(self, value: Any) -> Any:
        return f"{value / 1e6:.6f}".rstrip("0").rstrip(".") if isinstance(value, int) else value


def _form_field(name: str, info: pydantic.fields.FieldInfo) -> forms.Field:
    default = info.get_default(call_default_factory=True)
    shared: dict[str, Any] = {
        "label": option_label(name, info),
        "help_text": info.description or "",
        "initial": None if default is PydanticUndefined else default,
        "required": info.is_required(),
    }
    annotation, optional = _bare(info.annotation)
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return _choice(annotation, optional, shared)
    if annotation is bool:
        return forms.BooleanField(**{**shared, "required": False})
    if annotation in (int, float):
        field = forms.IntegerField if annotation is int else forms.FloatField
        return field(**shared)  # the model checks the bounds
    if annotation is str or annotation is None:
        return forms.CharField(**shared)
    if origin in (list, tuple) and all(_bare(each)[0] in (*SIMPLE, ...) for each in typing.get_args(annotation)):
        return CommaList(**shared)
    return JsonText(**shared)


def _bare(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without Annotated and Optional, and whether it was Optional; None for a union of several types."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        inner = [each for each in typing.get_args(annotation) if each is not type(None)]
        optional = len(inner) < len(typing.get_args(annotation))
        return (_bare(inner[0])[0], optional) if len(inner) == 1 else (None, optional)
    return annotation, False


def _choice(annotation: Any, optional: bool, shared: dict[str, Any]) -> forms.Field:
    values = {str(each): each for each in typing.get_args(annotation)}
    choices = [("", "–"), *((each, each) for each in values)] if optional else [(each, each) for each in values]
    if shared["initial"] is not None:
        shared = {**shared, "initial": str(shared["initial"])}
    return forms.TypedChoiceField(choices=choices, coerce=values.__getitem__, empty_value=None, **shared)


def option_label(name: str, info: pydantic.fields.FieldInfo) -> str:
    """Return an option's label: its title, or its name in words."""
    return info.title or name_in_words(name)


def name_in_words(name: str) -> str:
    """Return a name as a label: learning_rate -> Learning rate."""
    return name.replace("_", " ").capitalize()


def whole_number(sent: Mapping[str, Any], name: str) -> int | None:
    """Return the submitted whole number, at least 0; None for anything else."""
    try:
        return forms.IntegerField(required=False, min_value=0, max_value=LARGEST_ID).clean(sent.get(name))
    except ValidationError:
        return None


def one_of(sent: Mapping[str, Any], name: str, choices: Iterable[str], default: str = "") -> str:
    """Return the submitted choice; the default for anything else."""
    field = forms.ChoiceField(choices=[(choice, choice) for choice in choices], required=False)
    try:
        return str(field.clean(sent.get(name))) or default
    except ValidationError:
        return default


def chosen_or_404(rows: QuerySet[Row], sent: Mapping[str, Any], name: str) -> Row:
    """Return the row with the submitted id. Raises Http404 for anything else."""
    found = rows.filter(pk=whole_number(sent, name) or 0).first()
    if found is None:
        raise Http404
    return found


def text_of(sent: Mapping[str, Any], name: str, most: int) -> str:
    """Return the submitted text without NUL and surrounding whitespace, cut at `most` characters."""
    return str(sent.get(name, "")).replace("\x00", "").strip()[:most]
