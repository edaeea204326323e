"""The vote that a final text states: a letter, alone or in one of the few sentences that say nothing else.

Both letters, a negation, a question or any further word make it no vote. Pure functions of a text.
"""

from __future__ import annotations

import re
import unicodedata

from workers.judges.openai.reading.elements import after_unknown_elements

MOST_CHARACTERS = 200  # of a text that says a letter and nothing else

_BEFORE = r"[\s*_\"'`“”‘’(\[{<#>:.]*(?:-\s+)?"
_AFTER = r"[\s*_\"'`“”‘’)\]}>:!,]*\.?[\s*_\"'`“”‘’)\]}>]*"
_LABEL = r"(?:document|doc|option|choice)?" + r"[\s*_\"'`“(\[]*"
_NAMED = (
    r"(?:(?:my |the )?(?:(?:final|correct|best|better|more relevant|most relevant) )*(?:answer|choice|verdict|vote|document)"
    r"(?: is)?\s*:?|it is|it['’]s|i (?:choose|pick|select|vote for))[\s*_]*(?:\n\s*)?"
)
_WINS = r"(?: is (?:the )?(?:more|most) relevant(?: document| one)?(?: to the query)?)?"
_VOTE = re.compile(
    rf"{_BEFORE}(?:{_NAMED})?(?:the )?{_LABEL}(?P<letter>[AB])[*_\"'`”)\]]*{_WINS}{_AFTER}", re.IGNORECASE
)
_WRAPPED = re.compile(
    r"<(?P<tag>answer|final|final_answer|response|output|result|verdict|vote)>\s*(?P<inner>.*?)\s*(?:</(?P=tag)>)?|"
    r"\\boxed\{\s*(?:\\text\{)?(?P<boxed>[^{}]*)\}{1,2}",
    re.IGNORECASE | re.DOTALL,
)


def letter_in(text: str) -> str | None:
    """ "A" or "B", None where the text states neither or more than that."""
    text = after_unknown_elements(unicodedata.normalize("NFKC", text)).strip().strip("$").strip()
    if len(text) > MOST_CHARACTERS:
        return None
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped is not None:
        text = (wrapped["inner"] if wrapped["tag"] else wrapped["boxed"]).strip()
    match = _VOTE.fullmatch(text)
    if match is None:
        return None
    letter = match["letter"]
    # "a" in a sentence may be the article; as the whole text it is the letter.
    is_alone = re.fullmatch(r"\W*[ab]\W*", text) is not None
    return letter.upper() if letter.isupper() or is_alone else None
