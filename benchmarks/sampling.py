"""Claim: fewer calls for the same top ten than the paper's three judges on 400 cycle pairs.

Every design alternates with judging and rating, as a run does, over many replications at once. Judges
are simulated (independent or shared errors, Gaussian or heavy-tailed strengths, soft, sign or
Bernoulli votes), replayed from the dense `photo_pairs`, and from the GPT-4o pairs of `trec_dl19` as far as
they go; the last two need ZELO_DATA. The prior's precision is cross-validated for each setting, the
same for all designs. Grades are 3, 2, 1 for the true best 3, next 7, next 15 of 100, gain 2^grade - 1.

Keys: `ndcg_calls_ratio_independent`, `_shared`, `_photo`: calls until the mean NDCG@10 of `adaptive` x
`rotate` reaches that of the paper's 1,200 calls, over 1,200, mean over the six kinds of votes and strengths
(`_worst`: the worst of them); `tau_loss`: tau of rotated cycles minus that of `adaptive` at equal calls, mean over 200 to
600 calls and all settings; `ndcg_calls_ratio_dl19`: GPT-4o pairs that the adaptive order needs to reach what
80 % in random order reach, over those 80 %. Each but the last has its standard error by bootstrap over replications (`_se`).

Rivals (`rivals.py`, `sampling_rivals.py`) ask the same queries. `worst_rank_among_rivals`: the worst place of `adaptive` x
`rotate` by mean NDCG@10 over all worlds at 200, 400 and 800 calls (`worst_rank_by_an_error`: where only rivals count that are ahead by more than one
standard error); `first_among_rivals`: in what share of those places it is first; `mean_lead_over_rivals`, `least_lead_over_rivals`: its
lead over the best rival there; `clear_losses_to_rivals`: in how many places it is behind by more than two standard errors;
`room_above_rivals`: how much better a design is that knows the true strengths, mean over the places, `worst_rank_of_knowing`: its worst place,
`ndcg_calls_ratio_*_knowing`: its calls ratio on the replications that rivals play; `_with_ranks`: that of `adaptive` with first-stage ranks (tau about .44), as it is by
default, on the first replications of the full run. `--quick` plays two worlds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.sampling_rivals import (
    KNOWING,
    OURS,
    RIVAL_CALLS,
    Rows,
    report_rivals,
    rival_keys,
    run_rivals,
)
from benchmarks.sampling_worlds import (
    SIMULATED,
    SIZE,
    AskedQuery,
    Setting,
    World,
    columns_of,
    photo_world,
    read_asked,
    read_photos,
    simulated_world,
)
from benchmarks.simulation import table
from labeling.plugins import Sampler
from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design.adaptive import top_importance, working_posterior
from scoring.numerics.design.rounds import choose_round
from scoring.numerics.design.static import all_pairs, pair_keys
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.prior import choose_prior
from scoring.sampling.samplers import Adaptive, Cycles, Uncertain

PAPER_JUDGES, PAPER_PAIRS = 3, 400
PAPER_CALLS = PAPER_JUDGES * PAPER_PAIRS
CHECKPOINTS = np.arange(100, 601, 50)
SLOPE = 2.41
PILOT = 16
BOOTSTRAPS = 200
CLAIMED = ("cycles x rotate", OURS)
RANKED = "adaptive, first stage"
OTHERS = 40
"""Replications that the other designs play, the first ones, so that the full run takes less than 20 minutes on two cores."""
DISCOUNT = 1.0 / np.log2(np.arange(2, 12))
OUT = Path(__file__).resolve().parent / "out"

# --- a run ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Design:
    """A sampler beside how many judges are asked about each pair and whether ranks are known."""

    name: str
    sampler: Sampler
    judges: int = 1
    ranks: bool = False


def designs() -> list[Design]:
    """What is compared with the paper. Totals are high enough for the last checkpoint."""
    cycles = Cycles(Cycles.Options(degree=24))
    adaptive = Adaptive(Adaptive.Options(pairs_per_candidate=12.0))
    return [
        Design("cycles x rotate", cycles),
        Design("adaptive x rotate", adaptive),
        Design(RANKED, adaptive, ranks=True),
        Design("adaptive, 2 cycles", Adaptive(Adaptive.Options(pairs_per_candidate=12.0, start_cycles=2))),
        Design("uncertain x rotate", Uncertain(Uncertain.Options(pairs=50))),
        Design("cycles x all", cycles, judges=PAPER_JUDGES),
        Design("adaptive x all", adaptive, judges=PAPER_JUDGES),
    ]


def rate(pairs: list[IntArray], answers: list[FloatArray], *, judges: int, precision: float) -> FloatArray:
    """Strengths of all replications, float64[R, n]."""
    columns = columns_of(pairs, answers, weight=float(judges))
    fit = fit_queries(
        columns, prior_precision=precision, tolerance=1e-5, require_connected=False, standard_errors=False, threads=1
    )
    return fit.theta.reshape(len(pairs), SIZE)


def pilot_precision(worlds: list[World], judges: int, seed: int) -> float:
    """The project's prior precision, cross-validated on the paper's pairs of a few queries."""
    rng = np.random.default_rng([seed, 99])
    state = QueryState(SIZE, np.empty((0, 2), dtype=np.int64), np.zeros(SIZE, dtype=np.int64))
    pairs = [Cycles().sample(state, PAPER_PAIRS, rng) for _ in worlds]
    answers = [world.vote(drawn, judges, rng) for world, drawn in zip(worlds, pairs, strict=True)]
    return choose_prior(columns_of(pairs, answers, weight=float(judges)), rng=rng, threads=1).prior_precision


def quality(worlds: list[World], theta: FloatArray) -> FloatArray:
    """NDCG@10, recall@10 and Kendall's tau of each replication, float64[R, 3]."""
    rows = []
    for world, estimate in zip(worlds, theta, strict=True):
        order = np.argsort(-estimate, kind="stable")[:10]
        best = np.argsort(-world.strength, kind="stable")[:10]
        gain = 2.0**world.grade - 1.0
        ndcg = (gain[order] @ DISCOUNT) / (gain[best] @ DISCOUNT)
        above = np.triu(
            np.sign(np.subtract.outer(estimate, estimate)) * np.sign(np.subtract.outer(world.strength, world.strength)),
            1,
        )
        rows.append((ndcg, len(np.intersect1d(order, best)) / 10.0, above.sum() / (SIZE * (SIZE - 1) / 2)))
    return np.array(rows)


