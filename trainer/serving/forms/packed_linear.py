"""Linear layers with weights that are packed for oneDNN, in float32 or bfloat16.

`torch.nn.functional.linear` in float32 uses MKL, which is slow on processors other than Intel's: on an AMD EPYC oneDNN was
2.2 times as fast. `packing_pays` measures both; results agree to the last digits of float32. Imports no Django, and torch
only when it is called.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Literal

WORTH_IT = 1.05  # thread CPU time, the least of several runs: a smaller gain could be noise
_ROWS, _COLUMNS = 512, 384  # size of the timed product, and the batch size that weights are packed for
Arithmetic = Literal["fp32", "packed", "bf16"]
Product = Callable[[Any], Any]
log = logging.getLogger(__name__)


def pack_linears(model: Any) -> int:
    """Replace the model's float32 linear layers in place if that is faster here; return the number replaced."""
    if not packing_pays():
        return 0
    return replace_linears(model, "packed")


def replace_linears(model: Any, arithmetic: Arithmetic) -> int:
    """Replace the model's float32 linear layers in place by products of another arithmetic; return the number replaced.

    In bfloat16 a layer takes and gives float32, so that sums between layers stay exact.
    """
    import torch

    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and _fits(child):
                setattr(parent, name, _product_layer()(child, arithmetic))
                replaced += 1
    return replaced


def product(weight: Any, bias: Any, arithmetic: Arithmetic, *, gelu: bool = False) -> Product:
    """`values @ weight.T + bias` as a function of float32[n, in], followed by GELU if asked; bf16 gives bfloat16.

    fp32 is torch's own product; packed and bf16 are oneDNN's with weights in its layout.
    """
    import torch

    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if arithmetic == "fp32":
        linear = torch.nn.functional.linear
        if gelu:
            return lambda values: torch.nn.functional.gelu(linear(values, weight, bias))
        return lambda values: linear(values, weight, bias)
    kind = torch.bfloat16 if arithmetic == "bf16" else torch.float32
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(kind), _ROWS)
    offset = None if bias is None else bias.to(kind)
    after, how = ("gelu", "none") if gelu else ("none", "")
    pointwise = torch.ops.mkldnn._linear_pointwise
    return lambda values: pointwise(values.to(kind), packed, offset, after, [], how)


@functools.cache
def packing_pays() -> bool:
    """Whether a packed product is clearly faster on this machine; measured once per process in thread CPU time."""
    import torch

    with torch.inference_mode():
        values = torch.randn(_ROWS, _COLUMNS)
        plain = torch.nn.Linear(_COLUMNS, _COLUMNS)
        try:
            packed = _product_layer()(plain, "packed")
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
def _product_layer() -> type[Any]:
    import torch

    class ProductLayer(torch.nn.Module):
        """`torch.nn.Linear` for inference; keeps only the packed weights."""

        def __init__(self, linear: torch.nn.Linear, arithmetic: Arithmetic) -> None:
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.product = product(linear.weight, linear.bias, arithmetic)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.product(values)
            return found.to(values.dtype)

    return ProductLayer
