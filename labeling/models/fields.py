"""Columns that models of all floors use."""

from __future__ import annotations

from typing import Any

from django.db import models

from labeling.stored_texts import StoredText, as_stored, read_stored


class MessageField(models.TextField):
    """A column of stored sentences: JSON of msgid and parameters; empty where there is none.

    Text rather than jsonb, so that "no sentence" is the empty string that constraints and filters look for.
    """

    def from_db_value(self, value: str | None, expression: object, connection: object) -> str | None:
        return None if value is None else read_stored(value)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, StoredText) else super().to_python(value)

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else as_stored(value)
