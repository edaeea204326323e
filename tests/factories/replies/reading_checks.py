"""Reads odd bodies with a reader and counts wrong votes and needless failures.

A reader is any object with `read_score`, `read_votes` and `read_logprobs` that raises where it finds no answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.factories.replies.odd_bodies import LEAST_MASS, OddBody

SAME = 1e-6


@dataclass
class Reading:
    """What a reader made of the bodies of one mode."""

    bodies: int = 0
    stating: int = 0
    wrong: list[tuple[OddBody, float]] = field(default_factory=list)
    needless: list[tuple[OddBody, str]] = field(default_factory=list)

    def worst(self) -> list[tuple[str, int]]:
        """The productions of the wrong votes, most frequent first."""
        return Counter(body.made_of for body, _ in self.wrong).most_common()


def read_with(reader: Any, each: OddBody) -> float:
    """The preference that the reader finds; raises what the reader raises."""
    if each.mode == "reasoned":
        return float(reader.read_score(each.body).preference_of_first)
    if each.mode == "sampled":
        votes = len(each.body.get("choices", [])) or 1
        return float(reader.read_votes([each.body], votes=max(votes, 1)).preference_of_first)
    answer = reader.read_logprobs(each.body, least_mass=LEAST_MASS, missing=each.missing)
    return float(answer.preference_of_first)


def check(reader: Any, bodies: Iterable[OddBody]) -> dict[str, Reading]:
    """By mode: a vote is wrong where it is not what the final text states; a failure is needless where it states one."""
    found: dict[str, Reading] = {}
    for each in bodies:
        reading = found.setdefault(each.mode, Reading())
        reading.bodies += 1
        reading.stating += each.truth is not None
        try:
            preference = read_with(reader, each)
        except Exception as problem:
            if each.truth is not None:
                reading.needless.append((each, f"{type(problem).__name__}: {problem}"))
            continue
        if each.truth is None or not abs(preference - each.truth) <= SAME:
            reading.wrong.append((each, preference))
    return found
