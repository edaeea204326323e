"""Spreads labels that are close together before training, and scales the head back afterwards. Imports no Django.

If few documents answer a query, calibrated relevances may differ only by hundredths. The squared error of such labels is
flat, and a network learns their mean instead of their order. So it learns the sigmoid of the standardised logits, and the
last layer is scaled back after training: the order stays the same, and served scores match the calibrated relevance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from scipy.special import expit, logit

from labeling.records import FloatArray

# Labels with a smaller standard deviation are spread; uniformly distributed labels have .29.
CLOSE = 0.1
# The logit of a spread label one standard deviation above the mean. Labels of a warm start use the same value, so the head
# keeps its scale between the two.
STEEPNESS = 1.5
SMALLEST = 1e-4


@dataclass(frozen=True, slots=True)
class Stretch:
    """learned logit = STEEPNESS x (logit - mean) / deviation."""

    mean: float
    deviation: float

    def spread(self, relevance: FloatArray) -> FloatArray:
        """The labels to learn, float64[n] in (0, 1), in place of `relevance`, float64[n] in [0, 1]."""
        return np.asarray(expit(STEEPNESS * (_logits(relevance) - self.mean) / self.deviation))

    def draw_together(self, adapter: Path) -> None:
        """Scale the head of the adapter in this folder, so that its logits are those of the original relevance.

        The folder must contain the head, with a last layer of weight [1, width] and bias [1]. Call it only once.
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
    """The scaling for these labels; None if they are far enough apart, or all equal."""
    if not len(relevance) or not 0.0 < float(relevance.std()) < CLOSE:
        return None
    logits = _logits(relevance)
    deviation = float(logits.std())
    return Stretch(float(logits.mean()), deviation) if deviation > 0.0 else None


def _logits(relevance: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(relevance, SMALLEST, 1.0 - SMALLEST)))
