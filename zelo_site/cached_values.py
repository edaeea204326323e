"""The form of values in the page cache: JSON with named types. Reading it runs no code, whoever wrote the entry.

It holds what figures consist of: numbers, texts, times, lists, tuples, dicts, numpy arrays without objects, stored sentences,
and dataclasses, named tuples and enumerations of zelo's own packages, which are filled in without calling their constructors.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import importlib
import io
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zipfile import BadZipFile

import numpy as np
from django.utils.functional import Promise

from labeling.stored_texts import StoredText

PACKAGES = frozenset({"labeling", "scoring", "trainer", "workers", "zelo_site"})
_TYPE, _VALUE = "$", "v"
# The errors of the readers on damaged entries.
DAMAGED = (
    ValueError, TypeError, LookupError, ArithmeticError, AttributeError, ImportError, EOFError, RecursionError, BadZipFile,
)  # fmt: skip


class NotCacheable(TypeError):
    """A value whose type the cache's form does not know."""


class Unreadable(ValueError):
    """An entry that this version did not write, or that is damaged."""


class CachedValues:
    """Django's interface of a serializer."""

    def dumps(self, value: Any) -> bytes:
        """Return the entry; integers stay digits, so that the server can add to them. Raises NotCacheable."""
        if type(value) is int:
            return str(value).encode()
        return json.dumps(_plain(value), separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        """Return the value of an entry. Raises Unreadable."""
        try:
            return _value(json.loads(data))
        except DAMAGED as error:
            raise Unreadable(f"the cache holds an entry that cannot be read ({type(error).__name__})") from error


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_plain(each) for each in value]
    if kind is StoredText:
        return _tagged("stored", [value.msgid, _plain(value.params)])
    if isinstance(value, enum.Enum):
        return _tagged("enum", [_name(kind), _plain(value.value)])
    if dataclasses.is_dataclass(value):
        fields = [[each.name, _plain(getattr(value, each.name))] for each in dataclasses.fields(value)]
        return _tagged("data", [_name(kind), fields])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _tagged("named", [_name(kind), [_plain(each) for each in value]])
    if isinstance(value, Promise):
        return str(value)
    for name, accepted, write in _WRITERS:
        if isinstance(value, accepted):
            return _tagged(name, write(value))
    raise NotCacheable(
        f"the page cache cannot hold a {kind.__module__}.{kind.__qualname__}; cache plain figures instead"
    )


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {_TYPE: kind, _VALUE: value}


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    return _READERS[plain[_TYPE]](plain[_VALUE])


def _name(kind: type) -> str:
    if kind.__module__.partition(".")[0] not in PACKAGES:
        raise NotCacheable(f"the page cache holds no {kind.__module__}.{kind.__qualname__}: its package is not zelo's")
    return f"{kind.__module__}:{kind.__qualname__}"


@lru_cache(maxsize=512)
def _class(name: str) -> type:
    module, _separator, path = name.partition(":")
    if module.partition(".")[0] not in PACKAGES:
        raise Unreadable(f"{module} is not one of zelo's packages")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = vars(found)[part]
    data = isinstance(found, type) and (dataclasses.is_dataclass(found) or issubclass(found, enum.Enum | tuple))
    if not data:
        raise Unreadable(f"{name} is not a class of figures")
    return found


def _dataclass(plain: Any) -> Any:
    kind, fields = _class(plain[0]), {name: _value(each) for name, each in plain[1]}
    if {each.name for each in dataclasses.fields(kind)} != set(fields):
        raise Unreadable(f"{plain[0]} has other fields")
    made: Any = object.__new__(kind)
    for name, each in fields.items():
        object.__setattr__(made, name, each)
    return made


def _named_tuple(plain: Any) -> Any:
    kind: Any = _class(plain[0])
    if len(kind._fields) != len(plain[1]):
        raise Unreadable(f"{plain[0]} has other fields")
    return tuple.__new__(kind, [_value(each) for each in plain[1]])


def _array(plain: str) -> Any:
    return np.load(io.BytesIO(base64.b64decode(plain)), allow_pickle=False)


def _array_bytes(value: Any) -> str:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode()


_WRITERS: tuple[tuple[str, Any, Callable[[Any], Any]], ...] = (
    ("tuple", tuple, lambda value: [_plain(each) for each in value]),
    ("set", frozenset | set, lambda value: [_plain(each) for each in value]),
    ("dict", dict, lambda value: [[_plain(key), _plain(each)] for key, each in value.items()]),
    ("time", datetime, lambda value: value.isoformat()),
    ("date", date, lambda value: value.isoformat()),
    ("span", timedelta, lambda value: [value.days, value.seconds, value.microseconds]),
    ("decimal", Decimal, str),
    ("bytes", bytes, lambda value: base64.b64encode(value).decode()),
    ("scalar", np.generic, _array_bytes),
    ("array", np.ndarray, _array_bytes),
    ("text", str, lambda value: str.__str__(value)),
)
_READERS: dict[str, Callable[[Any], Any]] = {
    "stored": lambda plain: StoredText(plain[0], _value(plain[1])),
    "enum": lambda plain: _class(plain[0])(_value(plain[1])),
    "data": _dataclass,
    "named": _named_tuple,
    "tuple": lambda plain: tuple(_value(each) for each in plain),
    "set": lambda plain: frozenset(_value(each) for each in plain),
    "dict": lambda plain: {_value(key): _value(each) for key, each in plain},
    "time": datetime.fromisoformat,
    "date": date.fromisoformat,
    "span": lambda plain: timedelta(*plain),
    "decimal": Decimal,
    "bytes": base64.b64decode,
    "scalar": lambda plain: _array(plain)[()],
    "array": _array,
    "text": str,
}
