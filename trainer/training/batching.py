"""Batches of rows of like length, in an order that depends on seed and epoch alone. No torch, no Django.

An optimizer step takes `batch_size` rows times accumulation times devices; those rows are drawn together and cut into
parts afterwards, so that halving the parts and doubling their number, when memory runs out, changes neither the steps
nor what they learn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Steps whose rows are sorted by length together: more pad less, fewer mix lengths better.
STEPS_SORTED_TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of one epoch, in order: `parts` row numbers of each part, `step_tokens` tokens of each step."""

    parts: list[list[int]]
    step_tokens: npt.NDArray[np.int64]
    padded_tokens: int


def plan_epoch(
    lengths: npt.NDArray[np.int64], *, step_rows: int, parts: int, seed: int, epoch: int, drop_rest: bool = False
) -> Plan:
    """Deal all rows out into steps of `step_rows`, each cut into `parts`; what does not fill a step is the last, or dropped.

    Rows of a step have similar lengths; steps of all lengths alternate at random.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    full = len(order) // step_rows * step_rows
    steps: list[npt.NDArray[np.int64]] = []
    together = step_rows * STEPS_SORTED_TOGETHER
    for start in range(0, full, together):
        block = order[start : min(start + together, full)]
        block = block[np.argsort(lengths[block], kind="stable")]
        steps += np.split(block, len(block) // step_rows)
    steps = [steps[at] for at in rng.permutation(len(steps))]
    if full < len(order) and not drop_rest:
        rest = order[full:]
        steps.append(rest[np.argsort(lengths[rest], kind="stable")])
    cut = [part for step in steps for part in np.array_split(step, parts_of(len(step), step_rows, parts))]
    return Plan(
        parts=[part.tolist() for part in cut],
        step_tokens=np.array([lengths[step].sum() for step in steps], dtype=np.int64),
        padded_tokens=int(sum(lengths[part].max() * len(part) for part in cut)),
    )


def parts_of(rows: int, step_rows: int, parts: int) -> int:
    """Into how many parts a step of `rows` is cut: `parts` where it is full, otherwise so that none is larger."""
    return parts if rows == step_rows else -(-rows // -(-step_rows // parts))


class LengthBuckets:
    """A batch sampler for torch's DataLoader over `plan_epoch`; `set_epoch` chooses the order."""

    drop_last = False

    def __init__(
        self, lengths: npt.NDArray[np.int64], *, step_rows: int, parts: int, seed: int, devices: int = 1
    ) -> None:
        self.lengths, self.seed, self.epoch = lengths, seed, 0
        self.step_rows, self.parts = step_rows, parts
        self.batch_size = -(-step_rows // parts)
        # Several devices take turns at the parts: a step that does not reach all of them would leave one waiting.
        self.drop_rest = devices > 1
        self.sampler: Any = range(len(lengths))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def plan(self, epoch: int) -> Plan:
        return plan_epoch(
            self.lengths,
            step_rows=self.step_rows,
            parts=self.parts,
            seed=self.seed,
            epoch=epoch,
            drop_rest=self.drop_rest,
        )

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.plan(self.epoch).parts)

    def __len__(self) -> int:
        full, rest = divmod(len(self.lengths), self.step_rows)
        return full * self.parts + (0 if self.drop_rest else parts_of(rest, self.step_rows, self.parts))

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps of one pass over the rows; the last may be a short one."""
        return max(1, -(-len(self) // self.parts))
