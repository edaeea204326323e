"""Choice of pairs without looking at answers: random cycles, complete designs, completion.

The graphs are those of arXiv 2509.12541: unions of random Hamiltonian cycles. `adaptive`
chooses pairs from what has been judged, `calibration` joins queries by `random_regular_pairs`, and
`scoring.sampling.samplers` wraps all of them as plugins. Arrays in, arrays out, generator passed in.
"""

from __future__ import annotations

import itertools

import numba
import numpy as np

from labeling.records import IntArray

MAX_RESTARTS = 5
"""How often a stuck cycle is drawn afresh before the exact construction takes over."""


class DesignError(ValueError):
    """A design was asked for that does not exist."""


class BadSize(DesignError):
    """The number of candidates is negative."""


class BadDegree(DesignError):
    """The degree is odd or below two, so no union of cycles has it."""


class BadBudget(DesignError):
    """A budget is negative."""


class BadPairs(DesignError):
    """Pairs do not fit the candidates: out of range, or of a candidate with itself."""


class NoSuchDesign(DesignError):
    """So many pairs are excluded that no further disjoint cycle was found."""


def check_budget(budget: int) -> int:
    """Return `budget` (in pairs), or raise BadBudget where it is negative. Zero is allowed."""
    if budget < 0:
        raise BadBudget(f"budget is {budget}; expected at least 0 pairs; 0 asks for nothing")
    return budget


