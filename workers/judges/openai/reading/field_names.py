"""Names of an object's fields that say more than its score: a later answer, a winner, a loser, a draft. Pure regular expressions."""

from __future__ import annotations

import re
from typing import Any

# Names under which a model contradicts its own "score", "scores", "best" or "ranking".
_LATER = r"(?:final|revised|correct|corrected|actual|overall|true|adjusted|new|updated|last|real|second|total|weighted|combined|mean|average)"
LATER_BEST = re.compile(rf"{_LATER}[ _-]?(?:best|ranking|answer)", re.IGNORECASE)
LATER_SCORE = re.compile(
    rf"{_LATER}[ _-]?scores?|scores?[ _-]?(?:final|revised|corrected|new|updated|actual|overall|true|\d+)",
    re.IGNORECASE,
)
# Names under which a nested object is a later answer, and names of a field that says in a letter which document won.
LATER_ANSWER = re.compile(
    rf"{_LATER}(?:[ _-]?(?:answer|verdict|result|output|response|version|judge?ment|assessment))?|correction|revision|update",
    re.IGNORECASE,
)
WINNER = re.compile(
    r"(?:final[ _-]?)?(?:winner|better|best|preferred|preference|choice|answer|verdict|decision|vote|label|"
    r"result|conclusion|selected|selection|chosen|pick|ranking|relevant|(?:more|most)[ _-]relevant)(?:[ _-](?:document|doc|text|passage|one|answer))?",
    re.IGNORECASE,
)
LOSER = re.compile(
    r"(?:loser|worse|worst|rejected|dispreferred|(?:less|least)[ _-]relevant)(?:[ _-](?:document|doc|text|passage|one|answer))?",
    re.IGNORECASE,
)
# Fields and values by which an object says that it is no answer.
_ERROR = re.compile(r"errors?|refusal", re.IGNORECASE)
_UNREADY = re.compile(
    r"(?:is[ _-]?)?(?:draft|tentative|preliminary|provisional|placeholder|example|sample|hypothetical|template|incomplete|unfinished|"
    r"pending|partial|in[ _-]progress|truncated|invalid|cancell?ed|failed|errors?|refusal|refused)",
    re.IGNORECASE,
)
_READY = re.compile(r"(?:is[ _-]?)?(?:final|valid|complete|completed|finished|confirmed|success)", re.IGNORECASE)
_STATE = re.compile(r"(?:answer[ _-]?)?(?:status|state|type|kind|stage)", re.IGNORECASE)
LATER_WORD = re.compile(rf"\b{_LATER}\b|\bscores?\b|[():-]|\b\d+\Z", re.IGNORECASE)


def is_no_answer(name: str, value: Any) -> bool:
    """Whether a field says that its object is a draft, an example or an error."""
    if _UNREADY.fullmatch(name):
        return value is True or (_ERROR.fullmatch(name) is not None and bool(value))
    if _READY.fullmatch(name):
        return value is False
    return (
        _STATE.fullmatch(name) is not None and isinstance(value, str) and _UNREADY.fullmatch(value.strip()) is not None
    )
