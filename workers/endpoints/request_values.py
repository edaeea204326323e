"""Values that an operator adds to the requests to an endpoint: headers and query parameters.

A value is literal, or its place is an environment variable or a file; such a value is read when a call is made, as keys are.
`workers.endpoints.registry` uses it; imports no Django.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

LONGEST_VALUE = 8192
SHAPE = 'must be a text, {"env": "NAME"} or {"file": "/path"}'
# Versions, and what names the caller, are no secrets: messages are useless without them, and a reasoning may hold the same words.
PUBLIC_NAMES = {
    *("api-version", "anthropic-version", "anthropic-beta", "openai-beta", "user-agent", "accept", "accept-language"),
    *("referer", "http-referer", "x-title"),
}
# What these say is decided by the connection or by the request itself (RFC 9110, 7.6.1), not by an operator.
RESERVED_HEADERS = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade", "host", "content-length", "content-type", "content-encoding", "expect"),
    *("accept-encoding", "cookie"),
}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


class ValueMissing(LookupError):
    """The environment variable or file of a value is empty or cannot be read; the message names the place, not the value."""


class RequestValue(pydantic.BaseModel):
    """One value: written `"text"`, `{"env": "NAME"}` or `{"file": "/path"}`. It never shows a literal text."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    text: pydantic.SecretStr | None = None
    env: str = ""
    file: Path | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str | Mapping | RequestValue):
            raise ValueError(SHAPE)
        return {"text": value} if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> RequestValue:
        if sum((self.text is not None, bool(self.env), self.file is not None)) != 1:
            raise ValueError(SHAPE)
        if self.text is not None and (problem := _problem(self.text.get_secret_value())):
            raise ValueError(problem)
        return self

    def read(self) -> str:
        """The current value. Raises ValueMissing."""
        if self.text is not None:
            return self.text.get_secret_value()
        return read_place(self.env, self.file)


def read_place(env: str, file: Path | None) -> str:
    """The value in an environment variable or else in a file, without surrounding blanks. Raises ValueMissing."""
    source = f"environment variable {env}" if env else f"file {file}"
    try:
        value = os.environ.get(env, "") if env or file is None else file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueMissing(
            f"{source} cannot be read ({error.strerror}); create it, readable only by the workers"
        ) from None
    except UnicodeDecodeError:
        raise ValueMissing(f"{source} is not text; write it again as UTF-8") from None
    value = value.strip()
    if not value:
        raise ValueMissing(f"{source} is empty; put the value there and restart the workers")
    if _problem(value):
        raise ValueMissing(f"{source} holds characters that no header has; write it again")
    return value


def _problem(value: str) -> str:
    """The problem of a value as it would be sent, without showing it; empty if there is none."""
    if not value.strip():
        return "is empty; leave the name out instead"
    if not value.isascii() or not value.isprintable():
        return "holds line breaks, control characters or letters outside ASCII"
    return f"is longer than {LONGEST_VALUE} characters" if len(value) > LONGEST_VALUE else ""


def check_header_names(names: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that is no header, that the connection sets itself, or that is given twice."""
    seen = set()
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r:.60} is not a valid header name; use letters, digits and hyphens")
        if name.lower() in RESERVED_HEADERS:
            raise ValueError(f"{name!r} cannot be set; the connection sets it")
        if name.lower() in seen:
            raise ValueError(f"{name!r} is given twice")
        seen.add(name.lower())


def check_query_names(names: Mapping[str, Any]) -> None:
    """Raise ValueError for an empty name, or one with a character that separates parameters."""
    for name in names:
        if not name or not name.isascii() or not name.isprintable() or set(name) & set("&=?# "):
            raise ValueError(f"{name!r:.60} is not a valid query parameter")