def replay(
    design: Design, worlds: list[World], *, precision: float, seed: int, checkpoints: IntArray | None = None
) -> FloatArray:
    """Quality at each checkpoint of calls, float64[R, checkpoints, 3]; rounds stop at the checkpoints."""
    rngs = [np.random.default_rng([seed, i]) for i in range(len(worlds))]
    pairs = [np.empty((0, 2), dtype=np.int64) for _ in worlds]
    answers = [np.empty(0) for _ in worlds]
    theta: FloatArray | None = None
    reached = []
    for calls in CHECKPOINTS if checkpoints is None else checkpoints:
        goal = calls // design.judges
        while len(pairs[0]) < goal:
            for i, world in enumerate(worlds):
                state = QueryState(
                    size=SIZE,
                    pairs=pairs[i],
                    first_stage_rank=world.rank if design.ranks else np.zeros(SIZE, dtype=np.int64),
                    theta=None if theta is None else theta[i],
                    preference=answers[i],
                    weight=np.full(len(pairs[i]), float(design.judges)),
                    prior_precision=precision,
                    logit_scale=SLOPE,
                )
                new = design.sampler.sample(state, int(goal - len(pairs[i])), rngs[i])
                pairs[i] = np.concatenate([pairs[i], new])
                answers[i] = np.concatenate([answers[i], world.vote(new, design.judges, rngs[i])])
            theta = rate(pairs, answers, judges=design.judges, precision=precision)
        reached.append(quality(worlds, theta if theta is not None else np.zeros((len(worlds), SIZE))))
    return np.stack(reached, axis=1)


@dataclass(slots=True)
class Outcome:
    """One setting: the paper's quality float64[R, 3], each design's float64[R, checkpoints, 3]."""

    setting: Setting
    paper: FloatArray
    curves: dict[str, FloatArray]
    precision: float
    rivals: Rows | None = None


