"""Plugin options that a command takes as JSON."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object of the argument `--options`. Raises CommandError."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--options {text!r} is not JSON ({error}); pass a JSON object in single quotes") from error
    if not isinstance(value, dict):
        raise CommandError(f'--options {text!r} is not a JSON object; pass one such as {{"k1": 1.2}}')
    return value
