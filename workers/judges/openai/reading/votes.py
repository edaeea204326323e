"""The vote that a final text states: a letter, alone or in one of the few sentences that say nothing else.

Both letters, a negation, a question or any further word make it no vote. Pure functions of a text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from workers.judges.openai.reading.afterwards import is_unfinished, takes_back
from workers.judges.openai.reading.elements import after_unknown_elements, is_commented, without_wrappers
from workers.judges.openai.reading.order import is_retracted

MOST_CHARACTERS = 200  # of a text that says a letter and nothing else

_BEFORE = r"[\s*_\"'`“”‘’(\[{<#>:.]*(?:-\s+)?"
_AFTER = r"[\s*_\"'`“”‘’)\]}>:!,]*\.?[\s*_\"'`“”‘’)\]}>]*"
_LABEL = (
    r"(?:document|doc|option|choice|passage|text|candidate|ドキュメント|dokument|documento|文档|文件|文書|문서)?"
    + r"[\s*_\"'`“(\[]*"
)
_NAMED = (
    r"(?:(?:so|thus|therefore|hence)\s*[,:]?\s+)?(?:(?:my |the )?(?:(?:final|correct|best|better|preferred|selected|more relevant|most relevant) )*"
    r"(?:answer|choice|verdict|vote|document|winner|result|decision|output|response|label|letter|judge?ment|preference|selection|one|doc|passage|text)"
    r"(?: is)?\s*:?|(?:selected|more relevant|most relevant)\s*:|it is|it['’]s|i(?:['’]d| would)? (?:choose|pick|select|vote for|say|prefer)|i (?:think|believe)|therefore\s*:|(?:so|thus|therefore)\s*,|选择?|我选择|(?:le|el|il|o) |"
    r"(?:(?:die|meine|la|ma|mi|mia|a|minha|het|mijn) )?(?:finale |endgültige )?(?:antwort|wahl|réponse|choix|respuesta|elección|risposta|resposta|antwoord)"
    r"(?: finale?| final)?(?: ist| lautet| est| es| è| é| is)?\s*:?|(?:ответ|정답|답변?|答え|(?:最终|最終)?(?:答案|回答|选择|選択))\s*(?:是|为|は|은)?\s*:?)[\s*_]*(?:\n\s*)?"
)
_WINS = (
    r"(?: is (?:(?:the )?(?:(?:more|most) relevant|better|best)(?: document| one| match| answer)?|(?:the|my) (?:final )?answer)(?: to the query)?"
    r"(?: than (?:the )?(?:document |doc |passage |text )?[A-H])?|\s*更相关|\s*です| ist relevanter| est plus pertinent| es más relevante| è più pertinente|입니다)?"
)
_WELL = r"(?:(?:sure|okay|ok|certainly)\s*[!.,:]\s*)?"
_VOTE = re.compile(
    rf"{_BEFORE}{_WELL}(?:{_NAMED})?(?:the )?{_LABEL}(?P<letter>[AB])[*_\"'`”)\]]*{_WINS}"
    rf"(?:[\s.:,()*–—-]{{1,6}}(?:document|doc)?\s*(?P=letter))?{_AFTER}",
    re.IGNORECASE,
)
_WRAPPED = re.compile(
    r"<(?P<tag>answer|final|final_answer|response|output|result|verdict|vote)>\s*(?P<inner>.*?)\s*(?:</(?P=tag)>)?|"
    r"(?P<ended>[^<>]*?)\s*</(?:answer|final|final_answer|response|output|result|verdict|vote)>|"
    r"\\boxed\{\s*(?:\\(?:text(?:bf)?|math(?:rm|bf))\{)?(?P<boxed>[^{}]*)\}{1,2}",
    re.IGNORECASE | re.DOTALL,
)

# A letter in a box inside a sentence; quotation marks and stops of other scripts; a header that a template leaves.
_BOXED = re.compile(r"\$?\\boxed\{\s*(?:\\(?:text(?:bf)?|math(?:rm|bf))\{)?\s*([AB])\s*\}{1,2}\$?")
_QUOTES = str.maketrans(
    dict.fromkeys("«»‹›„「」『』【】《》〔〕〈〉", '"') | {"。": ".", "、": ","} | dict.fromkeys("✅✓✔☑\ufe0f")
)
_CONTROLS = re.compile("\x1b\\[[0-9;]*m|[\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_HEADER = re.compile(r"\A\s*(?:assistant|model)\s*(?::|\n)\s*", re.IGNORECASE)
_FENCED = re.compile(
    r"```(?:json\w*|te?xt|plain\w*|markdown|md|output|answer|result|response)?\n(.*)\n```", re.DOTALL | re.IGNORECASE
)
_FIELD = re.compile(
    r"(?:final[ _-]?)?(?:winner|better|best|preferred|preference|choice|answer|verdict|vote|label|letter|result|response|output|decision|selected|"
    r"(?:more|most)[ _-]relevant)(?:[ _-]document)?",
    re.IGNORECASE,
)

# A letter alone on its line, or with its reason behind it.
_EXPLAINED = re.compile(
    r"[\s*_]*(?:answer:?[\s*_]*)?(?:document )?[AB][\s*_.]*(?:\n|,? (?:because|since)\b)", re.IGNORECASE
)
_REASON = re.compile(r"reason(?:ing)?|explanation|rationale|justification|analysis", re.IGNORECASE)
_OTHER_LINE = re.compile(r"(?:no,|\b(?:wait|actually|correction|no|not|wrong|sorry|neither|both|or)\b)", re.IGNORECASE)


def label_in(text: str, labels: Sequence[str]) -> str | None:
    """The one label that a text answers with, whatever explains it in further lines or a sentence that it begins; else None.

    "A", "A.", "A is more relevant because", "A\\n\\nDocument A names it"; not "A is wrong", "A or B", "A careful look".
    """
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).strip()
    if text.upper() in labels:
        return text.upper()
    head, _, rest = text.partition("\n")
    found = _label(head, labels)
    said = {_label(line, labels) for line in rest.split("\n")} - {None, found}
    if (
        said
        or (rest.strip() and _OTHER_LINE.match(rest.strip(" \n*_")))
        or takes_back(rest, found)
        or is_unfinished(rest)
    ):
        return None
    return found


def _label(line: str, labels: Sequence[str]) -> str | None:
    one = "|".join(map(re.escape, labels))
    pattern = re.compile(
        rf"{_BEFORE}(?:{_NAMED})?(?:the )?{_LABEL}(?P<label>{one})[*_\"'`”)\]]*(?:{_AFTER}|{_WINS}{_AFTER}|"
        rf"(?: is (?:the )?(?:more|most) relevant\b|,? (?:because|since|as)\b|(?:\s*[:.]|\s+[-–—])\s+(?=(?:document|doc) (?P=label)\b))(?P<why>.*))",
        re.IGNORECASE,
    )
    if one.replace("|", "").isdigit() and (
        graded := re.fullmatch(rf"\W*(?P<label>{one})[*_]*\s*[(:–—-]\s*[^\W\d][^\d\n?]*", line.strip())
    ):
        return graded["label"]
    match = pattern.fullmatch(line.strip())
    if match is None or (
        (match["why"] and re.search(r"\b(?:not|if|unless|or|neither|both|wrong)\b|\?", match["why"]))
        or (match["why"] and takes_back(f"{match['label']}{match['why']}", match["label"].upper()))
    ):
        return None
    label = match["label"]
    is_alone = re.fullmatch(r"\W*\w\W*", line.strip()) is not None
    return label.upper() if label.upper() == label or is_alone else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, empty if it holds one field twice with different values."""
    found = dict(pairs)
    return found if all(found[name] == value for name, value in pairs) else {}