def run_setting(
    setting: Setting, replications: int, seed: int, data: Path | None, names: list[str], rivals: int
) -> Outcome:
    """The claimed designs on all replications of one setting, the others and the rivals on the first of them."""
    rng = np.random.default_rng([seed, *map(ord, str(setting))])
    if setting.group == "photo":
        assert data is not None
        worlds = [photo_world(read_photos(data))] * replications
    else:
        worlds = [simulated_world(setting, rng) for _ in range(replications)]
    pilot = worlds[:PILOT]
    precisions = {judges: pilot_precision(pilot, judges, seed) for judges in (1, PAPER_JUDGES)}
    state = QueryState(SIZE, np.empty((0, 2), dtype=np.int64), np.zeros(SIZE, dtype=np.int64))
    pairs = [Cycles().sample(state, PAPER_PAIRS, rng) for _ in worlds]
    answers = [world.vote(drawn, PAPER_JUDGES, rng) for world, drawn in zip(worlds, pairs, strict=True)]
    paper = quality(worlds, rate(pairs, answers, judges=PAPER_JUDGES, precision=precisions[PAPER_JUDGES]))
    curves = {
        design.name: replay(
            design,
            worlds if design.name in CLAIMED else worlds[:OTHERS],
            precision=precisions[design.judges],
            seed=seed,
        )
        for design in designs()
        if design.name in names
    }
    rows = None
    if met := worlds[:rivals]:
        design = next(design for design in designs() if design.name == OURS)
        ours = replay(design, met, precision=precisions[1], seed=seed, checkpoints=RIVAL_CALLS)
        rating = partial(rate, judges=1, precision=precisions[1])
        rows = run_rivals(setting, met, ours, checkpoints=CHECKPOINTS, rate=rating, quality=quality, seed=seed)
        curves[KNOWING] = rows.knowing
    return Outcome(setting, paper, curves, precisions[1], rows)


# --- what it shows ---------------------------------------------------------------------------


