"""Names of an object's fields that say more than its score: a later answer, a winner, a loser, a draft. Pure regular expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    r"(?:final[ _-]?)?(?:gewinner|sieger|ganador|gagnant|vincitore|vencedor|winnaar|zwycięzca|победитель|胜者|勝者|获胜者|승자|winner|better|best|preferred|preference|choice|answer|verdict|decision|vote|label|"
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
# Values by which a field of the winner names none, and fields that say so by themselves.
_NONE = re.compile(
    r"(?:it['’]?s )?(?:an? )?(?:tie|tied|draw|equal|equally(?: relevant)?|both|neither|none|undecided|unclear|cannot decide)",
    re.IGNORECASE,
)
_TIE = re.compile(
    r"(?:is[ _-]?)?(?:tie|tied|draw|both|equal|equally[ _-]relevant|undecided|(?:neither|none)[ _-](?:is[ _-])?\w+|both[ _-](?:are[ _-])?irrelevant)",
    re.IGNORECASE,
)
# Whether one document wins: "a_is_better", "is_b_more_relevant", "b_wins".
_WINS = re.compile(
    r"(?:is[ _-]?)?(?:(?:document|doc|text|passage|option)[ _-]?)?(?P<letter>[ab])[ _-](?:is[ _-])?(?:better|best|winner|wins|won|preferred|more[ _-]relevant)",
    re.IGNORECASE,
)
# A number for one document: "score_a", "relevance of document B", "B".
_OF_ONE = re.compile(
    r"(?:(?:relevance|relevancy|score|rating|grade|points|rank_score|quality)?[ _-]*(?:of|for)?[ _-]*(?:document|doc|text|passage|option)?[ _-]*(?P<end>[ab])"
    r"|(?:document|doc|text|passage|option)?[ _-]*(?P<start>[ab])[ _-]+(?:relevance|relevancy|score|rating|grade|points|quality))",
    re.IGNORECASE,
)
# What stands in place of a reasoning where a model repeats the format: "<your reasoning>", "your sentences", "string", "...".
_PLACEHOLDER = re.compile(
    r"\W*(?:your (?:\w+ ){0,4}\w+|string|todo|tbd|two or three (?:short )?sentences\b[^.]{0,60})\W*|<[^<>]{1,60}>|\[(?:your|insert|brief|short|reasoning|explanation)\b[^\[\]]{0,60}\]|(?:\.{2,}|…)",
    re.IGNORECASE,
)
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


def names_no_winner(name: str, value: Any) -> bool:
    """Whether a field says that no document wins."""
    if _TIE.fullmatch(name):
        return value is True
    return (
        WINNER.fullmatch(name) is not None
        and isinstance(value, str)
        and _NONE.fullmatch(value.strip(" .!")) is not None
    )


def wins_by_flag(name: str, value: Any) -> str:
    """ "A" or "B" where a field says of one document whether it wins; "" otherwise."""
    found = _WINS.fullmatch(name.strip())
    if found is None or not isinstance(value, bool):
        return ""
    letter = found["letter"].upper()
    return letter if value else {"A": "B", "B": "A"}[letter]


def better_by_number(fields: Mapping[str, Any]) -> str:
    """ "A" or "B" where fields give both documents a number and one the larger; "" otherwise."""
    numbers: dict[str, float] = {}
    for name, value in fields.items():
        found = _OF_ONE.fullmatch(name.strip())
        if found and isinstance(value, int | float) and not isinstance(value, bool):
            numbers[(found["end"] or found["start"]).upper()] = value
    if len(numbers) < 2 or numbers["A"] == numbers["B"]:
        return ""
    return "A" if numbers["A"] > numbers["B"] else "B"


def is_placeholder(reasoning: Any) -> bool:
    """Whether a reasoning is that of the requested format, which the model only repeats."""
    return isinstance(reasoning, str) and _PLACEHOLDER.fullmatch(reasoning.strip()) is not None


def is_schema(fields: Mapping[str, Any]) -> bool:
    """Whether an object is a JSON schema rather than an answer."""
    if any(
        isinstance(fields.get(name), dict) and "type" in fields[name] for name in ("score", "scores", "best", "ranking")
    ):
        return True
    return isinstance(fields.get("properties"), dict) and not {"score", "scores", "best", "ranking"} & set(fields)
