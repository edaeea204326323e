"""The stages of the method in order, from the import to the running server.

`STAGES` is what the project's page lists and `docs/architecture.md` explains. The background jobs (`workers.models.Job`)
name their stage in the column `stage`, which has values of its own: `evaluate` for the stage `prove`, `candidates`,
`pairs`, `calibrate`, `train` as here, and `probe` for an injection probe, which belongs to no stage.
"""

from __future__ import annotations

from dataclasses import dataclass

from labeling.plugins import Sampler
from scoring.calibration.cross_query import is_across


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the method; `key` is its name in page addresses and translations."""

    number: int
    key: str
    label: str


STAGES = tuple(
    Stage(number, key, label)
    for number, (key, label) in enumerate(
        [
            ("import", "Import"),
            ("candidates", "Candidates"),
            ("pairs", "Pairs"),
            ("judging", "Judging"),
            ("rating", "Scores"),
            ("calibrate", "Calibrate"),
            ("train", "Train"),
            ("prove", "Prove"),
            ("serve", "Serve"),
        ],
        start=1,
    )
)


def stage_of_round(sampler: Sampler) -> str:
    """The `Job.stage` of a round of this sampler."""
    return "calibrate" if is_across(sampler) else "pairs"
