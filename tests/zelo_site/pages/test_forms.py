"""The adapter from a pydantic model to a Django form: fields, initial values, and errors at their fields."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import pytest
from django import forms
from django.http import QueryDict

from zelo_site.pages.forms import BadForm, Dollars, OptionsForm, check_all, options_form, shown_form, whole_number


class Options(pydantic.BaseModel):
    model: str
    degree: int = pydantic.Field(default=4, ge=1, le=9, description="Pairs a document.")
    share: float | None = pydantic.Field(default=None, gt=0)
    strict: bool = False
    mode: Literal["fast", "slow"] = "fast"
    turns: Literal[1, 2] | None = None
    words: list[str] = pydantic.Field(default_factory=list)
    extra: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Options:
        if self.strict and self.mode == "slow":
            raise ValueError("strict is never slow")
        return self


FORM = options_form(Options, prefix="x", title="Sampler")


def sent(**values: str) -> QueryDict:
    query = QueryDict(mutable=True)
    query.update({f"x-{name}": value for name, value in values.items()})
    return query


def errors(form: OptionsForm) -> dict[str, list[str]]:
    form.is_valid()
    return {name: list(map(str, messages)) for name, messages in form.errors.items()}


def test_each_type_has_its_field() -> None:
    fields = FORM().fields
    assert [type(fields[name]) for name in ("degree", "share", "strict", "mode")] == [
        forms.IntegerField,
        forms.FloatField,
        forms.BooleanField,
        forms.TypedChoiceField,
    ]
    assert (fields["model"].required, fields["degree"].required) == (True, False)
    assert (fields["degree"].initial, fields["degree"].help_text) == (4, "Pairs a document.")
    assert FORM()["degree"].html_name == FORM()["degree"].auto_id == "x-degree"


def test_values_are_read_as_the_model_has_them() -> None:
    form = FORM(sent(model=" m ", degree="3", share="1e-2", strict="on", turns="2", words="a, b ,", extra='{"k": 1}'))
    assert form.plain_options() == {
        "model": "m", "degree": 3, "share": 0.01, "strict": True, "mode": "fast", "turns": 2,
        "words": ["a", "b"], "extra": {"k": 1},
    }  # fmt: skip


def test_empty_fields_are_the_defaults() -> None:
    assert FORM(sent(model="m", degree="", words="", extra="")).plain_options() == Options(model="m").model_dump()


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({}, "model", "This field is required."),
        ({"degree": "many"}, "degree", "Enter a whole number."),
        ({"degree": "10"}, "degree", "Enter a number of at most 9."),
        ({"share": "0"}, "share", "Enter a number above 0."),
        ({"share": "nan"}, "share", "Enter a number."),
        ({"mode": "odd"}, "mode", "odd is not one of the available choices"),
        ({"extra": "{"}, "extra", ""),
        ({"extra": "[1]"}, "extra", "Enter a JSON object"),
        ({"strict": "on", "mode": "slow"}, "__all__", "strict is never slow"),
    ],
)
def test_an_error_lands_at_its_field(values: dict[str, str], field: str, message: str) -> None:
    form = FORM(sent(**({} if field == "model" else {"model": "m"}), **values))
    assert list(errors(form)) == [field]
    assert message in errors(form)[field][0]


def test_all_wrong_fields_are_marked_at_once_and_summed_up() -> None:
    with pytest.raises(BadForm, match=r"^Sampler: .*Degree: Enter a whole number\.; .*Share: ") as caught:
        check_all(FORM(sent(model="m", degree="x", share="-1")))
    assert set(caught.value.forms[0].errors) == {"degree", "share"}
    assert shown_form(FORM, None, caught.value) is caught.value.forms[0]


def test_what_was_sent_can_be_shown_unchecked() -> None:
    form = FORM.filled(sent(degree="many", words="a,b", extra="{"))
    assert (form["degree"].value(), form["words"].value(), form["extra"].value()) == ("many", "a,b", "{")
    assert not form.errors
    assert FORM.filled(None)["degree"].value() == 4


def test_stored_options_are_shown_as_they_are_typed() -> None:
    form = options_form(Options, prefix="x", stored={"words": ["a", "b"], "extra": {"k": 1}, "gone": 1})()
    assert (form["words"].value(), form["extra"].value()) == ("a, b", '{"k": 1}')


@pytest.mark.parametrize(("text", "micros"), [("1.5", 1_500_000), ("$ 2", 2_000_000), ("0.000001", 1), ("", None)])
def test_dollars_are_whole_millionths(text: str, micros: int | None) -> None:
    assert Dollars(required=False).clean(text) == micros


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "0.0000001", "1e15", "x"])
def test_what_is_no_sum_of_dollars_is_refused(text: str) -> None:
    with pytest.raises(forms.ValidationError):
        Dollars(required=False).clean(text)


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("0", 0), ("-1", None), ("", None), ("x\x00", None), ("9" * 5000, None)]
)
def test_a_whole_number_or_nothing(text: str, number: int | None) -> None:
    assert whole_number(QueryDict(mutable=True) | {"n": text}, "n") == number
