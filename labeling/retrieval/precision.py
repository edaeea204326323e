"""Whether an embedder computes in bfloat16: on CPUs that have it, if it is faster there and ranks the same.

`labeling.retrieval.embedder` asks once for each model and process. Imports no Django, and torch only when it is called.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

WORTH_IT = 1.3
# Cosines closer than this may change places: the rounding of bfloat16 is larger than their difference.
SAME_COSINE = 5e-3
RUNS = 2
PROBE_QUERIES = ("keep the last lines of a file", "sort numbers", "wait for several tasks at once", "what day is it")
PROBE_DOCUMENTS = (
    "Return a list of the last n lines, oldest first.",
    "Sort the list in ascending order and return None. The sort is in-place and stable.",
    "Wait for the futures and coroutines in the iterable to complete, and return two sets of them: done, pending.",
    "Return the day of the week as an integer, where Monday is 0 and Sunday is 6.",
    "Goldfish grow as long as they live, given clean water and enough room; their colour fades without light.",
    "Bread is baked from flour, water and salt.",
)
Vectors = npt.NDArray[np.float32]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


def computing(*, bfloat16: bool) -> AbstractContextManager[Any]:
    """A context in which a float32 model on the CPU multiplies in bfloat16, or as it is."""
    if not bfloat16:
        return nullcontext()
    import torch

    return torch.autocast("cpu", torch.bfloat16)


def bfloat16_pays(encode: Callable[[list[str], str], Vectors]) -> bool:
    """Whether bfloat16 is clearly faster and ranks the probe's documents as float32 does.

    `encode(texts, role)` returns unit vectors float32[n, d]. Measured in CPU time of the thread, so that other processes do
    not distort it; with several threads the call's own share counts.
    """
    if not has_bfloat16():
        return False
    texts = list(PROBE_DOCUMENTS) * 4
    try:
        if _seconds(encode, texts, bfloat16=False) < WORTH_IT * _seconds(encode, texts, bfloat16=True):
            return False
        agree = same_order(_cosines(encode, bfloat16=False), _cosines(encode, bfloat16=True))
    except RuntimeError as error:  # layers that are packed for float32, among others, cannot
        log.info("the model cannot compute in bfloat16 (%s)", str(error).partition("\n")[0])
        return False
    if not agree:
        log.warning("bfloat16 changes the order of probe texts; the model computes in float32")
    return agree


def _seconds(encode: Callable[[list[str], str], Vectors], texts: list[str], *, bfloat16: bool) -> float:
    times = []
    with computing(bfloat16=bfloat16):
        for _ in range(RUNS):
            begun = time.thread_time()
            encode(texts, "document")
            times.append(time.thread_time() - begun)
    return min(times)


def _cosines(encode: Callable[[list[str], str], Vectors], *, bfloat16: bool) -> npt.NDArray[np.float64]:
    with computing(bfloat16=bfloat16):
        found = encode(list(PROBE_QUERIES), "query") @ encode(list(PROBE_DOCUMENTS), "document").T
    return np.asarray(found, dtype=np.float64)


def same_order(exact: npt.NDArray[np.float64], fast: npt.NDArray[np.float64], *, close: float = SAME_COSINE) -> bool:
    """Whether each row of `fast` orders its columns as `exact` does, apart from values closer than `close`."""
    difference = exact[:, :, None] - exact[:, None, :]
    turned = difference * (fast[:, :, None] - fast[:, None, :]) <= 0.0
    return not bool((turned & (np.abs(difference) > close)).any())
