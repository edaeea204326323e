"""The gate of a pairwise student: on held-out pairs it must be better than chance, and not worse than its rivals.

The rivals are its untrained base, and the first stage as a judge: its logit is the difference of the documents' log ranks. Both
answer at their best temperature on the dev pairs. An encoder that reads both documents has no order before it is trained, so chance
is its base. Neighbour: `trainer.evaluation.gate`, for students that rank. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from labeling.records import FloatArray, PairExamples
from scoring.numerics.measures.resampling import paired_test
from trainer.evaluation.gate import FEW_QUERIES, SIGNIFICANT, SPLITS, Rival
from trainer.examples import load_pairs
from trainer.training.pairwise.apart import calibrated_temperature
from trainer.training.pairwise.figures import HeldOutPairs, by_query, cross_entropies, some_pairs, symmetric
from trainer.training.pairwise.held_out import judged, measured
from trainer.training.pairwise.student import AnyStudent

MOST_PAIRS = 2000  # of each split
LOG_LOSS = "log_loss"  # the `reference` of a comparison


def hold_at_pairs_gate(
    student: AnyStudent, *, untrained: AnyStudent | None, pairs_file: Path, rows_file: Path, train: PairExamples
) -> dict[str, Any]:
    """The gate's result as plain values: `held_back`, `comparisons` of log-losses, the likely `reasons`, the figures `pairs`.

    The figures are those of the test split, or of dev where test has no pairs. Nothing is held back where neither has any.
    """
    held_out = {split: some_pairs(load_pairs(pairs_file, split), MOST_PAIRS) for split in SPLITS}
    held_out = {split: pairs for split, pairs in held_out.items() if len(pairs)}
    if not held_out:
        return {"held_back": False, "comparisons": [], "reasons": [], "pairs": None}
    answers = {split: judged(student, pairs) for split, pairs in held_out.items()}
    split = "test" if "test" in held_out else "dev"
    found = measured(student, split, held_out[split], *answers[split])
    own = {split: symmetric(*both) for split, both in answers.items()}
    rows = compared(held_out, own, rivals_of(held_out, untrained=untrained, rows_file=rows_file))
    return result_of(found, rows, train)


def result_of(found: HeldOutPairs, rows: list[dict[str, Any]], train: PairExamples) -> dict[str, Any]:
    """The plain values that are stored."""
    worse = {row["rival"] for row in rows if row["worse"]}
    reasons = [] if found.beats_chance else ["pairs_at_chance"]
    reasons += [f"good_{rival}" for rival in ("base", "first_stage") if rival in worse]
    if reasons and len(np.unique(train.query_ids)) < FEW_QUERIES:
        reasons.append("few_queries")
    return {"held_back": bool(reasons), "comparisons": rows, "reasons": reasons, "pairs": asdict(found)}


def rivals_of(
    held_out: Mapping[str, PairExamples], *, untrained: AnyStudent | None, rows_file: Path
) -> dict[Rival, dict[str, FloatArray]]:
    """The rivals' logits of each split's pairs, float64[n]; NaN for pairs that the first stage did not rank."""
    found: dict[Rival, dict[str, FloatArray]] = {}
    if untrained is not None:
        found["base"] = {split: symmetric(*judged(untrained, pairs)) for split, pairs in held_out.items()}
    ranks = _first_stage_ranks(rows_file)
    found["first_stage"] = {split: _of_ranks(ranks, pairs) for split, pairs in held_out.items()}
    return found


def compared(
    held_out: Mapping[str, PairExamples],
    own: Mapping[str, FloatArray],
    rivals: Mapping[Rival, Mapping[str, FloatArray]],
) -> list[dict[str, Any]]:
    """The paired comparison of log-losses with each rival on each split, over the pairs that the rival answers."""
    rows = []
    for rival, logits in rivals.items():
        chosen_on = next((split for split in held_out if np.isfinite(logits[split]).any()), next(iter(held_out)))
        temperature = _best_temperature(logits[chosen_on], held_out[chosen_on])
        for split, pairs in held_out.items():
            known = np.isfinite(logits[split])
            if known.any():
                rows.append(_row(rival, split, pairs, own[split], logits[split] / temperature, known))
    return rows


def _row(
    rival: Rival, split: str, pairs: PairExamples, own: FloatArray, other: FloatArray, known: Any
) -> dict[str, Any]:
    losses = (cross_entropies(each[known], pairs.preferences[known]) for each in (own, other))
    mine, theirs = (by_query(each, pairs.query_ids[known]) for each in losses)
    test = paired_test(mine, theirs, rng=np.random.default_rng(0))
    change = test.difference
    return {
        "split": split, "reference": LOG_LOSS, "rival": rival, "queries": len(mine), "student": float(mine.mean()),
        "other": float(theirs.mean()), "difference": change.estimate, "low": change.low, "high": change.high,
        "p_value": test.p_value, "worse": bool(change.low > 0.0 and test.p_value < SIGNIFICANT),
    }  # fmt: skip


def _best_temperature(logits: FloatArray, pairs: PairExamples) -> float:
    known = np.isfinite(logits)
    if not known.any():
        return 1.0
    return calibrated_temperature(1.0, logits[known], pairs.preferences[known])


def _first_stage_ranks(rows_file: Path) -> dict[tuple[int, int], float]:
    """The first stage's rank of each candidate that it ranked, by query and candidate."""
    table = pq.read_table(rows_file, columns=["query_id", "candidate_id", "first_stage_rank"])
    queries, candidates, ranks = (table.column(name).to_pylist() for name in table.column_names)
    return {
        (query, candidate): rank
        for query, candidate, rank in zip(queries, candidates, ranks, strict=True)
        if rank is not None
    }


def _of_ranks(ranks: Mapping[tuple[int, int], float], pairs: PairExamples) -> FloatArray:
    queries = pairs.query_ids.tolist()
    a, b = (
        np.array([ranks.get(each, np.nan) for each in zip(queries, ids.tolist(), strict=True)])
        for ids in (pairs.a_ids, pairs.b_ids)
    )
    return np.asarray(np.log(b) - np.log(a))
