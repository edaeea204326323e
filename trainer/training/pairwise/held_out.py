"""Asks a pairwise student about held-out pairs, and measures its answers.

The figures are in `trainer.training.pairwise.figures`. Imports no Django.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from labeling.records import FloatArray, PairExamples
from trainer.examples import load_pairs
from trainer.training.pairwise.figures import HeldOutPairs, cyclic, figures, first_pairs, symmetric, triples_of
from trainer.training.pairwise.student import AnyStudent, both_orders

MOST_PAIRS = 4000
BATCH_TOKENS = 8192
SPLITS = ("test", "dev")


def judged(
    student: AnyStudent, pairs: PairExamples, *, most: int | None = None, batch_tokens: int = BATCH_TOKENS
) -> tuple[PairExamples, FloatArray, FloatArray]:
    """The (first `most`) pairs with the student's logits of both orders, float64[n] each."""
    count = len(pairs) if most is None else min(most, len(pairs))
    found = student.scores(both_orders(student.reader, pairs, range(count)), batch_tokens=batch_tokens)
    return first_pairs(pairs, count), found[0::2], found[1::2]


def measure_student(student: AnyStudent, pairs_file: Path) -> HeldOutPairs | None:
    """The student on the pairs of the test split, or of the dev split where test has none; None without either."""
    for split in SPLITS:
        pairs = load_pairs(pairs_file, split)
        if len(pairs):
            return _measured(student, split, pairs)
    return None


def _measured(student: AnyStudent, split: str, pairs: PairExamples) -> HeldOutPairs:
    found = figures(split, *judged(student, pairs, most=MOST_PAIRS))
    triples = triples_of(pairs, np.random.default_rng(0))
    if triples is None:
        return found
    _, first, second = judged(student, triples)
    around = symmetric(first, second)
    circles = cyclic(around[0::3], around[1::3], around[2::3])
    return replace(found, cycles=circles, triples=len(around) // 3)
