"""The document that an answer, or the fields next to a score, name as the better one. Pure functions of what an object states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from workers.judges.openai.reading.field_names import LOSER, WINNER, better_by_number, names_no_winner, wins_by_flag
from workers.judges.openai.reading.votes import letter_in

# A score that stands as text beside the object, on its own line or in a sentence.
_SCORE_AS_TEXT = re.compile(
    r"(?:\b(?:score|edit|correction|final|overall|total|verdict|boxed|better|correct|corrected|revised|score \(\w+\))\W{0,4}(?:[:={→]|->|=>)\s*|\b(?:the|my|correct|final|right|actual) (?:score|value|answer)(?: for this pair)?"
    r" (?:is|should be|would be|must be)(?: now)?[\s*:]+|\b(?:score|make (?:it|that|this))(?: should| would| must)?(?: read| be)?[\s*]+(?=-)|"
    r"(?:\A|[.!?\n]\s*)(?=-?\d+(?:\.\d+)? is the (?:right|correct|final|real|actual|better) (?:score|answer|value))|\b(?:rate|score) (?:it|this|them|the pair)(?: as| at)?[\s*]+|(?:\A|\n)[\s*_`]*(?=-?\d+(?:\.\d+)?[\s*_`.]*(?:\n|\Z)))"
    r"(-?\d+(?:\.\d+)?)(?!\d|\s+(?:if|when|only|to)\b)",
    re.IGNORECASE,
)


def winner_of(stated: Any) -> str | None:
    """The document that a score, scores by name, or an answer about a set name as the best; None for a tie, "AB" where the scores differ."""
    if isinstance(stated, tuple):  # a score, and whether neither document is relevant: then the score says nothing
        return "AB" if stated[1] else winner_of(stated[0])
    if isinstance(stated, dict) and stated and all(isinstance(each, float) for each in stated.values()):
        return "".join(sorted({winner_of(score) or "" for score in stated.values()})) or None
    if isinstance(stated, dict):
        order = stated.get("ranking")
        best = stated.get("best") or (order[0] if isinstance(order, list) and order else None)
        return letter_of(best) if isinstance(best, str) else None
    return None if not isinstance(stated, float) or not stated else "A" if stated > 0 else "B"


def letter_of(value: str) -> str:
    """The letter of a document, without the word before it."""
    return re.sub(r"^(?:THE )?(?:DOCUMENT|DOC|OPTION|PASSAGE|TEXT)[ _#-]*", "", value.strip().upper())


def states_another_score(text: str, stated: Any) -> bool:
    """Whether a text states a score that is not the answer's, or that no weights of its scores lead to."""
    score = stated[0] if isinstance(stated, tuple) else stated
    scores = list(score.values()) if isinstance(score, dict) else [score]
    if not scores or not all(isinstance(each, float) for each in scores):
        return False
    return any(not min(scores) <= float(each) <= max(scores) for each in _SCORE_AS_TEXT.findall(text))


def stated_winners(fields: Mapping[str, Any]) -> set[str]:
    """The documents, "A" or "B", that fields name as the winner; "" for a field that names none."""
    found = {letter for letter in [better_by_number(fields)] if letter}
    return found.union(*(_of_field(name, value) for name, value in fields.items()))


def _of_field(name: str, value: Any) -> set[str]:
    if names_no_winner(name, value):
        return {""}
    if flagged := wins_by_flag(name, value):
        return {flagged}
    if isinstance(value, dict):
        if better := better_by_number(value):
            return {better}
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
    plain = re.sub(
        r"^(the )?(first|second)(?: (?:document|doc|text|option|passage|one))?(?: (?:is|wins)(?: (?:the )?(?:better|best|more relevant))?)?[.!]?$",
        r"\2",
        plain,
    )
    explained = re.match(
        r"\W*(?:[Tt]he )?(?:(?:[Dd]ocument|[Dd]oc|[Tt]ext|[Pp]assage)[ _]+)?([AB])(?:\W*[(>:,;–—-]|\W+(?:is|wins|because|over)\b(?! (?:not|less|worse)))",
        value,
    )
    return named.get(plain) or letter_in(plain) or letter_in(value) or (explained[1] if explained else None)
