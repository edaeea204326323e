"""The score that a final text states: in its last complete JSON object.

Echoes of the requested format, examples and nested objects are no answers. Two objects that contradict each other without an
order (a list, "or") are a failure, as is anything unfinished after the last object. Pure functions of a text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from workers.judges.criteria import key_of
from workers.judges.openai.reading.elements import is_in_unknown_element

Stated = TypeVar("Stated")
MOST_BRACES = 256
MOST_GAP = 200  # characters between two objects that are read for alternatives
PLACEHOLDER = "your sentences"  # of `prompts/answer_score.txt`
_WRAPPERS = {"answer", "result", "response", "output", "final", "final_answer", "comparison", "json"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")

# Words directly before an object that say that it is no answer.
_NO_ANSWER = re.compile(
    r"(?:\b(?:for (?:example|instance)|e\.g\.|examples?|example (?:answer|output|reply)|such as|looks? like|something like|"
    r"not|instead of|rather than|never|(?:format|form|template|schema|pattern) (?:is|would be|was|are)))[\s:,`*\"']*"
    r"(?:```\w*\s*)?\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|unless|assuming|suppose|supposing|provided)\b[^.;{}\n]{0,80}\Z", re.IGNORECASE)
_FENCE = re.compile(r"```\w*")
_ALTERNATIVES = re.compile(
    r"\W*(?:(?:or|and|and/or|vs|versus|alternatively|otherwise|else|perhaps|maybe|possibly|even|also|either|another|"
    r"it could be|could be)\b\W*)+",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"\b(?:option|alternative|choice|candidate|possibility|version|variant|answer|document|text|passage)\s*"
    r"(?:\d+|[A-D]|one|two|three)\b\W*\Z"
    r"|(?:\A|\n)\s*(?:[-+•*]|\d+[.)]|\(?[A-Da-d][.):])\s*(?:```\w*\s*)?\Z",
    re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"(?:\A|[.!?\n])\W*(?:wait|actually|correction|on second thought|scratch that|hold on|hmm|no,|sorry|i meant|"
    r"i was wrong|i take (?:that|it) back|that(?:['’]s| is) (?:wrong|incorrect|not right)|ignore (?:that|the above)|strike that|"
    r"oops|i mixed|i retract|(?:however, )?this is (?:wrong|reversed)|it is (?:wrong|reversed)|is wrong)\b",
    re.IGNORECASE,
)
# Names under which a model contradicts its own "score".
_LATER_BEST = re.compile(
    r"(?:final|revised|corrected|actual|true|adjusted)[ _-]?(?:best|ranking|answer)", re.IGNORECASE
)
_LATER_SCORE = re.compile(
    r"(?:final|revised|corrected|actual|overall|true|adjusted|new|updated|last)[ _-]?score|"
    r"score[ _-]?(?:final|revised|corrected|new|updated|2)",
    re.IGNORECASE,
)
# A score that stands as text after the object.
_SCORE_AS_TEXT = re.compile(r"\b(?:score|edit|correction|final|boxed)\W{0,4}[:={]\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scored:
    """A score in [-1, 1] and the reasoning beside it, as the model wrote it."""

    score: float
    reasoning: str


@dataclass(frozen=True, slots=True)
class ScoredByCriterion:
    """A score in [-1, 1] for each name, in the order of the names, and the reasoning beside them."""

    scores: dict[str, float]
    reasoning: str


class NoScore(ValueError):
    """The text states no score; `why` is the kind of problem."""

    def __init__(self, why: Literal["none", "cut", "range", "contradiction"], message: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True)
class _Item:
    """A piece of the text that begins with a brace: an object, or one that is broken or cut off (value None)."""

    start: int
    end: int
    value: dict[str, Any] | None
    is_cut: bool = False


class _Conflict:
    """The value of a key that one object holds twice with different values."""

    def __repr__(self) -> str:
        return "two different values"


_CONFLICT = _Conflict()
# Keys whose values are answers; their case does not matter.
_ANSWERS = ("score", "scores", "best", "ranking")


def score_in(text: str) -> Scored:
    """The score of the last complete object. Raises NoScore."""
    return Scored(*_last_in(text, "score", _read))


def scores_in(text: str, names: Sequence[str]) -> ScoredByCriterion:
    """The scores of all these names in the last complete object. Raises NoScore as `score_in` does, also where one is missing."""
    return ScoredByCriterion(*_last_in(text, "scores", lambda document: _read_names(document, names)))


def _last_in(text: str, key: str, read: Callable[[dict[str, Any]], tuple[Stated, str]]) -> tuple[Stated, str]:
    """What `read` finds in the last complete object with this key, and the reasoning beside it. Raises NoScore."""
    text = _unquoted(text)
    items = [item for item in _items(text) if _matters(item, text, key)]
    if not items:
        raise NoScore("none", f'there is no JSON object with a "{key}"')
    last = items[-1]
    if last.is_cut:
        raise NoScore("cut", "its last JSON object is not complete")
    if last.value is None:
        raise NoScore("none", "its last object is not valid JSON")
    stated, reasoning = read(last.value)
    _check_order(items, text, stated, read)
    if _is_open_list(text[: items[0].start], text[last.end :]):
        raise NoScore("cut", "its list of JSON objects is not complete")
    after = _FENCE.sub("", text[last.end :])
    if _RETRACTED.search(after):
        raise NoScore("contradiction", "the text after its JSON object takes it back")
    if isinstance(stated, float) and any(float(each) != stated for each in _SCORE_AS_TEXT.findall(after)):
        raise NoScore("contradiction", "the text after its JSON object states another score")
    return stated, reasoning


def ranking_in(text: str) -> dict[str, Any]:
    """The last complete object that has a "ranking" or a "best". Raises NoScore as `score_in` does."""
    text = _unquoted(text)
    items = [item for item in _items(text) if _may_rank(item, text)]
    if not items:
        raise NoScore("none", "there is no JSON object with an answer")
    last = items[-1]
    if last.is_cut:
        raise NoScore("cut", "its last JSON object is not complete")
    if last.value is None:
        raise NoScore("none", "its last object is not valid JSON")
    if _is_open_list(text[: items[0].start], text[last.end :]):
        raise NoScore("cut", "its list of JSON objects is not complete")
    if any(_LATER_BEST.fullmatch(name) for name in last.value):
        raise NoScore("contradiction", "it holds two different answers")
    if any(last.value.get(name) is _CONFLICT for name in _ANSWERS):
        raise NoScore("contradiction", "it holds two different answers")
    for earlier, later in zip(items[-2::-1], items[:0:-1], strict=True):
        if not _is_unordered(text[: earlier.start], text[earlier.end : later.start]):
            break
        if earlier.value != last.value:
            raise NoScore(
                "contradiction", "it holds several JSON objects with different answers and no order between them"
            )
    if _RETRACTED.search(_FENCE.sub("", text[last.end :])):
        raise NoScore("contradiction", "the text after its JSON object takes it back")
    return last.value


def _may_rank(item: _Item, text: str) -> bool:
    before = text[max(0, item.start - 80) : item.start]
    if item.value is None:
        piece = text[item.start : item.end].casefold()
        return item.is_cut or '"' in piece or "best" in piece or "ranking" in piece
    is_ranking = "ranking" in item.value or "best" in item.value
    is_example = _NO_ANSWER.search(before) or _CONDITION.search(before)
    return is_ranking and not is_example and not is_in_unknown_element(text, item.start, item.end)


def _is_open_list(before: str, after: str) -> bool:
    return after.strip() == "," or (before.rstrip().endswith("[") and "]" not in after)


def _unquoted(text: str) -> str:
    """The text, or what it holds if it is one JSON string, as some gateways encode an answer twice."""
    if text.startswith('"') and text.endswith('"'):
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return inner if isinstance(inner, str) else text
    return text


# --- objects in a text -------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        key = name.strip().casefold() if name.strip().casefold() in _ANSWERS else name
        may_answer = key in _ANSWERS or _number(value) is not None or _number(found.get(key)) is not None
        is_conflict = may_answer and key in found and found[key] != value and not _is_same(found[key], value)
        found[key] = _CONFLICT if is_conflict else value
    return found


def _is_same(one: Any, other: Any) -> bool:
    numbers = [_number(value) for value in (one, other)]
    return numbers[0] is not None and numbers[0] == numbers[1]


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, strict=False)


def _items(text: str) -> list[_Item]:
    """The outermost objects of the text, in order."""
    items: list[_Item] = []
    place = text.find("{")
    for _ in range(MOST_BRACES):
        if place < 0:
            return items
        item = _item(text, place)
        if item is not None:
            items.append(item)
            if item.is_cut:
                return items
        place = text.find("{", item.end if item is not None else place + 1)
    raise NoScore("none", f"it has more than {MOST_BRACES} braces")


def _item(text: str, start: int) -> _Item | None:
    """The object at a brace; None for a brace that opens none, such as the first of {{...}}."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError, OverflowError):
        return _broken_item(text, start)
    return _Item(start, end, value)


