"""Batches of rows of similar length, in an order that depends only on seed and epoch. No torch, no Django.

An optimizer step takes `batch_size` x accumulation x devices rows. They are drawn together and then split into parts, so
halving the parts and doubling their number when memory runs out does not change the rows of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Number of steps whose rows are sorted by length together: more need less padding, fewer mix lengths better.
STEPS_SORTED_TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of one epoch, in order: `parts` holds row numbers by part, `step_tokens` tokens by step."""

    parts: list[list[int]]
    step_tokens: npt.NDArray[np.int64]
    padded_tokens: int


def plan_epoch(
    lengths: npt.NDArray[np.int64], *, step_rows: int, parts: int, seed: int, epoch: int, drop_rest: bool = False
) -> Plan:
    """Split all rows into steps of `step_rows`, and each step into `parts`; the incomplete step is last, or dropped.

    The rows of a step have similar lengths; the order of steps is random.
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
    """Number of parts of a step of `rows`: `parts` if it is full, otherwise enough that no part is larger."""
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
        # Devices take parts in turn: one would wait forever for a step with too few parts.
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
        """Optimizer steps of one pass over the rows; the last may be incomplete."""
        return max(1, -(-len(self) // self.parts))


class QueryLists:
    """As `LengthBuckets`, but each part is a list of candidates of one query, drawn again in every epoch.

    A query with more candidates than a list holds gives several lists of nearly equal size. Rows outside `queries` are left
    out.
    """

    drop_last = False

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        queries: Sequence[slice],
        *,
        list_rows: int,
        step_lists: int,
        seed: int,
        devices: int = 1,
    ) -> None:
        self.lengths, self.seed, self.epoch = lengths, seed, 0
        self.queries, self.list_rows, self.step_lists = list(queries), max(2, list_rows), step_lists
        self.parts = step_lists
        self.batch_size = self.list_rows
        self.devices = devices
        self.sampler: Any = range(len(lengths))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def plan(self, epoch: int) -> Plan:
        rng = np.random.default_rng([self.seed, epoch])
        lists = [own for rows in self.queries for own in self._lists(rows, rng)]
        parts = [lists[at].tolist() for at in rng.permutation(len(lists))]
        parts = parts[: len(self)]
        steps = [parts[at : at + self.step_lists] for at in range(0, len(parts), self.step_lists)]
        return Plan(
            parts=parts,
            step_tokens=np.array([sum(self.lengths[own].sum() for own in step) for step in steps], dtype=np.int64),
            padded_tokens=int(sum(self.lengths[own].max() * len(own) for own in parts)),
        )

    def _lists(self, rows: slice, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        count = rows.stop - rows.start
        return np.array_split(rows.start + rng.permutation(count), self._lists_of(count))

    def _lists_of(self, count: int) -> int:
        """Number of lists of `count` candidates; no list has fewer than two."""
        return max(1, min(-(-count // self.list_rows), count // 2))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.plan(self.epoch).parts)

    def __len__(self) -> int:
        lists = sum(self._lists_of(rows.stop - rows.start) for rows in self.queries)
        # Devices take lists in turn: one would wait forever for a step with too few.
        return lists if self.devices == 1 else lists // self.step_lists * self.step_lists

    @property
    def steps_an_epoch(self) -> int:
        """Optimizer steps of one pass over the lists; the last may be incomplete."""
        return max(1, -(-len(self) // self.step_lists))
