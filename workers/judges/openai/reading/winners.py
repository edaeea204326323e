"""The document that the fields next to a score name as the better one. Pure functions of an object's fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from workers.judges.openai.reading.field_names import LOSER, WINNER, better_by_number, names_no_winner
from workers.judges.openai.reading.votes import letter_in


def stated_winners(fields: Mapping[str, Any]) -> set[str]:
    """The documents, "A" or "B", that fields name as the winner; "" for a field that names none."""
    found = {letter for letter in [better_by_number(fields)] if letter}
    return found.union(*(_of_field(name, value) for name, value in fields.items()))


def _of_field(name: str, value: Any) -> set[str]:
    if names_no_winner(name, value):
        return {""}
    if isinstance(value, dict):
        nested = (_of_field(key, inner) for key, inner in value.items() if WINNER.fullmatch(key))
        return set[str]().union(*nested)
    is_loser = LOSER.fullmatch(name) is not None
    if not (is_loser or WINNER.fullmatch(name)) or (letter := _document_in(value)) is None:
        return set()
    return {{"A": "B", "B": "A"}[letter] if is_loser else letter}


def _document_in(value: Any) -> str | None:
    """ "A" or "B" of a field that names a document by its letter, number or place."""
    named = {"1": "A", "first": "A", "the first": "A", "2": "B", "second": "B", "the second": "B"}
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:g}"
    if isinstance(value, list) and value:  # a ranking
        return _document_in(value[0])
    if not isinstance(value, str):
        return None
    plain = re.sub(r"^(?:the )?(?:document|doc|text|option|passage)[ _#-]*", "", value.strip().lower())
    explained = re.match(
        r"\W*(?:[Tt]he )?(?:(?:[Dd]ocument|[Dd]oc|[Tt]ext|[Pp]assage)[ _]+)?([AB])(?:\W*[(>:,;–—-]|\W+(?:is|wins|because|over)\b(?! (?:not|less|worse)))",
        value,
    )
    return named.get(plain) or letter_in(plain) or letter_in(value) or (explained[1] if explained else None)