def _broken_item(text: str, start: int) -> _Item | None:
    if not re.compile(r"\{\s*(?:[\"'}\w]|\Z)").match(text, start):
        return None
    closed = _balanced_end(text, start)
    if closed is not None:
        return _Item(start, closed, None)
    if not re.compile(r"\{\s*(?:[\"'}]|\w+\"?\s*:|\Z)").match(text, start):
        return None
    return _Item(start, len(text), None, is_cut=True)


def _balanced_end(text: str, start: int) -> int | None:
    """The place after the brace that closes the one at `start`; braces inside JSON strings do not count."""
    depth, in_string, place = 0, False, start
    while place < len(text):
        character = text[place]
        if in_string:
            if character == "\\":
                place += 1
            in_string = character != '"'
        elif character == '"':
            in_string = True
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return place + 1
        place += 1
    return None


def _matters(item: _Item, text: str, key: str) -> bool:
    """Whether the item may be an answer or may hide one; a repeated format and an example may not."""
    before = text[max(0, item.start - 80) : item.start]
    if item.value is None:
        piece = text[item.start : item.end]
        return PLACEHOLDER not in piece and (item.is_cut or '"' in piece or "score" in piece.casefold())
    if not _mentions(key, item.value) or _NO_ANSWER.search(before) or _CONDITION.search(before):
        return False
    if str(item.value.get("reasoning", "")).strip(" .<>[]").casefold() == PLACEHOLDER:
        return False
    return not is_in_unknown_element(text, item.start, item.end)


