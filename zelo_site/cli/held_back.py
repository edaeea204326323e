"""Why a training published no student, in words for a terminal: the figures of the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RIVALS = {"base": "the untrained base", "first_stage": "the first stage"}
REFERENCES = {"grades": "human grades", "elo": "Elo"}


def held_back_in_words(gate: Mapping[str, Any]) -> str:
    """Return the stored result of a run's gate as a sentence, with every comparison that the student lost."""
    if gate.get("base_won"):
        return "no checkpoint of the student ranks better than the untrained base"
    lost = [_comparison(each) for each in gate.get("comparisons", []) if each["worse"]]
    return "the student is held back: " + "; ".join(lost)


def _comparison(row: Mapping[str, Any]) -> str:
    return (
        f"NDCG@10 on the {row['split']} split {row['student']:.3f}, {RIVALS[row['rival']]} {row['other']:.3f} "
        f"({row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}, {REFERENCES[row['reference']]})"
    )
