"""Published ways to choose what to ask, as rivals of the product's samplers in `sampling.py`.

Not a benchmark itself. A rival asks at a `Table`, one call after the other, until its budget is spent, and says at any
time how it orders the documents. Wherever a parameter is free it has the value of its paper. Each of them:

- `random_pairs`: pairs drawn at random; `borda`: the same, ordered by mean preference alone;
- `swiss`: rounds in which neighbours in points meet, as in chess;
- `trueskill`: the least certain document meets the one with the best match quality (Herbrich et al., NIPS 2006);
- `asap`: the minimum spanning tree of the most informative pairs (Mikhailiuk et al., arXiv 2004.05691, its fast form, in
  which an outcome changes the two documents alone);
- `heapsort`, `bubble`: pairwise ranking prompting (Qin et al., arXiv 2306.17563): the top ten by a heap, or passes from
  the bottom up;
- `setwise`: the heap whose nodes have three children, each call names the best of four (Zhuang et al., arXiv 2310.09497);
- `tournament`: knock-out brackets, the next best found among those that the best has beaten;
- `knowledge_gradient`: the pairs whose answers raise the expected discounted strength of the best ten most (Frazier et
  al., 2009, on the working posterior of `scoring.numerics.design.adaptive`);
- `thompson`: two posterior draws, the documents that they put at one place of the top ten meet (after Wu and Liu,
  NIPS 2016).

Sorts begin anew when they have finished: the same pairs then get fresh votes, and the order that counts is that of the
last whole pass. A call over k documents is decided by k - 1 votes, the winner so far against the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numba
import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree

from benchmarks.sampling_worlds import World
from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design import adaptive, kernels, static

TOP = 10
DOCUMENT_TOKENS = 150
SLOPE = 2.41
ROUND = 15
SET_SIZE = 4


class Spent(Exception):
    """The budget is used up."""


class Table:
    """Where a rival asks about one query. `order` returns its present order, best first; it is read at each checkpoint."""

    def __init__(self, world: World, checkpoints: Sequence[int], rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.size = len(world.strength)
        self.calls, self.tokens = 0, 0
        self.pairs: list[IntArray] = []
        self.answers: list[FloatArray] = []
        self.order: Callable[[], IntArray] = lambda: np.arange(self.size)
        self.orders: list[IntArray] = []
        self.counts: list[int] = []
        self.spent_tokens: list[int] = []
        self._checkpoints = list(checkpoints)

    def room(self) -> int:
        """Calls until the next checkpoint."""
        return self._checkpoints[len(self.orders)] - self.calls

    def ask(self, pairs: IntArray) -> FloatArray:
        """The mean preference for the first document of each pair, one call each; no more pairs than there is room for."""
        answers = self.world.vote(pairs, 1, self.rng)
        self._enter(pairs, answers, calls=len(pairs), documents=2 * len(pairs))
        return answers

    def beats(self, one: int, other: int) -> bool:
        """Whether one document beats the other in one call; a tie goes to the first."""
        return float(self.ask(np.array([[one, other]]))[0]) >= 0.5

    def best_of(self, documents: Sequence[int]) -> int:
        """The best of these documents, in one call."""
        best = documents[0]
        for other in documents[1:]:
            if self.world.vote(np.array([[best, other]]), 1, self.rng)[0] < 0.5:
                best = other
        pairs = np.array([[best, each] for each in documents if each != best], dtype=np.int64)
        self._enter(pairs, np.ones(len(pairs)), calls=1, documents=len(documents))
        return best

    def _enter(self, pairs: IntArray, answers: FloatArray, *, calls: int, documents: int) -> None:
        self.pairs.append(pairs)
        self.answers.append(answers)
        self.calls += calls
        self.tokens += DOCUMENT_TOKENS * documents

    def look(self) -> None:
        """Note the order where a checkpoint is reached; raises Spent at the last."""
        if self.room() <= 0:
            self.orders.append(np.asarray(self.order()))
            self.counts.append(sum(map(len, self.pairs)))
            self.spent_tokens.append(self.tokens)
            if len(self.orders) == len(self._checkpoints):
                raise Spent


Rival = Callable[[Table], None]


def play(rival: Rival, world: World, checkpoints: Sequence[int], rng: np.random.Generator) -> Table:
    """Let a rival ask about one query until its last checkpoint."""
    table = Table(world, checkpoints, rng)
    try:
        while True:
            rival(table)
    except Spent:
        return table


# --- rounds of pairs -----------------------------------------------------------------------------


def random_pairs(table: Table) -> None:
    """Pairs at random, none twice."""
    order = table.rng.permutation(static.all_pairs(table.size))
    while len(order):
        now, order = order[: table.room()], order[table.room() :]
        table.ask(now)
        table.look()


def borda(table: Table) -> None:
    """Random pairs, ordered by mean preference."""
    points, met = np.zeros(table.size), np.zeros(table.size)
    table.order = lambda: np.argsort(-np.divide(points, met, out=np.full(table.size, 0.5), where=met > 0))
    order = table.rng.permutation(static.all_pairs(table.size))
    while len(order):
        now, order = order[: table.room()], order[table.room() :]
        _score(points, now, table.ask(now))
        np.add.at(met, now.ravel(), 1.0)
        table.look()


def swiss(table: Table) -> None:
    """Rounds in which each document meets the next one in points that it has not met."""
    points = np.zeros(table.size)
    met = np.eye(table.size, dtype=np.bool_)
    table.order = lambda: np.argsort(-points, kind="stable")
    while True:
        pairs = _neighbours(np.lexsort((table.rng.random(table.size), -points)), met)
        while len(pairs):
            now, pairs = pairs[: table.room()], pairs[table.room() :]
            met[now[:, 0], now[:, 1]] = met[now[:, 1], now[:, 0]] = True
            _score(points, now, table.ask(now))
            table.look()


def _neighbours(order: IntArray, met: np.ndarray) -> IntArray:
    left = order.tolist()
    pairs = []
    while len(left) > 1:
        one = left.pop(0)
        place = next((i for i, other in enumerate(left) if not met[one, other]), 0)
        pairs.append((one, left.pop(place)))
    return np.array(pairs, dtype=np.int64)


def _score(points: FloatArray, pairs: IntArray, answers: FloatArray) -> None:
    np.add.at(points, pairs[:, 0], answers)
    np.add.at(points, pairs[:, 1], 1.0 - answers)


def trueskill(table: Table) -> None:
    """The least certain document meets the one with the best match quality; sigma is 1, beta one half, no drift."""
    mean, variance = np.zeros(table.size), np.ones(table.size)
    noise = 0.5  # 2 beta^2
    met = np.eye(table.size, dtype=np.bool_)
    table.order = lambda: np.argsort(-mean, kind="stable")
    while True:
        one = int(np.argmax(variance + 1e-9 * table.rng.random(table.size)))
        spread = noise + variance + variance[one]
        quality = np.sqrt(noise / spread) * np.exp(-((mean - mean[one]) ** 2) / (2.0 * spread))
        other = int(np.argmax(np.where(met[one], -1.0, quality + 1e-9 * table.rng.random(table.size))))
        met[one, other] = met[other, one] = True
        answer = float(table.ask(np.array([[one, other]]))[0])
        won, lost = (one, other) if answer > 0.5 or (answer == 0.5 and table.rng.random() < 0.5) else (other, one)
        mean[won], variance[won], mean[lost], variance[lost] = _after_win(
            mean[won], variance[won], mean[lost], variance[lost], noise
        )
        table.look()


@numba.njit(cache=True)
def _after_win(m: float, v: float, n: float, w: float, noise: float) -> tuple[float, float, float, float]:
    """Means and variances of winner (m, v) and loser (n, w) after the game."""
    c2 = v + w + noise
    c = math.sqrt(c2)
    t = (m - n) / c
    below = max(0.5 * math.erfc(-t / math.sqrt(2.0)), 1e-12)
    shift = math.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi) / below
    shrink = shift * (shift + t)
    return m + v / c * shift, v * (1.0 - v / c2 * shrink), n - w / c * shift, w * (1.0 - w / c2 * shrink)


def asap(table: Table) -> None:
    """Batches of n - 1 pairs: the spanning tree with the most expected information."""
    a, b = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    mean, variance = np.zeros(table.size), np.ones(table.size)
    table.order = lambda: np.argsort(-mean, kind="stable")
    while True:
        gain = _information(mean, variance, 0.5)
        cost = np.triu(1.0 / (gain * (1.0 + 1e-6 * table.rng.random(gain.shape))), 1)
        tree = minimum_spanning_tree(cost).tocoo()
        pairs = table.rng.permutation(np.stack([tree.row, tree.col], axis=1).astype(np.int64))
        while len(pairs):
            now, pairs = pairs[: table.room()], pairs[table.room() :]
            answers = table.ask(now)
            won = (answers > 0.5) | ((answers == 0.5) & (table.rng.random(len(now)) < 0.5))
            a = np.concatenate([a, np.where(won, now[:, 0], now[:, 1])])
            b = np.concatenate([b, np.where(won, now[:, 1], now[:, 0])])
            mean, variance = _message_passing(a, b, table.size, 0.5, 8)
            table.look()


@numba.njit(cache=True)
def _message_passing(
    won: IntArray, lost: IntArray, size: int, noise: float, passes: int
) -> tuple[FloatArray, FloatArray]:
    """Expectation propagation over all games, prior N(0, 1): means and variances."""
    precision, shift = np.ones(size), np.zeros(size)
    message = np.zeros((len(won), 4))
    for _ in range(passes):
        for g in range(len(won)):
            i, j = won[g], lost[g]
            pi, ti = precision[i] - message[g, 0], shift[i] - message[g, 1]
            pj, tj = precision[j] - message[g, 2], shift[j] - message[g, 3]
            m, v, n, w = _after_win(ti / pi, 1.0 / pi, tj / pj, 1.0 / pj, noise)
            precision[i], shift[i], precision[j], shift[j] = 1.0 / v, m / v, 1.0 / w, n / w
            message[g, 0], message[g, 1] = precision[i] - pi, shift[i] - ti
            message[g, 2], message[g, 3] = precision[j] - pj, shift[j] - tj
    return shift / precision, 1.0 / precision


@numba.njit(cache=True)
def _information(mean: FloatArray, variance: FloatArray, noise: float) -> FloatArray:
    """Expected Kullback-Leibler divergence of each pair's two documents by one game, float64[n, n]."""
    n = len(mean)
    gain = np.full((n, n), 1e-12)
    for i in range(n):
        for j in range(i + 1, n):
            t = (mean[i] - mean[j]) / math.sqrt(variance[i] + variance[j] + noise)
            p = 0.5 * math.erfc(-t / math.sqrt(2.0))
            total = 0.0
            for side in range(2):
                x, y = (i, j) if side == 0 else (j, i)
                m, v, k, w = _after_win(mean[x], variance[x], mean[y], variance[y], noise)
                part = _divergence(m, v, mean[x], variance[x]) + _divergence(k, w, mean[y], variance[y])
                total += (p if side == 0 else 1.0 - p) * part
            gain[i, j] = gain[j, i] = max(total, 1e-12)
    return gain


