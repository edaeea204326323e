"""Ready-made orders of a run: each sets design, votes, document order and queries, and leaves the judges to the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labeling.stored_texts import StoredText, stored_text
from workers.models import Run
from workers.runs.choices.queries import QueryChoice

DEFAULT_SAMPLER, DEFAULT_ALLOCATION = "adaptive", Run.Allocation.ROTATE.value
QUICK_QUERIES = 20
ENOUGH_RECALL = 0.95
ALL = QueryChoice()


@dataclass(frozen=True, slots=True)
class Settings:
    """The design of a run without its judges and budgets; the default is one judge a pair, chosen round by round."""

    sampler: str = DEFAULT_SAMPLER
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    allocation: str = DEFAULT_ALLOCATION
    orders: str = Run.Orders.ONE.value
    queries: QueryChoice = ALL


@dataclass(frozen=True, slots=True)
class Preset:
    """One preset. `judges`: how many it is meant for, None for any number."""

    key: str
    label: StoredText
    purpose: StoredText
    settings: Settings
    judges: int | None = None


QUICK = stored_text("Quick look")
PAPER = stored_text("Paper")
CHEAPEST = stored_text("Cheapest for the top ten")
QUICK_PURPOSE = stored_text(
    "%(queries)s queries, two pairs a candidate, one judge a pair: a first impression",
    one="%(queries)s query, two pairs a candidate, one judge a pair: a first impression",
)
PAPER_PURPOSE = stored_text("four pairs a candidate in even cycles, three judges on every pair")
CHEAPEST_PURPOSE = stored_text(
    "one judge a pair, chosen round by round; a query stops when %(recall)s of its top ten is expected to be found"
)

PRESETS = (
    Preset(
        "quick", QUICK, QUICK_PURPOSE % {"queries": QUICK_QUERIES},
        Settings(sampler_options={"pairs_per_candidate": 2.0}, queries=QueryChoice(sample=QUICK_QUERIES)),
    ),
    Preset(
        "paper", PAPER, PAPER_PURPOSE,
        Settings(sampler="cycles", sampler_options={"degree": 8}, allocation=Run.Allocation.ALL.value), judges=3,
    ),
    Preset(
        "cheapest", CHEAPEST, CHEAPEST_PURPOSE % {"recall": f"{100 * ENOUGH_RECALL:.0f}\N{NO-BREAK SPACE}%"},
        Settings(sampler_options={"enough_recall": ENOUGH_RECALL}),
    ),
)  # fmt: skip


class UnknownPreset(ValueError):
    """No preset has this name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the preset is {key[:40]!r}; expected one of {', '.join(each.key for each in PRESETS)}")


def get_preset(key: str) -> Preset:
    """Return the preset of this name. Raises UnknownPreset."""
    for each in PRESETS:
        if each.key == key:
            return each
    raise UnknownPreset(key)
