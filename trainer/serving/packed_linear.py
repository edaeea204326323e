"""Runs linear layers with oneDNN and packed weights, on CPUs where this is faster than torch's default.

`torch.nn.functional.linear` in float32 uses MKL, which is slow on processors other than Intel's: on an AMD EPYC oneDNN was
2.2 times as fast. Loading a model measures both; results agree to the last digits of float32. Imports no Django, and torch
only when it is called.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import Any

WORTH_IT = 1.15
_ROWS, _COLUMNS = 512, 384  # size of the timed product, and the batch size that weights are packed for
log = logging.getLogger(__name__)


def pack_linears(model: Any) -> int:
    """Replace the model's float32 linear layers in place if that is faster here; return the number replaced."""
    import torch

    if not packing_pays():
        return 0
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and _fits(child):
                setattr(parent, name, _packed_class()(child))
                replaced += 1
    return replaced


@functools.cache
def packing_pays() -> bool:
    """Whether a packed product is clearly faster on this machine; measured once per process in thread CPU time."""
    import torch

    with torch.inference_mode():
        values = torch.randn(_ROWS, _COLUMNS)
        plain = torch.nn.Linear(_COLUMNS, _COLUMNS)
        try:
            packed = _packed_class()(plain)
            if not torch.allclose(packed(values), plain(values), atol=1e-4):
                return False
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            log.info("packed linear layers are unavailable (%s); using torch's own", error)
            return False
        return _seconds(plain, values) > WORTH_IT * _seconds(packed, values)


def _seconds(layer: Any, values: Any) -> float:
    """The fastest of several runs, in CPU time of the thread so that other processes do not distort it."""
    times = []
    for _ in range(7):
        begun = time.thread_time()
        for _ in range(3):
            layer(values)
        times.append(time.thread_time() - begun)
    return min(times)


def _fits(layer: Any) -> bool:
    """Whether the layer is large enough to gain; a head of one label is not."""
    import torch

    weight = layer.weight
    return bool(weight.dtype == torch.float32 and weight.device.type == "cpu" and min(weight.shape) >= 64)


@functools.cache
def _packed_class() -> type[Any]:
    import torch

    class PackedLinear(torch.nn.Module):
        """`torch.nn.Linear` for inference; keeps only the packed weights."""

        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.bias = None if linear.bias is None else linear.bias.detach()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, self.packed, self.bias, "none", [], "")
            return product

    return PackedLinear