@numba.njit(cache=True)
def _divergence(m: float, v: float, n: float, w: float) -> float:
    return 0.5 * (math.log(w / v) + (v + (m - n) ** 2) / w - 1.0)


# --- on the product's working posterior ------------------------------------------------------------


def knowledge_gradient(table: Table) -> None:
    """Rounds of the pairs with the largest knowledge gradient, each document in three of them at most."""
    discount = 1.0 / np.log2(np.arange(2, 2 + TOP))
    in_rounds(table, lambda posterior, free: _by_gain(_top_gain(*_of(posterior), discount), free, table))


def thompson(table: Table) -> None:
    """Rounds of duels between what two posterior draws put at one place of the top ten."""
    in_rounds(table, lambda posterior, free: _duels(posterior, free, table))


def in_rounds(
    table: Table, choose: Callable[[adaptive.Posterior, np.ndarray], IntArray], *, start: IntArray | None = None
) -> None:
    """One cycle or another start, then rounds that look at the working posterior."""
    pairs, answers = np.empty((0, 2), dtype=np.int64), np.empty(0)
    theta = np.zeros(table.size)
    free = ~np.eye(table.size, dtype=np.bool_)
    table.order = lambda: np.argsort(-theta, kind="stable")
    waiting = static.random_cycles(table.size, 2, table.rng) if start is None else start
    while True:
        if not len(waiting):
            posterior = adaptive.working_posterior(_state(table.size, pairs, answers, theta))
            theta[:] = posterior.theta
            waiting = choose(posterior, free)
            if not len(waiting):  # nothing is in doubt
                waiting = table.rng.permutation(np.argwhere(np.triu(free)))[:ROUND]
        now, waiting = waiting[: table.room()], waiting[table.room() :]
        free[now[:, 0], now[:, 1]] = free[now[:, 1], now[:, 0]] = False
        pairs, answers = np.concatenate([pairs, now]), np.concatenate([answers, table.ask(now)])
        table.look()


