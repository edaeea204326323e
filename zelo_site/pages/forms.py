"""Django forms of the pages: what they share, and one adapter from a pydantic model to a form.

A form reads what was sent, shows it again and keeps each error at its field. Ids and rows that a form names are read by
`chosen_or_404` and `whole_number`.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import annotated_types
import pydantic
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404
from pydantic_core import PydanticUndefined

from labeling.importing.strict_json import BadJson, parse
from labeling.plugins import Plugin
from labeling.wording import translated

LARGEST_ID = 2**63 - 1
MOST_DOLLARS = 4_000_000_000_000  # as millionths it fits into 63 bits
SIMPLE = (str, int, float)

Row = TypeVar("Row", bound=Model)
AnyForm = TypeVar("AnyForm", bound="PageForm")


class BadForm(ValueError):
    """What was sent cannot be taken. `forms` have the errors at their fields; the message sums them up."""

    def __init__(self, *bad: PageForm) -> None:
        super().__init__("; ".join(form.summary() for form in bad))
        self.forms = bad


class PageForm(forms.Form):
    """A form whose markup stands in the template: ids are the fields' names, and browsers do not check `required`."""

    use_required_attribute = False
    title: ClassVar[str] = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"auto_id": "%s", **kwargs})

    @classmethod
    def filled(cls, sent: Mapping[str, Any] | None, **kwargs: Any) -> Self:
        """Shows what was sent without checking it; with nothing sent, the initial values."""
        form = cls(**kwargs)
        for name, field in form.fields.items() if sent is not None else ():
            value = field.widget.value_from_datadict(sent, {}, form.add_prefix(name))
            if value is not None:
                form.initial[name] = value
        return form

    def checked(self) -> dict[str, Any]:
        """The values that were sent; raises BadForm."""
        check_all(self)
        return self.cleaned_data

    def summary(self) -> str:
        """All errors in one line, each after its field's label."""
        lines = []
        for name, messages in self.errors.items():
            label = f"{translated(str(self.fields[name].label or name))}: " if name in self.fields else ""
            lines += [f"{label}{message}" for message in messages]
        return f"{translated(self.title)}: {'; '.join(lines)}" if self.title else "; ".join(lines)


def check_all(*forms: PageForm) -> None:
    """Raises one BadForm with every form that is wrong."""
    if bad := [form for form in forms if not form.is_valid()]:
        raise BadForm(*bad)


def shown_form(form: type[AnyForm], sent: Mapping[str, Any] | None, error: Exception | None, **kwargs: Any) -> AnyForm:
    """The form that was refused, with its errors, where `error` has it; else what was sent, unchecked."""
    kind = OptionsForm if issubclass(form, OptionsForm) else form  # classes of options are made anew each time
    prefix = kwargs.get("prefix", form.prefix)
    for refused in error.forms if isinstance(error, BadForm) else ():
        if isinstance(refused, kind) and refused.prefix == prefix:
            return cast(AnyForm, refused)
    return form.filled(sent, **kwargs)


class OptionsForm(PageForm):
    """The form of a pydantic model, see `options_form`; `options` is set once the form is valid."""

    options_class: ClassVar[type[pydantic.BaseModel]]
    options: pydantic.BaseModel

    def clean(self) -> dict[str, Any]:
        """Passes the values through the model, whose errors land at their fields."""
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
            message = each["msg"].removeprefix("Value error, ")
            if name in self.fields:
                if name not in wrong:
                    self.add_error(name, message)
            elif not wrong:  # a rule over several fields says little while one of them is wrong
                self.add_error(None, message)

    def plain_options(self) -> dict[str, Any]:
        """The options as plain values, as `Plugin.from_dict` takes them; raises BadForm."""
        self.checked()
        return self.options.model_dump(mode="json")


def plugin_form(plugin: type[Plugin], *, prefix: str, stored: Mapping[str, Any] | None = None) -> type[OptionsForm]:
    """The form class of a plugin's options; its errors are summed up under the plugin's label."""
    return options_form(plugin.Options, prefix=prefix, title=plugin.label, stored=stored)


def options_form(
    model: type[pydantic.BaseModel], *, prefix: str, title: str = "", stored: Mapping[str, Any] | None = None
) -> type[OptionsForm]:
    """A form class with a field for each of the model's; `stored` are initial values in place of the defaults."""
    fields = {name: _form_field(name, info) for name, info in model.model_fields.items()}
    for name, value in (stored or {}).items():
        if name in fields:
            fields[name].initial = value
    body = {"prefix": prefix, "title": title, "options_class": model}
    form = cast("type[OptionsForm]", type("Form", (OptionsForm,), body))
    form.base_fields = fields  # not in the class body: an option may be called as an attribute of forms
    return form


class CommaList(forms.CharField):
    """Simple values typed with commas between them."""

    is_list = True

    def to_python(self, value: Any) -> Any:
        return [word.strip() for word in (super().to_python(value) or "").split(",") if word.strip()]

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


class JsonText(forms.CharField):
    """Strict JSON in one line."""

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
    """Dollars, more than none, read as whole millionths."""

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
        return field(**shared, **_bounds(info.metadata))
    if annotation is str or annotation is None:
        return forms.CharField(**shared)
    if origin in (list, tuple) and all(_bare(each)[0] in (*SIMPLE, ...) for each in typing.get_args(annotation)):
        return CommaList(**shared)
    return JsonText(**shared)


def _bare(annotation: Any) -> tuple[Any, bool]:
    """An annotation without Annotated and Optional, and whether it was Optional; None for a union of several types."""
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


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    """Inclusive bounds; exclusive ones are the model's to check."""
    bounds: dict[str, Any] = {}
    for each in metadata:
        if isinstance(each, annotated_types.Ge):
            bounds["min_value"] = each.ge
        elif isinstance(each, annotated_types.Le):
            bounds["max_value"] = each.le
    return bounds


def option_label(name: str, info: pydantic.fields.FieldInfo) -> str:
    """What an option is called in a form: its title, else its name in words."""
    return info.title or name_in_words(name)


def name_in_words(name: str) -> str:
    """What an option without a title is called: learning_rate -> Learning rate."""
    return name.replace("_", " ").capitalize()


def whole_number(sent: Mapping[str, Any], name: str) -> int | None:
    """The whole number that was sent under a name, at least 0; None for anything else."""
    try:
        return forms.IntegerField(required=False, min_value=0, max_value=LARGEST_ID).clean(sent.get(name))
    except ValidationError:
        return None


def chosen_or_404(rows: QuerySet[Row], sent: Mapping[str, Any], name: str) -> Row:
    """The row whose id was sent under a name; Http404 for anything else."""
    found = rows.filter(pk=whole_number(sent, name) or 0).first()
    if found is None:
        raise Http404
    return found


def text_of(sent: Mapping[str, Any], name: str, most: int) -> str:
    """A text that was sent under a name, without NUL and blanks at its ends, cut at `most` characters."""
    return str(sent.get(name, "")).replace("\x00", "").strip()[:most]
