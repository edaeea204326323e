"""Assigns judges to pairs, and the order of the two documents.

`all` asks every judge about every pair, as the paper does; `rotate` asks one judge a pair, in turn,
which spreads the same calls over more pairs. Pure: arrays in, arrays out, generator passed in.
"""

from __future__ import annotations

import copy

import numpy as np

from labeling.records import BoolArray, IntArray

MODES = ("all", "rotate")


class BadAllocation(ValueError):
    """The allocation does not exist, or there are no judges."""


def allocate(
    pairs: IntArray,
    *,
    judges: int,
    mode: str,
    rng: np.random.Generator,
    offset: int = 0,
    able: BoolArray | None = None,
) -> tuple[IntArray, IntArray, BoolArray]:
    """(pair int64[t], judge int64[t], swapped bool[t]): task t asks `judge` about row `pair` of `pairs`.

    `offset` is how many pairs were allocated before, so that `rotate` goes on in turn. Half of each
    judge's tasks (to one) are swapped, in random places. `able` bool[m, judges], None for all: which judge can answer which
    pair; a pair that no judge can answer gets no task. Raises BadAllocation.
    """
    if judges < 1:
        raise BadAllocation(f"{judges} judges; expected 1 or more")
    if mode == "all":
        pair = np.repeat(np.arange(len(pairs), dtype=np.int64), judges)
        judge = np.tile(np.arange(judges, dtype=np.int64), len(pairs))
        if able is not None:
            pair, judge = pair[able[pair, judge]], judge[able[pair, judge]]
    elif mode == "rotate":
        pair = np.arange(len(pairs), dtype=np.int64)
        if able is not None:
            pair = pair[able.any(axis=1)]
        judge = _in_turn(pairs[pair], judges, rng, offset, able=None if able is None else able[pair])
    else:
        raise BadAllocation(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    return pair, judge, _balanced_sides(judge, judges, rng)


def _in_turn(
    pairs: IntArray, judges: int, rng: np.random.Generator, offset: int, *, able: BoolArray | None = None
) -> IntArray:
    """Return a judge for each pair: in turn overall, and for each document the judges that it has met least.

    `able` bool[m, judges]: among the judges that can answer the pair, at least one.
    """
    if judges == 1:
        rng.random(len(pairs))  # as many draws as below
        return np.zeros(len(pairs), dtype=np.int64)
    # Lists are several times faster than numpy's arrays here. One draw breaks the ties of all pairs, and `rng` goes on behind it.
    noise, used = copy.deepcopy(rng).random(len(pairs) * judges).tolist(), 0
    met: dict[int, list[int]] = {}
    given = [int(judge < offset % judges) for judge in range(judges)]
    everybody = list(range(judges))
    chosen = np.empty(len(pairs), dtype=np.int64)
    for row, (a, b) in enumerate(pairs.tolist()):
        of_a, of_b = met.setdefault(a, [0] * judges), met.setdefault(b, [0] * judges)
        able_here = everybody if able is None else np.flatnonzero(able[row]).tolist()
        fewest = min([given[judge] for judge in able_here])
        least = [judge for judge in able_here if given[judge] == fewest]
        met_least = [of_a[judge] + of_b[judge] + noise[used + place] for place, judge in enumerate(least)]
        judge, used = least[met_least.index(min(met_least))], used + len(least)
        for count in (of_a, of_b, given):
            count[judge] += 1
        chosen[row] = judge
    rng.random(used)
    return chosen


def _balanced_sides(judge: IntArray, judges: int, rng: np.random.Generator) -> BoolArray:
    swapped = np.zeros(len(judge), dtype=np.bool_)
    for each in range(judges):
        mine = np.flatnonzero(judge == each)
        sides = (np.arange(len(mine)) + rng.integers(2)) % 2 == 0
        swapped[mine] = rng.permutation(sides)
    return swapped
