"""Reads an answer about a set: the probabilities of its letters, or a ranking in JSON; pure functions of the body.

The judges `setwise` and `grade` use it. Imports no Django.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labeling.records import FailureKind, PlacedPreference
from workers.judges.openai.answers import MissingLabel, NoAnswer, chosen_text, first_token, label_mass, unreadable

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


def read_label_masses(body: Any, labels: Sequence[str], *, least_mass: float, missing: MissingLabel) -> LabelMasses:
    """The probability of each label at the first token, over all its spellings.

    Raises NoAnswer if they add up to less than `least_mass`, if a value is null or NaN, if no label is listed, or with
    `missing = "fail"` if any is not.
    """
    rows = first_token(body)
    masses = [label_mass(rows, label) for label in labels]
    absent = [label for label, mass in zip(labels, masses, strict=True) if mass is None]
    listed = math.fsum(mass for mass in masses if mass is not None)
    if len(absent) == len(labels) or (absent and missing == "fail"):
        message = f"no log-probability for {', '.join(absent)}; raise top_logprobs, or set missing_label to 'floor'"
        raise NoAnswer(FailureKind.LABEL_MASS, message, retryable=False)
    if not listed >= least_mass:
        message = (
            f"the model did not answer with a label: {' + '.join(f'P({label})' for label in labels)} is {listed:.3f}, "
            f"expected at least {least_mass:g}; turn its thinking off, or choose another model"
        )
        raise NoAnswer(FailureKind.LABEL_MASS, message, retryable=False)
    return LabelMasses(tuple(masses), math.exp(min(value for _, value in rows)))


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


def read_ranking(body: Any, labels: Sequence[str]) -> list[PlacedPreference]:
    """The preferences of a JSON answer: 1 for each pair of a whole "ranking", or "best" over each other. Raises NoAnswer."""
    choice, text = chosen_text(body)
    found = _object_with(text, ("ranking", "best"))
    order, best = found.get("ranking"), found.get("best")
    letters = [str(letter).strip().upper() for letter in order] if isinstance(order, list) else []
    winner = str(best).strip().upper() if isinstance(best, str) else None
    is_whole = sorted(letters) == sorted(labels)
    if (winner is not None and winner not in labels) or (is_whole and winner not in (None, letters[0])):
        raise unreadable(choice, text, expected=f"{RANKING}, that agree")
    if is_whole:
        places = [list(labels).index(letter) for letter in letters]
        return [PlacedPreference(one, other, 1.0) for one, other in itertools.combinations(places, 2)]
    if winner is None:
        raise unreadable(choice, text, expected=RANKING)
    place = list(labels).index(winner)
    return [PlacedPreference(place, other, 1.0) for other in range(len(labels)) if other != place]


def _object_with(text: str, names: Sequence[str]) -> dict[str, Any]:
    """The first JSON object in the text that has one of these fields; empty without any."""
    decoder = json.JSONDecoder()
    for start in [place for place, letter in enumerate(text) if letter == "{"][:64]:
        try:
            document, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict) and any(name in document for name in names):
            return document
    return {}
