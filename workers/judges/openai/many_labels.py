"""Reads an answer about a set: the probabilities of its letters, or a ranking in JSON; pure functions of the body.

The judges `setwise` and `grade` use it. Imports no Django.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labeling.records import PlacedPreference
from workers.judges.openai.answers import Asked, Cause, MissingLabel, NoAnswer, one_choice, position_of_label
from workers.judges.openai.http.remedies import enforce_json, missing_label, no_logprobs
from workers.judges.openai.reading.bodies.texts import is_refusal, spoken_text
from workers.judges.openai.reading.labels import listed_masses, no_label
from workers.judges.openai.reading.scores import NoScore, letter_of, ranking_in

# The default settings of questions; the judges pass their own options.
_LOGPROB, _RANKING = Asked("logprob"), Asked("reasoned")
RANKING = 'a JSON object with "ranking", all letters from the best to the worst, or "best", one letter'


@dataclass(frozen=True, slots=True)
class LabelMasses:
    """The probability of each label, None where it is not listed; `bound`: the least that any listed token has, which no
    label outside the list exceeds.
    """

    masses: tuple[float | None, ...]
    bound: float

    @property
    def shares(self) -> list[float]:
        """The labels' shares of their mass; a label that is not listed has none."""
        known = [mass or 0.0 for mass in self.masses]
        return [mass / math.fsum(known) for mass in known]


def read_label_masses(
    body: Any, labels: Sequence[str], *, least_mass: float, missing: MissingLabel, asked: Asked = _LOGPROB
) -> LabelMasses:
    """The probability of each label at its position, over all its spellings.

    Raises NoAnswer if they add up to less than `least_mass`, if a value is null or NaN, if no label is listed, or with
    `missing = "fail"` if any is not; also for thinking, cut and filtered answers.
    """
    asked = asked.at(body)
    known, listed = listed_masses(position_of_label(body, labels, asked=asked), labels, asked=asked)
    masses = [known[label] or None for label in labels]
    absent = [label for label, mass in zip(labels, masses, strict=True) if mass is None]
    shown = sorted({token.text for token in listed})
    if absent and len(shown) < 2:
        message = f"the server lists no alternatives to {shown!r:.60}, so {', '.join(absent)} cannot be known"
        raise asked.unreadable(Cause.NO_ALTERNATIVES, f"{message}; {no_logprobs()}")
    if len(absent) == len(labels) or (absent and missing == "fail"):
        message = f"no log-probability for {', '.join(absent)}; {missing_label(len(shown), asked.top_logprobs)}"
        raise asked.unreadable(Cause.MISSING_LABEL, message)
    mass = math.fsum(mass for mass in masses if mass is not None)
    if not mass >= least_mass:
        raise no_label(asked, labels, mass, least_mass)
    # A label that is not listed is at most as likely as the least listed token, and as what the labels leave.
    return LabelMasses(tuple(masses), min(*(token.probability for token in listed), max(1.0 - mass, 0.0)))


def preferences_of_masses(found: LabelMasses) -> list[PlacedPreference]:
    """P(one) / (P(one) + P(other)) of each pair of places. A label that is not listed gets its upper bound; a pair of two
    such labels is left out.
    """
    masses = found.masses
    return [
        PlacedPreference(one, other, _share(masses[one], masses[other], found.bound))
        for one, other in itertools.combinations(range(len(masses)), 2)
        if masses[one] is not None or masses[other] is not None
    ]


def _share(one: float | None, other: float | None, bound: float) -> float:
    p, q = (bound if mass is None else mass for mass in (one, other))
    return min(max(p / (p + q), 0.0), 1.0) if p + q > 0.0 else 0.5


def read_ranking(body: Any, labels: Sequence[str], *, asked: Asked = _RANKING) -> list[PlacedPreference]:
    """The preferences of a JSON answer: 1 for each pair of a whole "ranking", or "best" over each other. Raises NoAnswer."""
    asked = asked.at(body)
    text = spoken_text(one_choice(body, asked), asked)
    try:
        found = ranking_in(text)
    except NoScore as problem:
        if is_refusal(text):
            raise asked.refused(text) from None
        if problem.why == "cut":
            raise asked.cut_off(text) from None
        raise _unreadable(text, str(problem), asked) from None
    labels, order, best = list(labels), found.get("ranking"), found.get("best")
    if not isinstance(order, list | None) or not isinstance(best, str | None):
        raise _unreadable(text, 'its "ranking" is not a list, or its "best" is not a letter', asked)
    letters = [letter_of(str(letter)) for letter in order] if isinstance(order, list) else []
    winner = letter_of(str(best)) if isinstance(best, str) else None
    is_whole = sorted(letters) == sorted(labels)
    if (winner is not None and winner not in labels) or (letters and winner not in (None, letters[0])):
        raise _unreadable(text, "its parts do not agree", asked)
    if is_whole:
        places = [labels.index(letter) for letter in letters]
        return [PlacedPreference(one, other, 1.0) for one, other in itertools.combinations(places, 2)]
    if winner is None:
        raise _unreadable(text, "it names no best document", asked)
    place = labels.index(winner)
    return [PlacedPreference(place, other, 1.0) for other in range(len(labels)) if other != place]


def _unreadable(text: str, problem: str, asked: Asked) -> NoAnswer:
    message = (
        f"the answer is {asked.shown(text)!r}: {problem}; expected {RANKING}; {enforce_json(asked.response_format)}"
    )
    return asked.unreadable(Cause.NO_SCORE, message)
