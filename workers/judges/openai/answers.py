"""Reads a chat completion: label log-probabilities, a JSON score, or votes; pure functions of the body.

An unreadable reply raises `NoAnswer` with its kind of failure, so that it never becomes a number. The judge `openai-http`
uses it; imports no Django.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from labeling.records import FailureKind

RATIONALE_CHARACTERS = 4000
VALID_VOTES = 0.8  # the share of votes that must be readable, as the label mass for log-probabilities

_LETTER = re.compile(r"\W*(?:(?i:document|answer)\W*)?([AB])\W*")
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_REFUSAL = re.compile(
    r"\W*(?:i['’]?m (?:very )?sorry|i am sorry|sorry,|i (?:can(?:no|['’])t|cannot|won['’]t|am unable|am not able)|"
    r"i must decline|i decline|as an ai\b)",
    re.IGNORECASE,
)
_UNSTORABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

MissingLabel = Literal["fail", "floor"]


class NoAnswer(Exception):
    """The model's reply holds no usable answer; `kind` is the reason."""

    def __init__(self, kind: FailureKind, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Answer:
    """P(the document presented first is more relevant) in [0, 1], and the model's reasoning."""

    preference_of_first: float
    rationale: str = ""


def read_logprobs(body: Any, *, least_mass: float, missing: MissingLabel) -> Answer:
    """preference = P(A) / (P(A) + P(B)) of the first token, over all variants of each label.

    Raises NoAnswer if P(A) + P(B) < `least_mass`, or a value is null, NaN or infinite. A label that is not
    listed also fails or, with "floor", gets the lowest listed log-probability, its upper bound.
    """
    choice = _choices(body)[0]
    _check_finished(choice)
    rows = _first_token(choice)
    masses = {label: _mass(rows, label) for label in "AB"}
    absent = [label for label, mass in masses.items() if mass is None]
    if len(absent) == 2 or (absent and missing == "fail"):
        raise _label_failure(
            f"no log-probability for {' and '.join(absent)} among {sorted({token for token, _ in rows})!r:.200}; "
            "raise top_logprobs, or set missing_label to 'floor'"
        )
    floor = math.exp(min(value for _, value in rows))
    a, b = (floor if mass is None else mass for mass in masses.values())
    if a + b < least_mass:
        raise _label_failure(
            f"the model did not answer A or B: P(A) + P(B) is {a + b:.3f}, expected at least {least_mass:g}; "
            "turn its thinking off, or use the mode 'reasoned'"
        )
    return Answer(min(max(a / (a + b), 0.0), 1.0))


def read_score(body: Any) -> Answer:
    """preference = (score + 1) / 2 of a JSON object {"reasoning", "score" in [-1, 1]}. Raises NoAnswer."""
    choice = _choices(body)[0]
    text = _text(choice)
    document = _json_object(text)
    score = document.get("score") if document else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not -1.0 <= score <= 1.0:
        raise _unreadable(choice, text, expected='a JSON object with a "score" from -1 to 1')
    reasoning = document.get("reasoning", "") if document else ""
    rationale = storable(reasoning if isinstance(reasoning, str) else json.dumps(reasoning))
    return Answer((float(score) + 1.0) / 2.0, rationale[:RATIONALE_CHARACTERS])


def read_votes(bodies: list[Any], *, votes: int) -> Answer:
    """preference = the share of votes for A over all choices of all bodies.

    Raises NoAnswer if fewer than `VALID_VOTES` of the requested `votes` came back and could be read.
    """
    choices = [choice for body in bodies for choice in _choices(body)]
    letters, last = [], NoAnswer(FailureKind.UNPARSEABLE, "the reply holds no vote", retryable=True)
    for choice in choices:
        try:
            letters.append(_letter(choice))
        except NoAnswer as problem:
            last = problem
    if len(choices) < VALID_VOTES * votes:
        raise NoAnswer(
            FailureKind.UNPARSEABLE,
            f"the reply holds {len(choices)} choices, expected {votes}: the endpoint ignores `n`; set votes_in_one_call to false",
            retryable=False,
        )
    if len(letters) < VALID_VOTES * votes:
        raise NoAnswer(
            last.kind, f"{len(letters)} of {votes} votes could be read; the last: {last}", retryable=last.retryable
        )
    for_a = letters.count("A")
    return Answer(for_a / len(letters), f"{for_a} of {len(letters)} votes for the document shown first")


def clamp(preference: float) -> float:
    """The paper's clamping: the score 2p - 1 rounded to -1, 0 or 1, back as a preference."""
    score = 2.0 * preference - 1.0
    return 1.0 if score >= 0.5 else 0.0 if score <= -0.5 else 0.5


def storable(text: str) -> str:
    """The text without characters that a database rejects: NUL, other controls and lone surrogates."""
    return _UNSTORABLE.sub(" ", text).strip()


# --- for answers about more than two labels -----------------------------------------------


def first_token(body: Any) -> list[tuple[str, float]]:
    """(token, log-probability) of the first token and its alternatives in a reply. Raises NoAnswer."""
    choice = _choices(body)[0]
    _check_finished(choice)
    return _first_token(choice)


def label_mass(rows: list[tuple[str, float]], label: str) -> float | None:
    """Probability of a label over its spellings; None where none is listed."""
    return _mass(rows, label)


def chosen_text(body: Any) -> tuple[dict[str, Any], str]:
    """The choice of a reply and its text without thinking. Raises NoAnswer."""
    choice = _choices(body)[0]
    return choice, _text(choice)


def unreadable(choice: dict[str, Any], text: str, *, expected: str) -> NoAnswer:
    """The failure of a text that is no answer."""
    return _unreadable(choice, text, expected=expected)


# --- parts of a body ---------------------------------------------------------------------


def _choices(body: Any) -> list[dict[str, Any]]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise NoAnswer(FailureKind.UNPARSEABLE, "the reply holds no choices", retryable=True)
    return choices


def _check_finished(choice: dict[str, Any]) -> None:
    """Raise NoAnswer for a refusal or an answer withheld by the provider's filter."""
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if refusal:
        raise NoAnswer(FailureKind.REFUSAL, f"the model refused: {storable(str(refusal))[:300]}", retryable=False)
    if choice.get("finish_reason") == "content_filter":
        raise NoAnswer(FailureKind.CONTENT_FILTER, "the provider's content filter withheld the answer", retryable=False)


def _first_token(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """(token, log-probability) of the first token and of its alternatives, each token once."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        text = _text(choice)
        if _REFUSAL.match(text):
            raise NoAnswer(FailureKind.REFUSAL, f"the model refused: {text[:300]}", retryable=False)
        raise _label_failure(
            "the reply holds no log-probabilities; if this endpoint does not support them, use the mode 'reasoned'"
        )
    rows: dict[str, float] = {}
    for row in [content[0], *(content[0].get("top_logprobs") or [])]:
        token, value = (row.get("token"), row.get("logprob")) if isinstance(row, dict) else (None, None)
        if not isinstance(token, str):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > 0.01:
            # Null, NaN and infinities are not probabilities; values slightly above zero are rounding.
            raise _label_failure(f"the log-probability of {token!r:.40} is {value!r:.40}; expected a number up to 0")
        rows.setdefault(token, float(value))
    if not rows:
        raise _label_failure("the log-probabilities hold no token")
    return list(rows.items())


def _mass(rows: list[tuple[str, float]], label: str) -> float | None:
    """Probability of a label over its variants ("A", " A", and byte-level spellings of the space)."""
    values = [value for token, value in rows if token.strip(" \n\t▁Ġ") == label]
    return math.fsum(map(math.exp, values)) if values else None


def _label_failure(message: str) -> NoAnswer:
    return NoAnswer(FailureKind.LABEL_MASS, message, retryable=False)


def _text(choice: dict[str, Any]) -> str:
    """The content of the message without its thinking. Raises NoAnswer for a refusal or a filtered answer."""
    _check_finished(choice)
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return _THINKING.sub("", content).strip() if isinstance(content, str) else ""


def _letter(choice: dict[str, Any]) -> str:
    text = _text(choice)
    match = _LETTER.fullmatch(text)
    if match is None:
        raise _unreadable(choice, text, expected="A or B")
    return match[1]


def _unreadable(choice: dict[str, Any], text: str, *, expected: str) -> NoAnswer:
    """The failure of a text that is no answer: a refusal, a truncated answer, or plain prose."""
    shown = storable(text)[:200]
    if _REFUSAL.match(text):
        return NoAnswer(FailureKind.REFUSAL, f"the model refused: {shown}", retryable=False)
    if choice.get("finish_reason") == "length":
        return NoAnswer(
            FailureKind.UNPARSEABLE, f"the answer was cut off ({shown!r}); raise max_output_tokens", retryable=False
        )
    return NoAnswer(FailureKind.UNPARSEABLE, f"the answer is {shown!r}; expected {expected}", retryable=True)


def _json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in the text that has a score; fences and words around it are skipped."""
    decoder = json.JSONDecoder()
    for start in [0, *(match.start() for match in re.finditer(r"\{", text))][:64]:
        try:
            document, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and "score" in document:
            return document
    return None
