"""Relevances that lie close together, spread for learning and drawn together again in the head. Imports no Django.

Where few documents of a query answer it, calibrated relevance may differ by hundredths among all of them. The squared error of
such labels is flat: a network learns their mean, and their order drowns. So it learns the sigmoid of the
standardised logits, and the last layer is scaled back afterwards: orders are the same, and what is served is what was calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from scipy.special import expit, logit

from labeling.records import FloatArray

# The standard deviation of labels below which they are spread; evenly distributed ones have .29.
CLOSE = 0.1
# The logit of a spread label one standard deviation above the mean; labels of a warm start are spread alike, so that the
# head need not change its scale between the two.
STEEPNESS = 1.5
SMALLEST = 1e-4


@dataclass(frozen=True, slots=True)
class Stretch:
    """learned logit = STEEPNESS x (logit - mean) / deviation."""

    mean: float
    deviation: float

    def spread(self, relevance: FloatArray) -> FloatArray:
        """What is learned, float64[n] in (0, 1), instead of `relevance`, float64[n] in [0, 1]."""
        return np.asarray(expit(STEEPNESS * (_logits(relevance) - self.mean) / self.deviation))

    def draw_together(self, adapter: Path) -> None:
        """Scale the head in this folder of an adapter, so that its logits are those of the relevance itself.

        The head must be in it, with a last layer of weight [1, width] and bias [1]; to be called once.
        """
        path = adapter / "adapter_model.safetensors"
        tensors = load_file(str(path))
        heads = [name for name, each in tensors.items() if "lora_" not in name and each.shape[0] == 1]
        biases = [name for name in heads if tensors[name].ndim == 1]
        if len(heads) != 2 or len(biases) != 1:
            raise ValueError(f"the adapter has the heads {heads}; expected one weight and one bias of a single logit")
        for name in heads:
            tensors[name] = tensors[name] * (self.deviation / STEEPNESS)
        tensors[biases[0]] = tensors[biases[0]] + self.mean
        save_file(tensors, str(path), metadata={"format": "pt"})


def stretch_of(relevance: FloatArray) -> Stretch | None:
    """How to spread these labels; None where they are far enough apart, or all the same."""
    if not len(relevance) or not 0.0 < float(relevance.std()) < CLOSE:
        return None
    logits = _logits(relevance)
    deviation = float(logits.std())
    return Stretch(float(logits.mean()), deviation) if deviation > 0.0 else None


def _logits(relevance: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(relevance, SMALLEST, 1.0 - SMALLEST)))
