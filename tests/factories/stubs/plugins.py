"""Judges, raters and samplers that only tests use: predictable, faulty, or slow on purpose.

The fixture `stub_plugins` registers them for one test; other tests see only what is built in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from labeling.plugins import Judge, Plugin, Rater, Sampler
from labeling.records import Collection, Comparison, ComparisonColumns, Failure, Fit, IntArray, QueryState, Verdict
from scoring.raters import ThurstoneRater


class NumberedOptions(Judge.Options):
    """`number` makes configurations, hence annotators, of equal judges."""

    number: int = 0
    seconds: float = 0.0


class TestJudge(Judge):
    """Prepares nothing."""

    __test__ = False
    Options = NumberedOptions
    options: NumberedOptions

    def prepare(self, collection: Collection) -> None:
        pass


class LongerJudge(TestJudge):
    """Prefers the longer document: 0.8 by number 0, a little less by the others."""

    name = "test-longer"
    label = "Prefers the longer"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        time.sleep(self.options.seconds)
        strong = 0.8 - 0.01 * self.options.number
        return [Verdict(strong if len(each.a.text) > len(each.b.text) else 1.0 - strong) for each in comparisons]


class RaisingJudge(TestJudge):
    """Always raises; its message holds what a database refuses."""

    name = "test-raising"
    label = "Raises"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        raise RuntimeError("broken \x00 \ud800 inside")


class SilentJudge(TestJudge):
    """Gives fewer answers than questions."""

    name = "test-silent"
    label = "Answers too little"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Verdict(0.5) for _ in comparisons[1:]]


class NoAnswerJudge(TestJudge):
    """Gives None instead of a Failure."""

    name = "test-none"
    label = "Answers None"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [None for _ in comparisons]  # type: ignore[misc]


class OddTextJudge(TestJudge):
    """Answers with a rationale that no database stores as it is."""

    name = "test-odd-text"
    label = "Odd text"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Verdict(0.6, rationale="first\x00second\ud800") for _ in comparisons]


class PickyRater(ThurstoneRater):
    """Fits as Thurstone does, but raises wherever a query has an odd number of candidates."""

    name = "test-picky"
    label = "Refuses odd sizes"

    def rate(self, columns: ComparisonColumns) -> Fit:
        if (columns.sizes % 2).any():
            raise ArithmeticError("an odd number of candidates")
        return super().rate(columns)


class BrokenRater(Rater):
    """Always raises."""

    name = "test-broken"
    label = "Broken"

    def rate(self, columns: ComparisonColumns) -> Fit:
        raise ArithmeticError("never works")


class TwoRounds(Sampler):
    """The chain 0-1, 1-2, ... in round one; once all of it is answered, each candidate and the one after next."""

    name = "test-two-rounds"
    label = "Two rounds"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        step = 1 if not len(state.pairs) else 2
        first = np.arange(state.size - step)
        pairs = np.stack([first, first + step], axis=1).astype(np.int64)
        known = {tuple(pair) for pair in state.pairs.tolist()}
        return np.array([pair for pair in pairs.tolist() if tuple(pair) not in known], dtype=np.int64).reshape(-1, 2)[
            :budget
        ]


class RepeatingSampler(Sampler):
    """Breaks its contract: draws the same pair again and again."""

    name = "test-repeating"
    label = "Repeats itself"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        return np.array([[0, 1]], dtype=np.int64)


class RaisingSampler(Sampler):
    """Always raises."""

    name = "test-raising"
    label = "Raises"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        raise ArithmeticError("no design")


STUBS: tuple[type[Plugin], ...] = (
    LongerJudge,
    RaisingJudge,
    SilentJudge,
    NoAnswerJudge,
    OddTextJudge,
    PickyRater,
    BrokenRater,
    TwoRounds,
    RepeatingSampler,
    RaisingSampler,
)