def check_pairs(size: int, pairs: IntArray | None) -> IntArray:
    """`pairs` as int64[m, 2] with a < b; None is an empty design. Raises BadSize and BadPairs."""
    if size < 0:
        raise BadSize(f"size is {size}; expected a number of candidates, 0 or more")
    if pairs is None or len(pairs) == 0:
        return np.empty((0, 2), dtype=np.int64)
    checked = np.sort(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
    if checked[:, 0].min() < 0 or checked[:, 1].max() >= size:
        raise BadPairs(f"pairs name candidates outside 0 .. {size - 1}; use local indices of the query")
    if (checked[:, 0] == checked[:, 1]).any():
        raise BadPairs("a pair joins a candidate with itself; expected two different candidates")
    return checked


def all_pairs(size: int) -> IntArray:
    """Every pair of `size` candidates, int64[size (size - 1) / 2, 2], a < b, in lexicographic order."""
    check_pairs(size, None)
    return np.stack(np.triu_indices(size, k=1), axis=1).astype(np.int64)


def pair_keys(size: int, pairs: IntArray) -> IntArray:
    """One integer a size + b for each pair (a < b): equal keys are equal pairs."""
    return pairs[:, 0] * size + pairs[:, 1]


def without(size: int, pairs: IntArray, exclude: IntArray) -> IntArray:
    """`pairs` less those in `exclude`, in the order of `pairs`. Both with a < b."""
    if len(exclude) == 0:
        return pairs
    return pairs[~np.isin(pair_keys(size, pairs), pair_keys(size, exclude))]


def degrees(size: int, pairs: IntArray) -> IntArray:
    """The number of pairs of each candidate, int64[size]."""
    return np.bincount(pairs.ravel(), minlength=size).astype(np.int64)


def random_cycles(size: int, degree: int, rng: np.random.Generator, exclude: IntArray | None = None) -> IntArray:
    """Union of degree / 2 random Hamiltonian cycles: degree-regular, connected, no pair twice.

    int64[size degree / 2, 2] with a < b, cycle after cycle, so that the first `size` rows are one
    whole cycle and any m < size rows are one path. None of the pairs is in `exclude`.

    Documented results: where degree >= size - 1 all pairs (less `exclude`) in random order, whatever
    the degree's parity; so size 0 and 1 give none, 2 gives one pair, 3 its three. Raises BadDegree for
    a degree below 2, or odd and below size - 1 (a union of cycles has an even degree);
    NoSuchDesign where `exclude` leaves no room.
    """
    taken = check_pairs(size, exclude)
    if degree < 2:
        raise BadDegree(f"degree is {degree}; expected an even number, 2 or more")
    if degree >= size - 1:
        return rng.permutation(without(size, all_pairs(size), taken))
    if degree % 2:
        raise BadDegree(
            f"degree is {degree}, which is odd, for {size} candidates; every cycle adds two pairs to each "
            f"candidate: use {degree - 1} or {degree + 1}"
        )
    pairs = _disjoint_cycles(size, degree // 2, taken, rng)
    if pairs is not None:
        return pairs
    if len(taken) == 0:
        return _walecki_cycles(size, degree // 2, rng)
    raise NoSuchDesign(
        f"no {degree // 2} disjoint cycles over {size} candidates avoid the {len(taken)} excluded pairs; "
        "lower the degree or use complete_degrees"
    )


def matchings_first(size: int, cycles: IntArray) -> IntArray:
    """The pairs of whole cycles over `size` candidates, those of a cycle in another order: every other pair first.

    `cycles` int64[k size, 2] as from `random_cycles`; so the first size // 2 rows are a matching, in which no candidate is twice.
    """
    places = np.arange(len(cycles))
    return cycles[np.lexsort((places, places % size % 2 + 2 * (places % size == size - 1), places // size))]


def random_matching(size: int, pairs: IntArray, rng: np.random.Generator) -> IntArray:
    """Pairs between the candidates that are in none of `pairs`, each in one; an odd one meets a candidate that has been met.

    int64[m, 2], a < b; of three new candidates two pairs, of one candidate alone none.
    """
    drawn = check_pairs(size, pairs)
    met = degrees(size, drawn)
    order = rng.permutation(np.flatnonzero(met == 0))
    if len(order) % 2 and size > 1:
        others = np.setdiff1d(np.arange(size), order[-1:])
        order = np.append(order, rng.choice(others))
    return np.sort(order[: len(order) // 2 * 2].reshape(-1, 2), axis=1).astype(np.int64)


def random_regular_pairs(nodes: int, degree: int, rng: np.random.Generator) -> IntArray:
    """Edges of a random connected degree-regular graph over `nodes`, int64[nodes degree / 2, 2].

    For graphs over queries (cross-query pairs), where nodes run to hundreds of thousands: time and
    memory are linear in the edges. Small and odd cases are those of `random_cycles`.
    """
    return random_cycles(nodes, degree, rng)


def complete_degrees(size: int, degree: int, pairs: IntArray, rng: np.random.Generator) -> IntArray:
    """New pairs that bring every candidate to min(degree, size - 1) pairs and join all islands.

    For a design that was cut short or candidates that came later. int64[m, 2], a < b, none in
    `pairs`; empty when nothing is missing, so that repeated calls end. Candidates that lack pairs
    are joined with each other first, which keeps the result within one pair of regular.
    """
    drawn = check_pairs(size, pairs)
    if degree < 0:
        raise BadDegree(f"degree is {degree}; expected 0 or more")
    near = [[candidate] for candidate in range(size)]
    met = degrees(size, drawn)
    for a, b in drawn.tolist():
        near[a].append(b)
        near[b].append(a)
    added: list[tuple[int, int]] = []

    def link(a: int, b: int) -> None:
        near[a].append(b)
        near[b].append(a)
        met[[a, b]] += 1
        added.append((min(a, b), max(a, b)))

    for left, right in itertools.pairwise(_by_island(islands(size, drawn), rng)):
        link(left[np.argmin(met[left])], right[np.argmin(met[right])])
    for candidate in rng.permutation(size).tolist():
        while met[candidate] < min(degree, size - 1):
            draw = met + rng.random(size)
            draw[near[candidate]] = np.inf
            link(candidate, int(np.argmin(draw)))
    return np.array(added, dtype=np.int64).reshape(-1, 2)


def islands(size: int, pairs: IntArray) -> IntArray:
    """Number of the connected component of each candidate, int64[size], numbered from 0 by first member."""
    root = list(range(size))  # numpy's elements are an order of magnitude slower
    for a, b in pairs.tolist():
        root[_find(root, a)] = _find(root, b)
    found = np.array([_find(root, candidate) for candidate in range(size)], dtype=np.int64)
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _find(root: list[int], candidate: int) -> int:
    while root[candidate] != candidate:
        root[candidate] = root[root[candidate]]
        candidate = root[candidate]
    return candidate


def _by_island(component: IntArray, rng: np.random.Generator) -> list[list[int]]:
    """The members of each island, islands and members in random order."""
    shuffled = rng.permutation(len(component))
    by_island = shuffled[np.argsort(component[shuffled], kind="stable")]
    members = np.split(by_island, np.cumsum(np.bincount(component))[:-1]) if len(component) else []
    return [members[i].tolist() for i in rng.permutation(len(members))]


def _disjoint_cycles(size: int, count: int, taken: IntArray, rng: np.random.Generator) -> IntArray | None:
    """`count` random cycles that avoid each other and `taken`, or None where the search got stuck."""
    for _ in range(MAX_RESTARTS):
        start = np.concatenate([[0], np.cumsum(degrees(size, taken) + 2 * count)])
        fill = start[:-1].copy()
        near = np.empty(start[-1], dtype=np.int64)
        _store(start, fill, near, taken)
        cycles = []
        for _ in range(count):
            order = rng.permutation(size)
            if not _repair_cycle(order, start, fill, near, int(rng.integers(2**31))):
                break
            cycles.append(_edges_of(order))
            _store(start, fill, near, cycles[-1])
        if len(cycles) == count:
            return np.concatenate(cycles)
    return None


def _edges_of(order: IntArray) -> IntArray:
    """The pairs of the closed tour `order`, int64[n, 2] with a < b, along the tour."""
    return np.sort(np.stack([order, np.roll(order, -1)], axis=1), axis=1).astype(np.int64)


def _walecki_cycles(size: int, count: int, rng: np.random.Generator) -> IntArray:
    """`count` cycles of Walecki's decomposition of the complete graph under random labels.

    Exists for every count <= (size - 1) // 2. Zigzag paths over Z_2m, rotated m times, are disjoint;
    one more vertex closes each into a cycle; with an even size a second one splits its middle pair.
    """
    half = (size - 1) // 2
    steps = np.arange(2 * half)
    zigzag = np.where(steps % 2, (steps + 1) // 2, -(steps // 2))
    label = rng.permutation(size)
    cycles = []
    for turn in rng.permutation(half)[:count]:
        path = (zigzag + turn) % (2 * half)
        if size % 2 == 0:
            path = np.insert(path, half, size - 1)
        cycles.append(_edges_of(label[np.append(path, 2 * half)]))
    return np.concatenate(cycles)


@numba.njit(cache=True)
def _store(start: IntArray, fill: IntArray, near: IntArray, pairs: IntArray) -> None:
    """Enter pairs into the neighbour lists near[start[v]:fill[v]]."""
    for i in range(pairs.shape[0]):
        a, b = pairs[i, 0], pairs[i, 1]
        near[fill[a]] = b
        near[fill[b]] = a
        fill[a] += 1
        fill[b] += 1


@numba.njit(cache=True)
def _is_taken(start: IntArray, fill: IntArray, near: IntArray, a: int, b: int) -> int:
    for i in range(start[a], fill[a]):
        if near[i] == b:
            return 1
    return 0


@numba.njit(cache=True)
def _repair_cycle(order: IntArray, start: IntArray, fill: IntArray, near: IntArray, seed: int) -> bool:
    """Change `order` in place until no pair of the tour is taken; False where it got stuck.

    Each move cuts a taken pair and a random one and reverses what lies between (2-opt), where that
    does not raise the number of taken pairs. A random tour has about `degree` of them, whatever
    its length, so the work is a few passes over the tour.
    """
    np.random.seed(seed)
    n = len(order)
    idle = 0
    at = 0
    clean = 0
    while clean < n:
        if not _is_taken(start, fill, near, order[at], order[(at + 1) % n]):
            at = (at + 1) % n
            clean += 1
            continue
        if idle > 40 * n + 2000:
            return False
        i, j = at, np.random.randint(n)
        if i > j:
            i, j = j, i
        idle += 1
        if j - i < 2 or (i == 0 and j == n - 1):
            continue
        a, b, c, d = order[i], order[i + 1], order[j], order[(j + 1) % n]
        old = _is_taken(start, fill, near, a, b) + _is_taken(start, fill, near, c, d)
        new = _is_taken(start, fill, near, a, c) + _is_taken(start, fill, near, b, d)
        if new <= old:
            order[i + 1 : j + 1] = order[i + 1 : j + 1][::-1].copy()
            clean = 0
    return True
