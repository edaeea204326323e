"""The processor of this host: its name and its instructions for products. Imports no Django and no torch."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_FOR_PRODUCTS = (
    "amx_bf16", "avx512_bf16", "amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "asimd", "bf16", "i8mm",
)  # fmt: skip


@functools.cache
def processor() -> str:
    """The processor's name with its instructions for products, such as `Intel(R) Xeon(R) Processor, amx_bf16 ...`."""
    name = _facts().get("model name") or platform.processor() or platform.machine()
    return f"{name}, {' '.join(each for each in _FOR_PRODUCTS if each in flags()) or 'no vector instructions known'}"


@functools.cache
def flags() -> frozenset[str]:
    """The instructions that the processor has, as Linux names them; none where it does not say."""
    facts = _facts()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def _facts() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
