"""Model fields shared by all layers."""

from __future__ import annotations

from typing import Any

from django.db import models

from labeling.stored_texts import StoredText, as_stored, read_stored


class MessageField(models.TextField):
    """A column for a stored sentence: JSON of msgid and parameters, or the empty string.

    The column is text instead of jsonb, so that constraints and filters can compare with the empty string.
    """

    def from_db_value(self, value: str | None, expression: object, connection: object) -> str | None:
        return None if value is None else read_stored(value)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, StoredText) else super().to_python(value)

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else as_stored(value)