def _state(size: int, pairs: IntArray, answers: FloatArray, theta: FloatArray) -> QueryState:
    rank = np.zeros(size, dtype=np.int64)
    weight = np.ones(len(pairs))
    return QueryState(size, pairs, rank, theta, answers, weight, prior_precision=1.0, logit_scale=SLOPE)


def _of(posterior: adaptive.Posterior) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    expected = kernels.expected_curvature(posterior.theta, posterior.covariance, posterior.dispersion, posterior.slope)
    return posterior.theta, posterior.covariance, expected, posterior.dispersion


@numba.njit(cache=True)
def _top_gain(
    theta: FloatArray, covariance: FloatArray, expected: FloatArray, phi: float, discount: FloatArray
) -> FloatArray:
    """Expected rise of the discounted posterior means of the best ten by one answer on each pair, float64[n, n]."""
    n, top = len(theta), len(discount)
    nodes = np.array([-2.02018287, -0.95857246, 0.95857246, 2.02018287])
    weights = np.array([0.01995324, 0.39361932, 0.39361932, 0.01995324]) / 0.82714512
    gain = np.zeros((n, n))
    best = np.empty(top)
    for i in range(n):
        for j in range(i + 1, n):
            u = covariance[:, i] - covariance[:, j]
            h = expected[i, j]
            scale = math.sqrt(phi * h / (1.0 + h * max(u[i] - u[j], 0.0)))
            for k in range(len(nodes)):
                best[:] = -1e18
                for r in range(n):
                    x = theta[r] + scale * u[r] * nodes[k] * math.sqrt(2.0)
                    if x > best[top - 1]:
                        place = top - 1
                        while place > 0 and best[place - 1] < x:
                            best[place] = best[place - 1]
                            place -= 1
                        best[place] = x
                gain[i, j] += weights[k] * (best * discount).sum()
            gain[j, i] = gain[i, j]
    return gain


