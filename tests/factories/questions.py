"""Single questions to a judge, and what came back: for tests that ask one directly, without a queue."""

from __future__ import annotations

import itertools
from typing import Any

from labeling.records import Comparison, Failure, TextRecord, Verdict

numbers = itertools.count(1)


def comparison(
    a: str = "a fish", b: str = "a bird", *, swapped: bool = False, query_b: str = "", **more: Any
) -> Comparison:
    query = TextRecord(1, "what is a goldfish")
    other = TextRecord(2, query_b) if query_b else query
    return Comparison(next(numbers), query, other, TextRecord(10, a), TextRecord(11, b), swapped=swapped, **more)


def only(answers: list[Verdict | Failure]) -> Verdict | Failure:
    assert len(answers) == 1
    return answers[0]


def verdict(answers: list[Verdict | Failure]) -> Verdict:
    answer = only(answers)
    assert isinstance(answer, Verdict), answer
    return answer


def failure(answers: list[Verdict | Failure]) -> Failure:
    answer = only(answers)
    assert isinstance(answer, Failure), answer
    return answer
