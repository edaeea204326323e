"""Assigns queries to splits and finds the rows to remove, so that no text is in two splits.

Pure: arrays in, arrays out. `scoring.snapshots.freeze` reads the texts and passes their fingerprints.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from labeling.records import IntArray

TRAIN, DEV, TEST, HELDOUT = range(4)
SPLITS = ("train", "dev", "test", "heldout")
PROVING = (TEST, HELDOUT)
# A text in several splits stays in the one where training on it would do the most harm.
_STRICTNESS = np.array([0, 1, 3, 2])

Prints = npt.NDArray[np.uint64]


def fingerprint(text: str) -> int:
    """Return 64 bits of a text's hash; equal for texts that differ only in case, letter width or whitespace."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return int.from_bytes(hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def split_queries(
    prints: Prints,
    strata: IntArray,
    heldout: npt.NDArray[np.bool_],
    *,
    dev: float,
    test: float,
    seed: int,
    named: IntArray | None = None,
) -> IntArray:
    """Return the split of each query, -1 if its text is also in a held-out domain, or in a stricter split that was named.

    `prints` of the texts, `strata` numbers, `heldout` whether the domain is held out: one per query. Queries with the
    same text share a split, whatever their order. The shares `dev` and `test` hold in every stratum as far as whole queries allow, and in sum.
    `named` int64[n]: the split that a query names itself, -1 for those that are drawn; the shares are those of the drawn.
    """
    split = np.full(len(prints), TRAIN, dtype=np.int64)
    split[heldout] = HELDOUT
    split[~heldout & np.isin(prints, prints[heldout])] = -1
    drawn = split == TRAIN
    if named is not None:
        own = drawn & (named >= 0)
        split[own] = named[own]
        drawn &= ~own
        # A text that a query names for one split is in no other: not drawn, and of two named splits in the stricter one.
        for strict in sorted(np.unique(named[own]).tolist(), key=lambda each: -_STRICTNESS[each]):
            prints_here = prints[own & (split == strict)]
            weaker = (own & (split >= 0) & (_STRICTNESS[split] < _STRICTNESS[strict])) | drawn
            left_out = weaker & np.isin(prints, prints_here)
            split[left_out] = -1
            drawn &= ~left_out
    open_rows = np.flatnonzero(drawn)
    if not len(open_rows):
        return split
    # A text of several strata belongs to the first by name, whichever of its queries was imported first.
    by_stratum = open_rows[np.argsort(strata[open_rows], kind="stable")]
    unique, first = np.unique(prints[by_stratum], return_index=True)
    stratum = strata[by_stratum][first]
    of_text = _split_texts(_shuffled(unique, seed), stratum, dev=dev, test=test)
    split[open_rows] = of_text[np.searchsorted(unique, prints[open_rows])]
    return split


def _shuffled(prints: Prints, seed: int) -> Prints:
    """Return a number per text that sorts the texts for the split; depends only on text and seed."""
    key = str(seed).encode()
    dealt = (hashlib.blake2b(int(each).to_bytes(8), key=key, digest_size=8).digest() for each in prints)
    return np.array([int.from_bytes(each) for each in dealt], dtype=np.uint64)


def _split_texts(order: Prints, stratum: IntArray, *, dev: float, test: float) -> IntArray:
    split = np.full(len(order), TRAIN, dtype=np.int64)
    numbers = np.unique(stratum)
    sizes = np.array([np.count_nonzero(stratum == number) for number in numbers], dtype=np.int64)
    tests = quotas(sizes, test)
    devs = quotas(sizes, dev, taken=tests)
    for number, tested, developed in zip(numbers, tests, devs, strict=True):
        members = np.flatnonzero(stratum == number)
        members = members[np.argsort(order[members], kind="stable")]
        split[members[:tested]] = TEST
        split[members[tested : tested + developed]] = DEV
    return split


def quotas(sizes: IntArray, share: float, *, taken: IntArray | None = None) -> IntArray:
    """Return how many of each stratum make up `share` of all.

    The counts are the nearest whole numbers, at least one in total for a positive share; together with `taken`
    they leave at least one.
    """
    free = sizes - (np.zeros_like(sizes) if taken is None else taken)
    exact = sizes * share
    quota = np.minimum(np.floor(exact).astype(np.int64), free)
    wanted = max(1, round(float(sizes.sum()) * share)) if share > 0 else 0
    by_remainder = np.lexsort((np.arange(len(sizes)), -sizes, -(exact - quota)))
    for _ in range(2):
        for at in by_remainder:
            if quota.sum() < wanted and free[at] - quota[at] > 0:
                quota[at] += 1
    return quota


def rows_to_keep(prints: Prints, split: IntArray) -> npt.NDArray[np.bool_]:
    """Return which rows stay, so that each document's text is only in its strictest split.

    `prints` of the documents and `split` (0 to 3), one per row. Tests count most, train least.
    """
    unique, of_text = np.unique(prints, return_inverse=True)
    strictness = _STRICTNESS[split]
    strictest = np.zeros(len(unique), dtype=np.int64)
    np.maximum.at(strictest, of_text, strictness)
    return np.asarray(strictness == strictest[of_text])


def strictest_splits(prints: Sequence[Prints], splits: Sequence[IntArray]) -> Callable[[Prints], IntArray]:
    """A function of prints that returns the strictest split in which each of them is; it knows those of `prints`."""
    unique, of_text = np.unique(np.concatenate(prints), return_inverse=True)
    strictest = np.zeros(len(unique), dtype=np.int64)
    np.maximum.at(strictest, of_text, _STRICTNESS[np.concatenate(splits)])
    split_of = np.argsort(_STRICTNESS)[strictest]
    return lambda asked: (
        np.asarray(split_of[np.searchsorted(unique, asked)]) if len(unique) else np.zeros(0, dtype=np.int64)
    )


def largest_islands(query: IntArray, island: IntArray, text: IntArray) -> npt.NDArray[np.bool_]:
    """Return the rows in the largest connected group of their query. `query` is sorted.

    In a tie that of the lowest `text`, numbers that the texts decide, so that the order of import has no say.
    """
    keep = np.zeros(len(query), dtype=np.bool_)
    bounds = np.flatnonzero(np.diff(query, prepend=-1, append=-1))
    for start, stop in itertools.pairwise(bounds.tolist()):
        part = island[start:stop]
        sizes = np.bincount(part)
        largest = sizes[part] == sizes.max()
        keep[start:stop] = part == part[np.where(largest, text[start:stop], np.iinfo(np.int64).max).argmin()]
    return keep


def names_of(splits: Sequence[int]) -> list[str]:
    return [SPLITS[each] for each in splits]