def _by_gain(gain: FloatArray, free: np.ndarray, table: Table) -> IntArray:
    first, second = np.triu_indices(table.size, 1)
    order = np.argsort(-np.where(free[first, second], gain[first, second], -np.inf), kind="stable")
    met = np.zeros(table.size, dtype=np.int64)
    chosen: list[tuple[int, int]] = []
    for row in order.tolist():
        i, j = int(first[row]), int(second[row])
        if free[i, j] and met[i] < 3 and met[j] < 3:
            chosen.append((i, j))
            met[[i, j]] += 1
        if len(chosen) == ROUND:
            break
    return np.array(chosen, dtype=np.int64).reshape(-1, 2)


def _duels(posterior: adaptive.Posterior, free: np.ndarray, table: Table) -> IntArray:
    open_, chosen = free.copy(), []
    for _ in range(20):
        orders = np.argsort(-posterior.draws(2 * ROUND, table.rng), axis=0)
        for first, second in zip(orders[:, ::2].T, orders[:, 1::2].T, strict=True):
            place = int(table.rng.integers(TOP))
            i = int(first[place])
            rest = [int(j) for j in second[place : place + 30] if open_[i, j]]
            if rest and len(chosen) < ROUND:
                chosen.append((i, rest[0]))
                open_[i, rest[0]] = open_[rest[0], i] = False
        if len(chosen) == ROUND:
            break
    return np.array(chosen, dtype=np.int64).reshape(-1, 2)


