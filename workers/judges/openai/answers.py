"""Reads a chat completion: label log-probabilities, a JSON score, or votes; pure functions of the body.

An unreadable reply raises `NoAnswer` with its kind of failure, so that it never becomes a number. The modules of `reading`
do the work; docs/judges.md lists the shapes. The judge `openai-http` uses it; imports no Django.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from labeling.annotation.criteria import Criterion, combined
from labeling.records import FailureKind
from workers.judges.openai.http.remedies import enforce_json
from workers.judges.openai.reading.bodies.choices import choices_of
from workers.judges.openai.reading.bodies.endings import Choice, check_ending
from workers.judges.openai.reading.bodies.texts import has_thinking, is_refusal, shown_text, spoken_text
from workers.judges.openai.reading.failures import Asked, Cause, NoAnswer, storable
from workers.judges.openai.reading.labels import MissingLabel, label_position, preference_at
from workers.judges.openai.reading.scores import NoScore, score_in, score_or_neither_in, scores_in
from workers.judges.openai.reading.tokens import Position
from workers.judges.openai.reading.votes import letter_in

__all__ = [
    *("Answer", "Asked", "Cause", "MissingLabel", "NoAnswer"),
    *("one_choice", "position_of_label"),
    *("clamp", "read_criteria", "read_logprobs", "read_score", "read_score_or_neither", "read_votes", "storable"),
]

RATIONALE_CHARACTERS = 4000
VALID_VOTES = 0.8  # the share of votes that must be readable, as the label mass for log-probabilities
SAME_PREFERENCE = 1e-6
EXPECTED_SCORE = 'expected one JSON object with a "score" from -1 to 1'
Found = TypeVar("Found")

# The default settings of questions; the judge passes its own options.
_LOGPROB, _REASONED, _SAMPLED = Asked("logprob"), Asked("reasoned"), Asked("sampled", varies=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """P(the document presented first is more relevant) in [0, 1], and the model's reasoning; `neither`: none is relevant."""

    preference_of_first: float
    rationale: str = ""
    neither: bool = False


def read_logprobs(body: Any, *, least_mass: float, missing: MissingLabel, asked: Asked = _LOGPROB) -> Answer:
    """preference = P(A) / (P(A) + P(B)) at the label's position, over all spellings of each label.

    Raises NoAnswer if P(A) + P(B) < `least_mass`, if a label's value is null, NaN or no log-probability, or if thinking
    precedes the label. A label that is not listed also fails or, with "floor", gets its upper bound: the lowest listed
    probability, at most 1 - P(the other label). That needs two different listed tokens.
    """
    asked = asked.at(body)
    answers = [_label_answer(choice, least_mass, missing, asked) for choice in choices_of(body, asked)]
    return _one(answers, asked)


def position_of_label(body: Any, labels: Sequence[str], *, asked: Asked) -> Position:
    """The log-probabilities of the one choice at the position of its label. Raises NoAnswer."""
    choice = one_choice(body, asked)
    text = shown_text(choice, asked)
    check_ending(choice, asked, text, may_be_cut=True)
    return _position(choice, text, labels, asked)


def one_choice(body: Any, asked: Asked) -> Choice:
    """The one choice that was asked for. Raises NoAnswer."""
    choices = choices_of(body, asked)
    if len(choices) > 1:
        message = f"the reply holds {len(choices)} choices, expected 1; remove n or best_of at the server"
        raise asked.unreadable(Cause.CONTRADICTION, message)
    return choices[0]


def _label_answer(choice: Choice, least_mass: float, missing: MissingLabel, asked: Asked) -> Answer:
    text = shown_text(choice, asked)
    check_ending(choice, asked, text, may_be_cut=True)
    position = _position(choice, text, ("A", "B"), asked)
    return Answer(preference_at(position, least_mass=least_mass, missing=missing, asked=asked))


def _position(choice: Choice, text: str, labels: Sequence[str], asked: Asked) -> Position:
    thinks = has_thinking(choice)
    try:
        return label_position(choice.get("logprobs"), text, thinks=thinks, asked=asked, labels=labels)
    except NoAnswer as problem:
        if problem.cause is Cause.NO_LOGPROBS and is_refusal(text):
            raise asked.refused(text) from None
        if problem.cause is Cause.NO_LOGPROBS and thinks and not text.strip():
            raise asked.only_thinking("the model's thinking took the place of its answer") from None
        raise


def read_score(body: Any, *, asked: Asked = _REASONED) -> Answer:
    """preference = (score + 1) / 2 of a JSON object {"reasoning", "score" in [-1, 1]}. Raises NoAnswer."""
    asked = asked.at(body)
    return _one([_scored(choice, asked) for choice in choices_of(body, asked)], asked)


def read_score_or_neither(body: Any, *, asked: Asked = _REASONED) -> Answer:
    """As `read_score`, of an object that also says whether neither document is relevant. Raises NoAnswer."""
    asked = asked.at(body)
    return _one([_scored_or_neither(choice, asked) for choice in choices_of(body, asked)], asked)


