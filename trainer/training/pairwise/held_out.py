"""Asks a pairwise student about held-out pairs, and measures its answers.

The figures are in `trainer.training.pairwise.figures`, the comparison with rivals in `trainer.training.pairwise.gate`. Imports no
Django.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labeling.records import FloatArray, PairExamples
from trainer.training.pairwise.figures import HeldOutPairs, cyclic, figures, symmetric, triples_of
from trainer.training.pairwise.student import AnyStudent, both_orders

BATCH_TOKENS = 8192


def judged(
    student: AnyStudent, pairs: PairExamples, *, batch_tokens: int = BATCH_TOKENS
) -> tuple[FloatArray, FloatArray]:
    """The student's logits of both orders of the pairs, float64[n] each."""
    found = student.scores(both_orders(student.reader, pairs, range(len(pairs))), batch_tokens=batch_tokens)
    return found[0::2], found[1::2]


def measured(
    student: AnyStudent, split: str, pairs: PairExamples, first: FloatArray, second: FloatArray
) -> HeldOutPairs:
    """The figures of the student's logits of the pairs, with the cycles in its answers to triples of their documents."""
    found = figures(split, pairs, first, second)
    triples = triples_of(pairs, np.random.default_rng(0))
    if triples is None:
        return found
    around = symmetric(*judged(student, triples))
    circles = cyclic(around[0::3], around[1::3], around[2::3])
    return replace(found, cycles=circles, triples=len(around) // 3)
