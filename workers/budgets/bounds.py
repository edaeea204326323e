"""The maximum of a run's stored estimate, to which the run is held, and its price of a call (docs/budgets.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bound:
    """The estimate's maximum spend of a run, and of one question; money in millionths of a dollar."""

    tokens: int
    cost_micros: int
    question_tokens: float
    question_cost_micros: float

    @classmethod
    def of(cls, estimate: Mapping[str, int]) -> Bound | None:
        """The bound of a run's stored estimate; None where it holds by itself, or a person has lifted it."""
        if "question_tokens" not in estimate:
            return None
        names = ("most_tokens", "most_cost_micros", "question_tokens", "question_cost_micros")
        return cls(*(estimate[name] for name in names))

    def reserved(self, read: int, written: int, cost_micros: int) -> tuple[int, int, int]:
        """The reservation of a question in a batch (tokens read and written, money): at most the estimate's size of one."""
        most = int(self.question_tokens)
        written = min(written, most)
        return min(read, most - written), written, min(cost_micros, int(self.question_cost_micros))


def expected_price(estimate: Mapping[str, int]) -> tuple[float | None, float | None]:
    """Mean tokens and cost (millionths of a dollar) of a call by a run's stored estimate; None without one."""
    calls = estimate.get("calls", 0)
    return (estimate["tokens"] / calls, estimate["cost_micros"] / calls) if calls else (None, None)
