"""The table of rivals of `sampling.py`: published designs and the product's, same votes, same budget.

Not a benchmark itself. Every rival of `rivals.py` asks up to the last of RIVAL_CALLS calls on the same queries. Its ranking is
its own order or the product's fit of its answers, whichever is the better in the mean over a setting: so a rival
never loses by its way to rate. A world is a setting without its kind of votes; its figures are means over those.
`KNOWING` is not a rival: it applies the rule of `adaptive` to the true strengths, so that its lead shows what better strengths would bring
that rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.rivals import DOCUMENT_TOKENS, RIVALS, ROUND, TOP, Rival, Table, in_rounds, play
from benchmarks.sampling_worlds import Setting, World
from labeling.records import BoolArray, FloatArray, IntArray
from scoring.numerics.design import adaptive, kernels, static

RIVAL_CALLS = np.array([200, 400, 800])
OURS = "adaptive x rotate"
SETWISE = "setwise"
KNOWING = "(knows the strengths)"
UNRANKED = (SETWISE, KNOWING)

Rate = Callable[[list[IntArray], list[FloatArray]], FloatArray]
Quality = Callable[[list[World], FloatArray], FloatArray]


@dataclass(slots=True)
class Rows:
    """One setting: float64[R, len(RIVAL_CALLS), 3] by design, and mean tokens at each number of calls.

    `knowing` float64[R, checkpoints, 3]: the design that knows the strengths, at the checkpoints of the designs.
    """

    setting: Setting
    quality: dict[str, FloatArray]
    tokens: dict[str, FloatArray]
    knowing: FloatArray


def run_rivals(
    setting: Setting,
    worlds: list[World],
    ours: FloatArray,
    *,
    checkpoints: IntArray,
    rate: Rate,
    quality: Quality,
    seed: int,
) -> Rows:
    """Let all rivals ask; `ours` is the quality of the product's design on the same queries."""
    found = {OURS: ours}
    tokens = {OURS: 2.0 * DOCUMENT_TOKENS * RIVAL_CALLS}
    for name, rival in RIVALS.items():
        calls = RIVAL_CALLS
        found[name], tokens[name] = _play_all(rival, worlds, calls.tolist(), rate, quality, seed)
        if name == SETWISE:  # once more with as many tokens as pairs have
            found[f"{name}, tokens of pairs"], tokens[f"{name}, tokens of pairs"] = _play_all(
                rival, worlds, (calls // 2).tolist(), rate, quality, seed
            )
    calls = np.union1d(checkpoints, RIVAL_CALLS)
    curve, spent = _play_all(knowing, worlds, calls.tolist(), rate, quality, seed)
    places = np.searchsorted(calls, RIVAL_CALLS)
    found[KNOWING], tokens[KNOWING] = curve[:, places], spent[places]
    return Rows(setting, found, tokens, curve[:, np.searchsorted(calls, checkpoints)])


def knowing(table: Table) -> None:
    """As `adaptive`, but what an inversion costs, and how much an answer tells, is worked out from the true strengths."""
    truth = table.world.strength - table.world.strength.mean()
    places = 1.0 / np.log2(np.arange(TOP) + 2.0)

    def choose(posterior: adaptive.Posterior, free: BoolArray) -> IntArray:
        scale = max(float(posterior.theta @ truth / (truth @ truth)), 0.2)
        known = replace(posterior, theta=scale * truth)
        worth = kernels.inversion_worth(known.theta, known.covariance, known.dispersion, places)
        weights = np.diag(worth.sum(axis=1)) - worth
        weights = TOP / max(float(np.trace(weights)), 1e-9) * weights + 0.01 * np.eye(table.size)
        return adaptive.choose_pairs(known, np.argwhere(np.triu(~free, 1)), ROUND, weights).pairs

    in_rounds(table, choose, start=static.random_matching(table.size, np.empty((0, 2), dtype=np.int64), table.rng))


def _play_all(
    rival: Rival, worlds: list[World], calls: list[int], rate: Rate, quality: Quality, seed: int
) -> tuple[FloatArray, FloatArray]:
    tables = [play(rival, world, calls, np.random.default_rng([seed, i, 7])) for i, world in enumerate(worlds)]
    reached = []
    for place in range(len(calls)):
        own = quality(worlds, -np.array([np.argsort(table.orders[place]) for table in tables], dtype=np.float64))
        fitted = quality(worlds, rate(*_until(tables, place)))
        reached.append(own if own[:, 0].mean() > fitted[:, 0].mean() else fitted)
    return np.stack(reached, axis=1), np.mean([table.spent_tokens for table in tables], axis=0)


def _until(tables: Sequence[Table], place: int) -> tuple[list[IntArray], list[FloatArray]]:
    pairs = [np.concatenate(table.pairs)[: table.counts[place]] for table in tables]
    answers = [np.concatenate(table.answers)[: table.counts[place]] for table in tables]
    return pairs, answers


def by_world(rows: Sequence[Rows]) -> dict[str, dict[str, FloatArray]]:
    """Quality by world and design, float64[R, calls, 3], the mean over the kinds of votes."""
    worlds: dict[str, list[Rows]] = {}
    for each in rows:
        worlds.setdefault(" ".join(filter(None, [each.setting.group, each.setting.tails])), []).append(each)
    return {
        world: {name: np.mean([each.quality[name] for each in members], axis=0) for name in members[0].quality}
        for world, members in worlds.items()
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the product's design stands among the rivals in one world at one number of calls, by mean NDCG@10."""

    world: str
    calls: int
    rank: int
    best_rival: str
    rank_by_an_error: int
    lead: float
    lead_stderr: float
    room: float
    knowing_rank: int


def standings(rows: Sequence[Rows]) -> list[Standing]:
    """Rank 1 is first; `lead` over the best rival, paired over replications, below 0 where it loses.

    `rank_by_an_error` counts only rivals that are ahead by more than one standard error; `room`: how much better the design is that
    knows the strengths, `knowing_rank`: its place instead of the product's. A call of `setwise` reads twice the documents of a pair, so
    that it enters with as many tokens, not calls.
    """
    found = []
    for world, designs in by_world(rows).items():
        for place, calls in enumerate(RIVAL_CALLS.tolist()):
            ndcg = {name: each[:, place, 0] for name, each in designs.items()}
            lead = {name: ndcg[OURS] - each for name, each in ndcg.items() if name not in (OURS, *UNRANKED)}
            stderr = {name: each.std(ddof=1) / np.sqrt(len(each)) for name, each in lead.items()}
            best = min(lead, key=lambda name: lead[name].mean())
            found.append(
                Standing(
                    world,
                    calls,
                    rank=1 + sum(each.mean() < 0.0 for each in lead.values()),
                    best_rival=best,
                    rank_by_an_error=1 + sum(each.mean() < -stderr[name] for name, each in lead.items()),
                    lead=lead[best].mean(),
                    lead_stderr=stderr[best],
                    room=float((ndcg[KNOWING] - ndcg[OURS]).mean()),
                    knowing_rank=1 + sum(ndcg[name].mean() > ndcg[KNOWING].mean() for name in lead),
                )
            )
    return found


def report_rivals(rows: Sequence[Rows], table: Callable[[list[str], list[list[str]]], str]) -> str:
    """One table a world: NDCG@10, recall@10 and tau at each number of calls, and the tokens of the last."""
    parts = []
    tokens = rows[0].tokens
    for world, designs in by_world(rows).items():
        order = sorted(designs, key=lambda name: -designs[name][:, :, 0].mean())
        lines = []
        for name in order:
            mean = designs[name].mean(axis=0)
            cells = [f"{mean[place, 0]:.3f} {mean[place, 1]:.2f} {mean[place, 2]:.2f}" for place in range(len(mean))]
            lines.append([name, *cells, f"{tokens[name][-1] / 1000.0:,.0f}k"])
        count = len(next(iter(designs.values())))
        heads = ["design", *(f"at {calls} calls" for calls in RIVAL_CALLS), f"tokens at {RIVAL_CALLS[-1]}"]
        parts.append(f"\n{world}: NDCG@10, recall@10, tau ({count} replications)\n{table(heads, lines)}")
    lines = [
        [
            each.world,
            str(each.calls),
            f"{each.rank} ({each.rank_by_an_error})",
            each.best_rival,
            f"{each.lead:+.3f} ({each.lead_stderr:.3f})",
            f"{each.room:+.3f} ({each.knowing_rank})",
        ]
        for each in standings(rows)
    ]
    parts.append(
        f"\n{table(['world', 'calls', 'rank (by an error)', 'best rival', 'lead (se)', 'room (its rank)'], lines)}"
    )
    return "\n".join(parts)


def rival_keys(rows: Sequence[Rows]) -> dict[str, float]:
    """As `sampling.py` says."""
    found = standings(rows)
    return {
        "worst_rank_among_rivals": float(max(each.rank for each in found)),
        "worst_rank_by_an_error": float(max(each.rank_by_an_error for each in found)),
        "first_among_rivals": float(np.mean([each.rank == 1 for each in found])),
        "mean_lead_over_rivals": float(np.mean([each.lead for each in found])),
        "worst_rank_of_knowing": float(max(each.knowing_rank for each in found)),
        "room_above_rivals": float(np.mean([each.room for each in found])),
        "least_lead_over_rivals": min(each.lead for each in found),
        "clear_losses_to_rivals": float(sum(each.lead < -2.0 * each.lead_stderr for each in found)),
    }