# --- sorts -----------------------------------------------------------------------------------------


def heapsort(table: Table) -> None:
    """The top ten by a binary heap."""
    _heap(table, children=2, best_of=lambda documents: _best_by_pairs(table, documents))


def setwise(table: Table) -> None:
    """The top ten by a heap of four: a parent and its three children in one call."""

    def best_of(documents: Sequence[int]) -> int:
        best = table.best_of(documents)
        table.look()
        return best

    _heap(table, children=SET_SIZE - 1, best_of=best_of)


def _best_by_pairs(table: Table, documents: Sequence[int]) -> int:
    best = documents[0]
    for other in documents[1:]:
        best = best if table.beats(best, other) else other
        table.look()
    return best


def _heap(table: Table, *, children: int, best_of: Callable[[Sequence[int]], int]) -> None:
    found: list[int] = []
    finished: list[IntArray] = []
    heap = table.rng.permutation(table.size).tolist()
    table.order = lambda: finished[-1] if finished else np.array(found + heap)

    def sift(at: int) -> None:
        while (below := range(children * at + 1, min(children * at + 1 + children, len(heap)))) and len(below):
            best = best_of([heap[at], *(heap[child] for child in below)])
            if best == heap[at]:
                return
            child = next(child for child in below if heap[child] == best)
            heap[at], heap[child] = heap[child], heap[at]
            at = child

    while True:
        for parent in range((len(heap) - 2) // children, -1, -1):
            sift(parent)
        while len(found) < TOP:
            found.append(heap[0])
            heap[0] = heap[-1]
            heap.pop()
            sift(0)
        finished.append(np.array(found + heap))
        heap[:], found[:] = finished[-1].tolist(), []


def bubble(table: Table) -> None:
    """Passes from the bottom to the top; the k-th pass stops below the k - 1 best."""
    order = table.rng.permutation(table.size).tolist()
    table.order = lambda: np.array(order)
    while True:
        for settled in range(TOP):
            for place in range(table.size - 1, settled, -1):
                if not table.beats(order[place - 1], order[place]):
                    order[place - 1], order[place] = order[place], order[place - 1]
                table.look()


def tournament(table: Table) -> None:
    """Knock-out; each next best is the winner among those that the last one has beaten. Then a new bracket."""
    points = np.zeros(table.size)
    table.order = lambda: np.argsort(-points, kind="stable")
    while True:
        beaten: dict[int, list[int]] = {each: [] for each in range(table.size)}
        alive = list(range(table.size))
        for place in range(TOP):
            winner = _knock_out(table, table.rng.permutation(alive).tolist(), beaten, points if place == 0 else None)
            points[winner] += 2.0 * TOP - place
            alive = beaten[winner]


def _knock_out(table: Table, alive: list[int], beaten: dict[int, list[int]], points: FloatArray | None) -> int:
    """The winner; who beat whom goes into `beaten`, a point for each win into `points`."""
    while len(alive) > 1:
        winners = alive[len(alive) // 2 * 2 :]
        for one, other in zip(alive[0:-1:2], alive[1::2], strict=False):
            won, lost = (one, other) if table.beats(one, other) else (other, one)
            beaten[won].append(lost)
            winners.append(won)
            if points is not None:
                points[won] += 1.0
            table.look()
        alive = winners
    return alive[0]


RIVALS: dict[str, Rival] = {
    "random pairs": random_pairs,
    "random, Borda": borda,
    "Swiss": swiss,
    "TrueSkill": trueskill,
    "ASAP": asap,
    "heapsort": heapsort,
    "bubble": bubble,
    "setwise": setwise,
    "tournament": tournament,
    "knowledge gradient": knowledge_gradient,
    "Thompson duels": thompson,
}
