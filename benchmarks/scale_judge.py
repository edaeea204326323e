"""The computed judge of `benchmarks/scale.py`: a plugin whose preferences follow from the texts alone.

Each document has a strength for its query, drawn from a hash of both texts; a preference is its logistic difference with noise
from a hash of the pair. So the same questions have the same answers in every run, and no model is loaded.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pydantic

from labeling import plugins
from labeling.records import Collection, Comparison, Failure, Verdict

SPREAD, NOISE, LEAN = 1.2, 0.5, 0.1


@plugins.register
class ComputedJudge(plugins.Judge):
    """Answers at once, or SCALE_JUDGE_SECONDS after a batch was asked, as a model would."""

    name = "computed"
    label = "Computed from hashes of the texts"
    batch_size: ClassVar[int] = 200
    can_drift: ClassVar[bool] = True  # so that its answers pass through the write-ahead log

    class Options(plugins.Judge.Options):
        noise: int = pydantic.Field(default=0, ge=0, description="The seed of its noise: one judge for each.")

    options: Options

    def prepare(self, collection: Collection) -> None:
        pass

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        time.sleep(float(os.environ.get("SCALE_JUDGE_SECONDS", "0")))
        seeds = [
            (zlib.crc32(each.query_a.text.encode()), zlib.crc32(each.query_b.text.encode())) for each in comparisons
        ]
        sides = [
            (zlib.crc32(each.a.text.encode(), of_a), zlib.crc32(each.b.text.encode(), of_b))
            for each, (of_a, of_b) in zip(comparisons, seeds, strict=True)
        ]
        crc = np.array(sides, dtype=np.uint64).reshape(-1, 2)
        strength = SPREAD * _logit(crc)
        noise = NOISE * _logit(
            (crc[:, 0] * np.uint64(2654435761) ^ crc[:, 1] ^ np.uint64(self.options.noise)) % np.uint64(2**32)
        )
        lean = np.where([each.swapped for each in comparisons], -LEAN, LEAN)
        preference = 1.0 / (1.0 + np.exp(strength[:, 1] - strength[:, 0] - noise - lean))
        return [Verdict(float(each)) for each in np.round(preference, 6)]


def _logit(numbers: np.ndarray) -> np.ndarray:
    """Logistic draws from 32-bit hashes."""
    uniform = (numbers.astype(np.float64) + 0.5) / 2.0**32
    return np.asarray(np.log(uniform / (1.0 - uniform)))
