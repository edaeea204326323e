"""Every error that a built-in plugin's options can raise has a translatable message of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pydantic
import pytest
from django.conf import settings
from django.utils import translation

from labeling.plugins import KINDS, load_plugins, registered
from labeling.retrieval.dense import DenseOptions
from scoring.sampling.samplers import Cycles
from scoring.snapshots.freeze import SnapshotOptions
from zelo_site.pages.option_errors import MESSAGES, OWN_MESSAGES, option_error

# The error types that each core schema of pydantic can raise, and those that each of its constraints adds.
OF_SCHEMA: dict[str, set[str]] = {
    "model": {"model_type"},
    "model-fields": {"model_type", "extra_forbidden", "missing"},
    "float": {"float_type", "float_parsing", "finite_number"},
    "int": {"int_type", "int_parsing", "int_parsing_size", "int_from_float", "finite_number"},
    "bool": {"bool_type", "bool_parsing"},
    "str": {"string_type", "string_unicode"},
    "literal": {"literal_error"},
    "list": {"list_type"},
    "tuple": {"tuple_type", "missing", "too_long"},
    "dict": {"dict_type"},
    "function-before": {"value_error", "assertion_error"},
    "function-after": {"value_error", "assertion_error"},
    **{kind: set() for kind in ("any", "default", "nullable", "model-field", "no-info")},
}
OF_CONSTRAINT: dict[str, dict[str, str]] = {
    "number": {
        "ge": "greater_than_equal",
        "gt": "greater_than",
        "le": "less_than_equal",
        "lt": "less_than",
    },
    "str": {"min_length": "string_too_short", "max_length": "string_too_long", "pattern": "string_pattern_mismatch"},
    "collection": {"min_length": "too_short", "max_length": "too_long"},
}
FAMILY = {
    "float": "number",
    "int": "number",
    "str": "str",
    "list": "collection",
    "tuple": "collection",
    "dict": "collection",
}
HARMLESS = {"strict", "allow_inf_nan", "strip_whitespace"}  # these raise the types of their schema
CONSTRAINTS = {"multiple_of", "to_lower", "to_upper", "coerce_numbers_to_str", "fail_fast", "unique_items"}


def schemas_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a core schema."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value
        for each in value.values():
            yield from schemas_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from schemas_of(each)


def types_of(options: type[pydantic.BaseModel]) -> set[str]:
    """Return the error types that a model can raise; an unknown schema or constraint fails the test."""
    found: set[str] = set()
    for schema in schemas_of(options.__pydantic_core_schema__):
        kind = schema["type"]
        assert kind in OF_SCHEMA, f"{options}: add the error types of the schema {kind!r} to this test"
        assert not CONSTRAINTS & set(schema), f"{options}: add the error types of {CONSTRAINTS & set(schema)}"
        own = OF_CONSTRAINT[FAMILY[kind]] if kind in FAMILY else {}
        found |= OF_SCHEMA[kind] | {own[name] for name in own if name in schema}
    return found


def error_of(options: type[pydantic.BaseModel], **values: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        options.model_validate(values)
    return option_error(caught.value.errors()[0])


def test_each_error_of_our_options_has_a_message() -> None:
    load_plugins(enabled=settings.ZELO_PLUGINS)
    ours = [plugin.Options for kind in KINDS for plugin in registered(kind).values()]
    assert len(ours) >= 20
    raised = set().union(*(types_of(options) for options in [*ours, SnapshotOptions]))
    assert {"greater_than", "less_than_equal", "string_pattern_mismatch", "too_long", "literal_error"} <= raised
    assert raised - set(MESSAGES) - set(OWN_MESSAGES) == set()


class Every(pydantic.BaseModel):
    """A model that can raise every type in `MESSAGES`."""

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    number: float = pydantic.Field(default=1.0, ge=1, le=9)
    inner: float = pydantic.Field(default=1.0, gt=0.5, lt=9.5)
    whole: int = 1
    flag: bool = False
    word: str = pydantic.Field(default="ab", min_length=2, max_length=3, pattern=r"^\w+$")
    mode: Literal["fast", "slow"] = "fast"
    many: list[int] = pydantic.Field(default_factory=lambda: [1], min_length=1, max_length=2)
    pair: tuple[int, int] = (1, 2)
    extra: dict[str, Any] = pydantic.Field(default_factory=dict)


CASES: list[tuple[dict[str, Any], str]] = [
    ({"number": 0}, "Enter a number of at least 1."),
    ({"number": 10}, "Enter a number of at most 9."),
    ({"number": "x"}, "Enter a number."),
    ({"number": None}, "Enter a number."),
    ({"number": float("nan")}, "Enter a number."),
    ({"inner": 0.5}, "Enter a number above 0.5."),
    ({"inner": 9.5}, "Enter a number below 9.5."),
    ({"whole": "x"}, "Enter a whole number."),
    ({"whole": 1.5}, "Enter a whole number."),
    ({"whole": "9" * 5000}, "Enter a whole number."),
    ({"whole": None}, "Enter a whole number."),
    ({"flag": "x"}, "Choose yes or no."),
    ({"flag": []}, "Choose yes or no."),
    ({"word": 1}, "Enter a text."),
    ({"word": b"\xff"}, "Enter a text."),
    ({"word": "a"}, "Enter at least 2 characters."),
    ({"word": "abcd"}, "Enter at most 3 characters."),
    ({"word": "a b"}, r"Enter a text that matches the pattern ^\w+$."),
    ({"mode": "odd"}, "Choose one of these values: 'fast' or 'slow'."),
    ({"many": 1}, "Enter a list of values."),
    ({"many": []}, "Enter at least 1 value."),
    ({"many": [1, 2, 3]}, "Enter at most 2 values."),
    ({"many": [1, "x"]}, "Value 2: Enter a whole number."),
    ({"pair": 1}, "Enter a list of values."),
    ({"pair": [1, 2, 3]}, "Enter at most 2 values."),
    ({"extra": 1}, "Enter a JSON object, for example {}."),
    ({"unknown": 1}, "Remove this value; no option has this name."),
]


@pytest.mark.parametrize(("values", "said"), CASES)
def test_an_error_is_a_plain_sentence(values: dict[str, Any], said: str) -> None:
    assert error_of(Every, **values) == said


def test_each_message_is_used() -> None:
    """The cases above, and the two errors below, raise every type that has a message."""

    class Needs(pydantic.BaseModel):
        word: str

    raised = set()
    for options, values in [*((Every, values) for values, _ in CASES), (Needs, {}), (Needs, 1)]:
        with pytest.raises(pydantic.ValidationError) as caught:
            options.model_validate(values)
        raised |= {each["type"] for each in caught.value.errors()}
    assert raised | {"int_parsing_size"} == set(MESSAGES)


def test_our_own_rules_speak_the_visitors_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_MODELS", "")
    assert error_of(Cycles.Options, degree=3) == "degree is 3; expected an even number because each cycle adds two"
    assert "is not allowed in this installation" in error_of(DenseOptions, model="somebody/model")
    with translation.override("de"):
        assert error_of(Every, number="x") == "Bitte eine Zahl eingeben."


def test_an_unknown_type_keeps_its_message() -> None:
    class Strange(pydantic.BaseModel):
        when: pydantic.PastDate

    assert "Date should be in the past" in error_of(Strange, when="2999-01-01")