def _mentions(key: str, value: Any) -> bool:
    if isinstance(value, dict):
        return key in value or any(_mentions(key, inner) for inner in value.values())
    return isinstance(value, list) and any(_mentions(key, inner) for inner in value)


# --- what an object states ---------------------------------------------------------------


def _read(document: dict[str, Any]) -> tuple[float, str]:
    """(score, reasoning) of an object, or of the one object that it wraps. Raises NoScore."""
    document = _unwrapped(document, "score")
    if "score" not in document:
        raise NoScore("none", 'its last JSON object has no "score" of its own')
    score = _number(document["score"])
    if score is None or not math.isfinite(score) or not -1.0 <= score <= 1.0:
        raise NoScore("range", f"its score is {document['score']!r:.40}")
    if any(_LATER_SCORE.fullmatch(name) and not _is_same(value, score) for name, value in document.items()):
        raise NoScore("contradiction", "it holds two different scores")
    return float(score), _reasoning_of(document)


def _unwrapped(document: dict[str, Any], key: str) -> dict[str, Any]:
    if key not in document and len(document) == 1:
        [(name, inner)] = document.items()
        if name.casefold() in _WRAPPERS and isinstance(inner, dict):
            return inner
    return document


def _reasoning_of(document: dict[str, Any]) -> str:
    reasoning = next((value for name, value in document.items() if name.strip().casefold() == "reasoning"), "")
    return reasoning if isinstance(reasoning, str) else json.dumps(reasoning, default=str)


def _read_names(document: dict[str, Any], names: Sequence[str]) -> tuple[dict[str, float], str]:
    """({name: score}, reasoning) of an object, or of the one object that it wraps. Raises NoScore.

    An overall score that lies outside those of the criteria contradicts them, since no weights lead to it.
    """
    document = _unwrapped(document, "scores")
    given = document.get("scores")
    if not isinstance(given, dict):
        raise NoScore(
            "contradiction" if given is _CONFLICT else "none", 'its last JSON object has no "scores" of its own'
        )
    found: dict[str, float] = {}
    for name in names:
        values = [value for key, value in given.items() if key_of(key) == key_of(name)]
        if not values:
            raise NoScore("none", f"it has no score of {name!r}")
        score = _number(values[0])
        if values[0] is _CONFLICT or not all(_is_same(value, score) for value in values[1:]):
            raise NoScore("contradiction", f"it holds two different scores of {name!r}")
        if score is None or not -1.0 <= score <= 1.0:
            raise NoScore("range", f"its score of {name!r} is {values[0]!r:.40}")
        found[name] = score
    overall = [_number(value) for key, value in document.items() if key == "score" or _LATER_SCORE.fullmatch(key)]
    low, high = min(found.values()), max(found.values())
    if any(value is None or not low <= value <= high for value in overall):
        raise NoScore("contradiction", "it holds an overall score that its scores do not lead to")
    return found, _reasoning_of(document)


def _number(value: Any) -> float | None:
    """The number, also of a string that is exactly a JSON number."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _check_order(
    items: list[_Item], text: str, stated: Stated, read: Callable[[dict[str, Any]], tuple[Stated, str]]
) -> None:
    """Raise NoScore if an object that stands beside the last one, without an order between them, states another score."""
    for earlier, later in zip(items[-2::-1], items[:0:-1], strict=True):
        if not _is_unordered(text[: earlier.start], text[earlier.end : later.start]):
            return
        try:
            other = read(earlier.value)[0] if earlier.value is not None else None
        except NoScore:
            other = None
        if other != stated:
            raise NoScore(
                "contradiction", "it holds several JSON objects with different scores and no order between them"
            )


def _is_unordered(before: str, between: str) -> bool:
    """Whether two objects stand in a list or are alternatives; text that leads from one to the other orders them."""
    gap = _FENCE.sub("", between).strip()
    is_divider = re.fullmatch(r"[-=*_.\s]*(?:>|→|⇒)?[-=*_.\s]*", gap) is not None
    if is_divider and not _NUMBERED.search(between):
        return False
    if _ALTERNATIVES.fullmatch(gap[:MOST_GAP]) or not re.search(r"[^\W\d_]", gap):
        return True
    if re.search(r"\beither\W*\Z", before, re.IGNORECASE) and re.search(r"\bor\b", gap, re.IGNORECASE):
        return True
    return bool(_NUMBERED.search(between.rstrip(" ")) and _NUMBERED.search(before.rstrip(" ")))