def _of_json(text: str) -> str:
    """The text, or what it holds if it is a JSON string or an object of one field that names the answer."""
    fenced = _FENCED.fullmatch(text)
    text = fenced[1].strip() if fenced else text
    if not text.startswith(("{", '"')):
        return text
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) and len(value) == 2:  # a reason beside the answer
        answers = {
            name: each for name, each in value.items() if not _REASON.fullmatch(name) or not isinstance(each, str)
        }
        [*reasons] = [each for name, each in value.items() if name not in answers]
        said = next((letter_in(each) for each in answers.values() if isinstance(each, str)), None)
        value = answers if not any(is_retracted(each) or takes_back(each, said) for each in reasons) else {}
    if isinstance(value, dict) and len(value) == 1:
        [(name, value)] = value.items()
        return value if isinstance(value, str) and _FIELD.fullmatch(name) else ""
    return value if isinstance(value, str) else ""


def _explained(text: str) -> str | None:
    """The letter before its reason, unless the reason names the other document."""
    letter = label_in(text, ("A", "B"))
    other = {"A": "B", "B": "A"}.get(letter or "", "")
    return None if other and re.search(rf"(?<![^\W_]){other}(?![^\W_]|['’])", text) else letter


def letter_in(text: str) -> str | None:
    """ "A" or "B", None where the text states neither or more than that."""
    text = after_unknown_elements(without_wrappers(unicodedata.normalize("NFKC", text)))
    text = _CONTROLS.sub("", text).strip().strip("$").strip()
    if len(text) > MOST_CHARACTERS or is_commented(text) or is_unfinished(text.partition("\n")[2]):
        return None
    text = _BOXED.sub(r"\1", _HEADER.sub("", text).translate(_QUOTES))
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped is not None:
        text = (wrapped["inner"] or wrapped["ended"] if wrapped["boxed"] is None else wrapped["boxed"]).strip()
    match = _VOTE.fullmatch(_of_json(text))
    if match is None:
        return _explained(text) if _EXPLAINED.match(text) else None
    letter = match["letter"]
    # "a" in a sentence may be the article; as the whole text it is the letter.
    is_alone = re.fullmatch(r"\W*[ab]\W*", text) is not None
    return letter.upper() if letter.isupper() or is_alone else None
