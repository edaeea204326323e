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

from labeling.annotation.criteria import key_of
from workers.judges.openai.reading.afterwards import concludes_with_another, is_unfinished, leads_to_another, takes_back
from workers.judges.openai.reading.elements import after_unknown_sections, is_in_unknown_element, without_wrappers
from workers.judges.openai.reading.field_names import (
    LATER_ANSWER,
    LATER_BEST,
    LATER_SCORE,
    LATER_WORD,
    LOSER,
    WINNER,
    is_no_answer,
    is_placeholder,
    is_schema,
    names_no_winner,
)
from workers.judges.openai.reading.order import is_retracted, is_said_not, replaces
from workers.judges.openai.reading.standing import stands_as_answer
from workers.judges.openai.reading.votes import letter_in
from workers.judges.openai.reading.winners import letter_of, stated_winners, states_another_score, winner_of

Stated = TypeVar("Stated")
MOST_BRACES = 256
PLACEHOLDER = "your sentences"  # of `prompts/answer_score.txt`
_WRAPPERS = {"answer", "result", "response", "output", "final", "final_answer", "comparison", "json"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")

_FENCE = re.compile(r"```\w*")
_OVERALL = {"score", "overall", "total", "mean", "average", "combined", "weighted", "sum", "verdict"}


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

    def __init__(self, why: Literal["none", "cut", "range", "contradiction", "mention"], message: str) -> None:
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
_ANSWERS = ("score", "scores", "best", "ranking", "neither")


def score_in(text: str) -> Scored:
    """The score of the last complete object. Raises NoScore."""
    return Scored(*_last_in(text, "score", _read))


def score_or_neither_in(text: str) -> tuple[Scored, bool]:
    """As `score_in`, and whether the same object says "neither": true. Raises NoScore, also unless it is true or false."""
    (score, neither), reasoning = _last_in(text, "score", _read_or_neither)
    return Scored(score, reasoning), neither


def _read_or_neither(document: dict[str, Any]) -> tuple[tuple[float, bool], str]:
    score, reasoning = _read(document)
    neither = _unwrapped(document, "score").get("neither", False)
    if not isinstance(neither, bool):
        raise NoScore("none", 'its "neither" is not true or false')
    return (score, neither), reasoning


def scores_in(text: str, names: Sequence[str]) -> ScoredByCriterion:
    """The scores of all these names in the last complete object. Raises NoScore as `score_in` does, also where one is missing."""
    return ScoredByCriterion(*_last_in(text, "scores", lambda document: _read_names(document, names)))


def _last_in(
    text: str, key: str, read: Callable[[dict[str, Any]], tuple[Stated, str]], *, or_key: str | None = None
) -> tuple[Stated, str]:
    """The result of `read` on the last complete object with one of these keys, and its reasoning. Raises NoScore."""
    text = after_unknown_sections(without_wrappers(_unquoted(text)))
    keys = (key, or_key or key)
    every = _items(text)
    items = [item for item in every if _matters(item, text, keys)]
    if not items:
        raise NoScore("none", f'there is no JSON object with a "{key}"')
    last = items[-1]
    if last.is_cut:
        raise NoScore("cut", "its last JSON object is not complete")
    if last.value is None:
        raise NoScore("none", "its last object is not valid JSON")
    stated, reasoning = read(last.value)
    if _is_scored(stated) and concludes_with_another(reasoning, winner_of(stated)):
        raise NoScore("contradiction", "its reasoning concludes that the other document is better")
    _check_order(items, text, stated, read)
    if any(_differs(item, keys, stated, read) for item in every if item.start >= last.end):
        raise NoScore(
            "contradiction",
            "a JSON object after it gives a different answer, but the text says that it is not the answer",
        )
    if _is_open_list(text[: items[0].start], text[last.end :]):
        raise NoScore("cut", "its list of JSON objects is not complete")
    if is_unfinished(text[every[-1].end :]):
        raise NoScore("cut", "the text after its JSON object announces another answer, which does not come")
    after = _FENCE.sub("", _without_objects(text, last.end, every))
    winner = winner_of(stated)
    if is_retracted(after) or takes_back(after, winner):
        raise NoScore("contradiction", "the text after its JSON object takes it back, or names another winner")
    before = text[max((each.end for each in every if each.end <= last.start), default=0) : last.start]
    if leads_to_another(before, winner) or states_another_score(before.rstrip().rpartition("\n")[2], stated):
        raise NoScore("contradiction", "the text before its JSON object names another winner or score")
    if not any(_stands(item, every, text, stated, read) for item in items):
        raise NoScore(
            "mention", "its JSON object is only mentioned in a sentence, as a possibility or as another's answer"
        )
    if states_another_score(after, stated):
        raise NoScore("contradiction", "the text after its JSON object states another score")
    return stated, reasoning


def _is_scored(stated: Any) -> bool:
    """Whether it is a score, with or without "neither", or scores by name; not the order of a set."""
    return not isinstance(stated, dict) or all(isinstance(each, float) for each in stated.values())


def _without_objects(text: str, start: int, items: list[_Item]) -> str:
    """The text from there on, without the objects in it; a brace as in \\boxed{B} begins none."""
    kept = ""
    for item in (
        each for each in items if each.start >= start and (each.value is not None or '"' in text[each.start : each.end])
    ):
        kept, start = kept + text[start : item.start], item.end
    return kept + text[start:]


def ranking_in(text: str) -> dict[str, Any]:
    """The last complete object that has a "ranking" or a "best". Raises NoScore as `score_in` does."""
    stated, _ = _last_in(text, "best", _read_ranking, or_key="ranking")
    return dict(stated)


def _read_ranking(document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """({"best": ..., "ranking": ...} as far as they are there, ""). Raises NoScore."""
    document = _unwrapped(document, "ranking" if "ranking" in document else "best")
    if any(LATER_BEST.fullmatch(name) for name in document):
        raise NoScore("contradiction", "it holds two different answers")
    if any(is_no_answer(name, value) for name, value in document.items()):
        raise NoScore("mention", "another field says that its ranking is not an answer")
    winner = letter_of(winner_of(document) or "")
    for name, value in document.items():
        letter = letter_of(value) if isinstance(value, str) else ""
        is_other = len(letter) == 1 and (
            (WINNER.fullmatch(name) and letter != winner) or (LOSER.fullmatch(name) and letter == winner)
        )
        if is_other or (name not in _ANSWERS and names_no_winner(name, value)):
            raise NoScore("contradiction", "it holds two different answers")
    stated: dict[str, Any] = {name: document[name] for name in ("best", "ranking") if name in document}
    if not stated or any(value is _CONFLICT for value in stated.values()):
        raise NoScore("contradiction" if stated else "none", "its last JSON object states no single answer")
    return stated, ""


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


def _matters(item: _Item, text: str, keys: Sequence[str]) -> bool:
    """Whether the item may be an answer or may hide one; a repeated format and an example may not."""
    if item.value is None:
        piece = text[item.start : item.end]
        is_named = any(each in piece.casefold() for each in keys)
        return PLACEHOLDER not in piece and (item.is_cut or '"' in piece or is_named)
    if not any(_mentions(each, item.value) for each in keys) or is_said_not(text[: item.start]):
        return False
    if is_schema(item.value) or is_placeholder(_reasoning_of(item.value)):
        return False
    return not is_in_unknown_element(text, item.start)


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
    if any(is_no_answer(name, value) for name, value in document.items()):
        raise NoScore("mention", "another field says that its score is not an answer")
    is_other = score != 0 and any(each != winner_of(score) for each in stated_winners(document))
    if is_other or any(_contradicts(name, value, score) for name, value in document.items()):
        raise NoScore("contradiction", "it holds two different answers: its score and another field")
    return float(score), _reasoning_of(document)


def _contradicts(name: str, value: Any, score: float) -> bool:
    """Whether a field beside the score states another score."""
    if LATER_SCORE.fullmatch(name) or (LATER_ANSWER.fullmatch(name) and _number(value) is not None):
        return not _is_same(value, score)
    if LATER_ANSWER.fullmatch(name) and isinstance(value, dict) and "score" in value:
        return not _is_same(value["score"], score)
    return isinstance(value, dict) and any(
        _contradicts(key, inner, score) for key, inner in value.items() if WINNER.fullmatch(key)
    )


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

    Fields of other names are ignored, unless they state another score of a criterion, other scores of all, or an overall
    score that lies outside those of the criteria: no weights lead to it.
    """
    document = _unwrapped(document, "scores")
    given = document.get("scores")
    if not isinstance(given, dict):
        raise NoScore(
            "contradiction" if given is _CONFLICT else "none", 'its last JSON object has no "scores" of its own'
        )
    found = {name: _score_of(name, given) for name in names}
    if any(is_no_answer(name, value) for name, value in document.items()):
        raise NoScore("mention", "another field says that its scores are not an answer")
    low, high = min(found.values()), max(found.values())
    fitting = {letter for letter, fits in (("A", high >= 0), ("B", low <= 0), ("", low <= 0 <= high)) if fits}
    if stated_winners(document) - fitting:
        raise NoScore("contradiction", "it holds two different answers: its scores and another field")
    for key, value in [*document.items(), *given.items()]:
        others = [name for name in names if key_of(name) != key_of(key)]
        again = [
            name for name in names if _names_again(key, name) and (name not in others or len(others) == len(names))
        ]
        if any(_number(value) is not None and not _is_same(value, found[name]) for name in again):
            raise NoScore("contradiction", f"it holds two different scores of {again[0]!r}")
        if len(others) == len(names) and key != "scores" and _is_overall(key) and not _fits(value, given, found):
            raise NoScore("contradiction", f"it holds an overall score that its scores do not lead to: {key!r:.40}")
    return found, _reasoning_of(document)


def _fits(overall: Any, given: dict[str, Any], found: dict[str, float]) -> bool:
    """Whether an overall score, a letter or other scores agree with these scores: no weights lead out of their range."""
    low, high = min(found.values()), max(found.values())
    number = _number(overall)
    if number is not None:
        return low <= number <= high
    if isinstance(overall, str):
        letter = letter_in(overall)
        return letter is None or (high >= 0 if letter == "A" else low <= 0)
    return bool(overall == given)


def _score_of(name: str, given: dict[str, Any]) -> float:
    """The score of one criterion. Raises NoScore."""
    values = [value for key, value in given.items() if key_of(key) == key_of(name)]
    if not values:
        raise NoScore("none", f"it has no score of {name!r}")
    score = _number(values[0])
    if values[0] is _CONFLICT or not all(_is_same(value, score) for value in values[1:]):
        raise NoScore("contradiction", f"it holds two different scores of {name!r}")
    if score is None or not -1.0 <= score <= 1.0:
        raise NoScore("range", f"its score of {name!r} is {values[0]!r:.40}")
    return score


def _is_overall(key: str) -> bool:
    """Whether a field is a score of the whole, or scores that replace the others."""
    return key_of(key) in _OVERALL or LATER_SCORE.fullmatch(key) is not None or LATER_ANSWER.fullmatch(key) is not None


def _names_again(key: str, name: str) -> bool:
    """Whether a field states a score of this criterion once more: by its name, alone or with a word such as "final"."""
    words = LATER_WORD.sub(" ", key_of(key))
    return key_of(" ".join(words.split())) == key_of(name)


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


def _stands(
    item: _Item,
    every: list[_Item],
    text: str,
    stated: Stated,
    read: Callable[[dict[str, Any]], tuple[Stated, str]],
) -> bool:
    """Whether an object states this, and the words around it leave it standing as the answer."""
    # A brace in the words before, as in \begin{thinking}, is no object.
    objects = [each for each in every if each.value is not None or '"' in text[each.start : each.end]]
    start = max((each.end for each in objects if each.end <= item.start), default=0)
    is_last = all(each.start < item.end for each in every)
    after = text[item.end :] if is_last else ""  # what stands between two objects is read for their order
    if item.value is None or not stands_as_answer(text[start : item.start], after, winner_of(stated)):
        return False
    try:
        return read(item.value)[0] == stated
    except NoScore:
        return False


def _differs(
    item: _Item, keys: Sequence[str], stated: Stated, read: Callable[[dict[str, Any]], tuple[Stated, str]]
) -> bool:
    """Whether an object that is no answer states one that differs."""
    if item.value is None or not any(_mentions(each, item.value) for each in keys):
        return False
    try:
        return read(item.value)[0] != stated
    except NoScore:
        return True


def _check_order(
    items: list[_Item], text: str, stated: Stated, read: Callable[[dict[str, Any]], tuple[Stated, str]]
) -> None:
    """Raise NoScore if an earlier object states something else, and no words say that a later one replaces it."""
    for earlier, later in zip(items[-2::-1], items[:0:-1], strict=True):
        if replaces(text[: earlier.start], text[earlier.end : later.start]):
            return
        try:
            other = read(earlier.value)[0] if earlier.value is not None else None
        except NoScore:
            other = None
        if other != stated:
            raise NoScore(
                "contradiction", "it holds several JSON objects with different answers and no order between them"
            )