def calls_ratio(curve: FloatArray, target: float) -> float:
    """Calls at which a mean curve first reaches the target, over the paper's; 1 where it does not."""
    above = np.flatnonzero(curve >= target)
    if not len(above):
        return 1.0
    i = int(above[0])
    if i == 0:
        return float(CHECKPOINTS[0]) / PAPER_CALLS
    share = (target - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(CHECKPOINTS[i - 1] + share * (CHECKPOINTS[i] - CHECKPOINTS[i - 1])) / PAPER_CALLS


def bootstrap(count: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """All replications first, then resamples of them."""
    yield np.arange(count)
    for _ in range(BOOTSTRAPS):
        yield rng.integers(count, size=count)


def ratios(outcome: Outcome, name: str, measure: int = 0) -> FloatArray:
    """Calls ratio of a design: the estimate, then its bootstrap values."""
    rng = np.random.default_rng(0)
    curve = outcome.curves[name][:, :, measure]
    paper = outcome.paper[: len(curve), measure]
    return np.array([calls_ratio(curve[i].mean(axis=0), paper[i].mean()) for i in bootstrap(len(curve), rng)])


def tau_losses(outcome: Outcome, name: str) -> FloatArray:
    """Tau of rotated cycles minus that of a design, mean over 200 to 600 calls: estimate, then bootstrap values."""
    rng = np.random.default_rng(0)
    middle = (CHECKPOINTS >= 200) & (CHECKPOINTS <= 600)
    own = outcome.curves[name]
    loss = (outcome.curves["cycles x rotate"][: len(own)] - own)[:, middle, 2].mean(axis=1)
    return np.array([loss[i].mean() for i in bootstrap(len(loss), rng)])


def report(outcome: Outcome) -> str:
    """The table of one setting."""
    rows = []
    for name, curve in outcome.curves.items():
        mean, error = curve.mean(axis=0), curve.std(axis=0, ddof=1) / np.sqrt(len(curve))
        at = [int(np.flatnonzero(calls == CHECKPOINTS)[0]) for calls in (150, 200, 300, 400, 600)]
        ndcg, recall, loss = ratios(outcome, name), ratios(outcome, name, 1), tau_losses(outcome, name)
        rows.append(
            [name, f"{ndcg[0]:.3f} ({ndcg[1:].std():.3f})", f"{recall[0]:.3f}", f"{loss[0]:+.3f}"]
            + [f"{mean[i, 0]:.3f} ({error[i, 0]:.3f})" for i in at]
        )
    paper = outcome.paper.mean(axis=0)
    title = (
        f"{outcome.setting}: the paper's {PAPER_CALLS} calls reach NDCG@10 {paper[0]:.3f}, recall@10 {paper[1]:.3f}, "
        f"tau {paper[2]:.3f} (prior precision {outcome.precision:.2f}, {len(outcome.paper)} replications)"
    )
    headings = [
        "design",
        "NDCG ratio (se)",
        "recall ratio",
        "tau loss",
        *(f"NDCG at {c}" for c in (150, 200, 300, 400, 600)),
    ]
    return f"\n{title}\n{table(headings, rows)}"


def plot(outcomes: list[Outcome]) -> None:
    """Quality against calls, one page a setting, under benchmarks/out/."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    OUT.mkdir(exist_ok=True)
    for outcome in outcomes:
        figure = make_subplots(rows=1, cols=3, subplot_titles=["NDCG@10", "recall@10", "Kendall tau"])
        for measure in range(3):
            figure.add_hline(outcome.paper[:, measure].mean(), line_dash="dot", row=1, col=measure + 1)
            for name, curve in outcome.curves.items():
                error = curve[:, :, measure].std(axis=0) / np.sqrt(len(curve))
                trace = go.Scatter(
                    x=CHECKPOINTS,
                    y=curve[:, :, measure].mean(axis=0),
                    error_y={"array": error},
                    name=name,
                    showlegend=measure == 0,
                    legendgroup=name,
                )
                figure.add_trace(trace, row=1, col=measure + 1)
        figure.update_layout(title=f"{outcome.setting}: quality against calls; dotted: the paper's {PAPER_CALLS} calls")
        figure.write_html(OUT / f"sampling-{str(outcome.setting).replace(' ', '-')}.html", include_plotlyjs="cdn")


def keys(outcomes: list[Outcome]) -> dict[str, float]:
    """The figures that are claimed, of `adaptive x rotate`."""
    name = "adaptive x rotate"
    found: dict[str, float] = {}
    for group in ("independent", "shared", "photo"):
        values = [ratios(outcome, name) for outcome in outcomes if outcome.setting.group == group]
        if values:
            key = f"ndcg_calls_ratio_{group}"
            found[key] = float(np.mean([v[0] for v in values]))
            found[f"{key}_se"] = float(np.mean(values, axis=0)[1:].std())
            found[f"{key}_worst"] = max(float(v[0]) for v in values)
        for other, ending in ((KNOWING, "knowing"), (RANKED, "with_ranks")):
            of_group = [each for each in outcomes if each.setting.group == group and other in each.curves]
            if of_group and (ending, group) != ("with_ranks", "photo"):  # photos have no first stage
                found[f"ndcg_calls_ratio_{group}_{ending}"] = float(
                    np.mean([ratios(each, other)[0] for each in of_group])
                )
    losses = np.array([tau_losses(outcome, name) for outcome in outcomes])
    found["tau_loss"], found["tau_loss_se"] = float(losses[:, 0].mean()), float(losses.mean(axis=0)[1:].std())
    found["tau_loss_worst"] = float(losses[:, 0].max())
    return found


# --- GPT-4o on trec_dl19: only the pairs that were asked ---------------------------------------

SHARES = np.arange(0.2, 1.01, 0.1)


def graded_ndcg(theta: FloatArray, grade: FloatArray) -> float:
    """NDCG@10 over the compared passages, gain 2^grade - 1."""
    gain = 2.0**grade - 1.0
    return float((gain[np.argsort(-theta, kind="stable")[:10]] @ DISCOUNT) / (np.sort(gain)[::-1][:10] @ DISCOUNT))


def replay_asked(query: AskedQuery, *, adaptive: bool, precision: float, seed: int) -> list[float]:
    """NDCG@10 at each share of the asked pairs, taken in random order or, after 20 %, by the adaptive rule."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(query.pairs))
    taken = order[: int(SHARES[0] * len(order))]
    never = all_pairs(query.size)
    never = never[~np.isin(pair_keys(query.size, never), pair_keys(query.size, query.pairs))]
    theta = np.zeros(query.size)
    found = []
    for share in SHARES:
        count = round(share * len(order)) - len(taken)
        if adaptive and count > 0:
            posterior = working_posterior(state_of(query, taken, theta, precision))
            drawn = np.concatenate([never, query.pairs[taken]])
            options = Adaptive.Options()
            weights = top_importance(posterior, rng, floor=options.floor)
            new = choose_round(posterior, drawn, count, weights, top_share=options.top_share).pairs
            row_of = dict(zip(pair_keys(query.size, query.pairs).tolist(), range(len(order)), strict=True))
            taken = np.concatenate([taken, [row_of[key] for key in pair_keys(query.size, new).tolist()]]).astype(
                np.int64
            )
        elif count > 0:
            taken = order[: len(taken) + count]
        columns = columns_of([query.pairs[taken]], [query.preference[taken]], weight=1.0, size=query.size)
        theta = fit_queries(columns, prior_precision=precision, standard_errors=False, threads=1).theta
        found.append(graded_ndcg(theta, query.grade))
    return found


def state_of(query: AskedQuery, taken: IntArray, theta: FloatArray, precision: float) -> QueryState:
    """What a sampler would see after the answers to `taken`."""
    return QueryState(
        size=query.size,
        pairs=query.pairs[taken],
        first_stage_rank=np.zeros(query.size, dtype=np.int64),
        theta=theta,
        preference=query.preference[taken],
        weight=np.ones(len(taken)),
        prior_precision=precision,
        logit_scale=SLOPE,
    )


def asked_outcome(folder: Path, replications: int) -> dict[str, FloatArray]:
    """Mean NDCG@10 over queries at each share, float64[replications, shares], in either order."""
    queries = read_asked(folder)
    columns = [columns_of([q.pairs], [q.preference], weight=1.0, size=q.size) for q in queries]
    precision = float(np.median([choose_prior(c, threads=1).prior_precision for c in columns[:PILOT]]))
    print(
        f"\ntrec_dl19, GPT-4o: {len(queries)} queries, {sum(len(q.pairs) for q in queries)} pairs, precision {precision:.2f}"
    )
    return {
        name: np.array(
            [
                np.mean([replay_asked(q, adaptive=adaptive, precision=precision, seed=seed) for q in queries], axis=0)
                for seed in range(replications)
            ]
        )
        for name, adaptive in (("random order", False), ("adaptive order", True))
    }


def asked_ratio(found: dict[str, FloatArray]) -> float:
    """Pairs until the adaptive order reaches what the random order has at 80 % of them, over those 80 %."""
    target = found["random order"].mean(axis=0)[np.isclose(SHARES, 0.8)][0]
    adaptive = np.maximum.accumulate(found["adaptive order"].mean(axis=0))
    return float(np.interp(target, adaptive, SHARES) / 0.8)


def report_asked(found: dict[str, FloatArray]) -> str:
    rows = [[name, *(f"{value:.3f}" for value in curve.mean(axis=0))] for name, curve in found.items()]
    return table(["NDCG@10 at share", *(f"{share:.0%}" for share in SHARES)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two worlds, few replications, claimed designs, no plots")
    parser.add_argument("--claimed", action="store_true", help="all worlds, the claimed designs and the rivals only")
    parser.add_argument("--replications", type=int, help="default 100; 8 with --quick")
    parser.add_argument("--rivals", type=int, help="replications that rivals play too; default 40; 8 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    replications = options.replications or (8 if options.quick else 100)
    rivals = min(replications, options.rivals if options.rivals is not None else 8 if options.quick else 40)
    data = Path(os.environ["ZELO_DATA"]) if os.environ.get("ZELO_DATA") else None
    names = list(CLAIMED) if options.quick or options.claimed else [design.name for design in designs()]
    settings = [*SIMULATED, *([Setting("photo")] if data else [])]
    if options.quick:
        kinds = [each for each in settings if (each.group, each.tails) in (("shared", "gaussian"), ("photo", ""))]
        settings = kinds if data else [each for each in settings if each.tails == "gaussian"]
    begun = time.perf_counter()
    work = partial(run_setting, replications=replications, seed=options.seed, data=data, names=names, rivals=rivals)
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for outcome in pool.map(work, settings):
            print(report(outcome), flush=True)
            outcomes.append(outcome)
    if data is None:
        print("\nZELO_DATA is not set: photo_pairs and trec_dl19 were left out")
    found = keys(outcomes)
    rows = [outcome.rivals for outcome in outcomes if outcome.rivals is not None]
    if rows:
        print(report_rivals(rows, table))
        found |= rival_keys(rows)
    if data is not None and not (options.quick or options.claimed):
        asked = asked_outcome(data, 5)
        found["ndcg_calls_ratio_dl19"] = asked_ratio(asked)
        print(report_asked(asked))
    if not (options.quick or options.claimed):
        plot(outcomes)
    found = {key: round(value, 4) for key, value in found.items()}
    print(json.dumps({"benchmark": "sampling", **found, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
