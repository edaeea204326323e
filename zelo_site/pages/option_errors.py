"""The messages of a pydantic model's errors on pages, translatable, by the type of the error.

pydantic's own messages are English and name Python's types. The keys of `MESSAGES` are the error types of
`pydantic_core`; the placeholders are its context.
"""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy
from pydantic_core import ErrorDetails

from labeling.wording import translated

A_NUMBER, A_WHOLE_NUMBER = gettext_lazy("Enter a number."), gettext_lazy("Enter a whole number.")
A_TEXT = gettext_lazy("Enter a text.")
A_LIST = gettext_lazy("Enter a list of values.")
AN_OBJECT = gettext_lazy("Enter a JSON object, for example {}.")
YES_OR_NO = gettext_lazy("Choose yes or no.")

MESSAGES: dict[str, str | Promise] = {
    "missing": gettext_lazy("This field is required."),
    "extra_forbidden": gettext_lazy("Remove this value; no option has this name."),
    "greater_than_equal": gettext_lazy("Enter a number of at least %(ge)s."),
    "greater_than": gettext_lazy("Enter a number above %(gt)s."),
    "less_than_equal": gettext_lazy("Enter a number of at most %(le)s."),
    "less_than": gettext_lazy("Enter a number below %(lt)s."),
    "finite_number": A_NUMBER,
    "float_type": A_NUMBER,
    "float_parsing": A_NUMBER,
    "int_type": A_WHOLE_NUMBER,
    "int_parsing": A_WHOLE_NUMBER,
    "int_parsing_size": A_WHOLE_NUMBER,
    "int_from_float": A_WHOLE_NUMBER,
    "bool_type": YES_OR_NO,
    "bool_parsing": YES_OR_NO,
    "string_type": A_TEXT,
    "string_unicode": A_TEXT,
    "string_too_short": ngettext_lazy(
        "Enter at least %(min_length)s character.", "Enter at least %(min_length)s characters.", "min_length"
    ),
    "string_too_long": ngettext_lazy(
        "Enter at most %(max_length)s character.", "Enter at most %(max_length)s characters.", "max_length"
    ),
    "string_pattern_mismatch": gettext_lazy("Enter a text that matches the pattern %(pattern)s."),
    "literal_error": gettext_lazy("Choose one of these values: %(expected)s."),
    "list_type": A_LIST,
    "tuple_type": A_LIST,
    "too_short": ngettext_lazy(
        "Enter at least %(min_length)s value.", "Enter at least %(min_length)s values.", "min_length"
    ),
    "too_long": ngettext_lazy(
        "Enter at most %(max_length)s value.", "Enter at most %(max_length)s values.", "max_length"
    ),
    "dict_type": AN_OBJECT,
    "model_type": AN_OBJECT,
}
# The messages of our validators, which raise a ValueError or assert; a stored text is translated.
OWN_MESSAGES = ("value_error", "assertion_error")


def option_error(error: ErrorDetails) -> str:
    """Return the error's message in the visitor's language; for a value inside a field, after the value's place.

    An error type without a message here keeps pydantic's, which is English: a third-party plugin can raise any type.
    """
    message = _message(error)
    inside = ".".join(str(step + 1) if isinstance(step, int) else str(step) for step in error["loc"][1:])
    return _("Value %(place)s: %(message)s") % {"place": inside, "message": message} if inside else message


def _message(error: ErrorDetails) -> str:
    context = error.get("ctx") or {}
    if error["type"] in OWN_MESSAGES:
        raised = context.get("error")
        return translated(raised.args[0] if isinstance(raised, Exception) and raised.args else raised)
    if error["type"] not in MESSAGES:
        return error["msg"]
    return str(MESSAGES[error["type"]] % {name: _plain(value) for name, value in context.items()})


def _plain(value: object) -> object:
    """Return a number without a trailing `.0`, and anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