def read_criteria(body: Any, criteria: Sequence[Criterion], *, asked: Asked = _REASONED) -> Answer:
    """preference = (score + 1) / 2 of the weighted mean of a JSON object {"reasoning", "scores": {name: in [-1, 1]}}.

    Raises NoAnswer, also where a criterion has no score: the others say nothing about it.
    """
    asked = asked.at(body)
    return _one([_scored_by(criteria, choice, asked) for choice in choices_of(body, asked)], asked)


def _scored(choice: Choice, asked: Asked) -> Answer:
    found = _stated(score_in, spoken_text(choice, asked), EXPECTED_SCORE, asked)
    rationale = storable(asked.conceal(found.reasoning))
    return Answer((found.score + 1.0) / 2.0, rationale[:RATIONALE_CHARACTERS])


def _scored_or_neither(choice: Choice, asked: Asked) -> Answer:
    found, neither = _stated(score_or_neither_in, spoken_text(choice, asked), EXPECTED_SCORE, asked)
    rationale = storable(asked.conceal(found.reasoning))
    return Answer((found.score + 1.0) / 2.0, rationale[:RATIONALE_CHARACTERS], neither)


def _scored_by(criteria: Sequence[Criterion], choice: Choice, asked: Asked) -> Answer:
    names = [each.name for each in criteria]
    expected = f'expected one JSON object with "scores" from -1 to 1 of {", ".join(names)}'
    found = _stated(lambda text: scores_in(text, names), spoken_text(choice, asked), expected, asked)
    by_name = "; ".join(f"{name}: {score:+z.2f}" for name, score in found.scores.items())
    reasoning = storable(asked.conceal(found.reasoning))[: RATIONALE_CHARACTERS - len(by_name) - 1]
    return Answer((combined(criteria, found.scores) + 1.0) / 2.0, f"{reasoning}\n{by_name}".strip())


def _stated(read: Callable[[str], Found], text: str, expected: str, asked: Asked) -> Found:
    """The answer that `read` finds in a text. Raises NoAnswer."""
    try:
        return read(text)
    except NoScore as problem:
        if is_refusal(text):
            raise asked.refused(text) from None
        if problem.why == "cut":
            raise asked.cut_off(text) from None
        raise _no_score(problem, text, expected, asked) from None


def _no_score(problem: NoScore, text: str, expected: str, asked: Asked) -> NoAnswer:
    causes = {"range": Cause.BAD_SCORE, "contradiction": Cause.CONTRADICTION, "mention": Cause.MENTION}
    cause = causes.get(problem.why, Cause.NO_SCORE)
    message = f"the answer is {asked.shown(text)!r}: {problem}; {expected}; {enforce_json(asked.response_format)}"
    return asked.unreadable(cause, message)


def read_votes(bodies: list[Any], *, votes: int, asked: Asked = _SAMPLED) -> Answer:
    """preference = the share of votes for A over all choices of all bodies.

    Raises NoAnswer if fewer than `VALID_VOTES` of the requested `votes` came back and could be read.
    """
    choices = [(choice, asked.at(body)) for body in bodies for choice in choices_of(body, asked.at(body))]
    letters: list[str] = []
    last = asked.unreadable(Cause.NO_VOTE, "the reply holds no vote")
    for choice, seen in choices:
        try:
            letters.append(_letter(choice, seen))
        except NoAnswer as problem:
            last = problem
    if len(choices) < VALID_VOTES * votes:
        message = (
            f"the reply holds {len(choices)} choices, expected {votes}: the endpoint ignores `n`; "
            "set votes_in_one_call to false"
        )
        raise NoAnswer(FailureKind.UNPARSEABLE, message, retryable=False, cause=Cause.FEW_VOTES)
    if len(letters) < VALID_VOTES * votes:
        message = f"{len(letters)} of {votes} votes could be read; the last: {last}"
        raise NoAnswer(last.kind, message, retryable=last.retryable, cause=last.cause)
    for_a = letters.count("A")
    return Answer(for_a / len(letters), f"{for_a} of {len(letters)} votes for the document shown first")


def _letter(choice: Choice, asked: Asked) -> str:
    text = spoken_text(choice, asked)
    letter = letter_in(text)
    if letter is None and is_refusal(text):
        raise asked.refused(text)
    if letter is None:
        message = (
            f"the answer is {asked.shown(text)!r}; expected A or B: use the mode 'reasoned' for a model that explains"
        )
        raise asked.unreadable(Cause.NO_VOTE, message)
    return letter


def _one(answers: list[Answer], asked: Asked) -> Answer:
    """The answer of the one choice that was asked for; several must state the same."""
    first = answers[0]
    if any(abs(each.preference_of_first - first.preference_of_first) > SAME_PREFERENCE for each in answers):
        message = f"the reply holds {len(answers)} choices with different answers, expected 1; remove n or best_of at the server"
        raise asked.unreadable(Cause.CONTRADICTION, message)
    return first


def clamp(preference: float) -> float:
    """The paper's clamping: the score 2p - 1 rounded to -1, 0 or 1, back as a preference."""
    score = 2.0 * preference - 1.0
    return 1.0 if score >= 0.5 else 0.0 if score <= -0.5 else 0.5
