"""Models on one base share the weights that their adapters leave alone, above all the embeddings of tokens.

An adapter changes linear layers; merging it leaves embeddings as they are, bit by bit: half of MiniLM, two thirds of a
multilingual base. Models in one process with equal embeddings hold one copy. Imports no Django, and torch only when it is called.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from typing import Any

# Smaller tables are not worth their checksum.
SMALLEST_BYTES = 1 << 20
_lock = threading.Lock()
_kept: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def share_embeddings(model: Any, *, smallest: int = SMALLEST_BYTES) -> dict[str, int]:
    """Replace embedding tables in place by equal ones of other models; returns the bytes of each table by its identity.

    For a model on the CPU that is not trained.
    """
    import torch

    found: dict[str, int] = {}
    for layer in model.modules():
        if not isinstance(layer, torch.nn.Embedding):
            continue
        table = layer.weight
        size = table.numel() * table.element_size()
        if table.device.type != "cpu" or size < smallest:
            continue
        name = _identity(table)
        with _lock:
            layer.weight = _kept.setdefault(name, table)
        found[name] = size
    return found


def _identity(table: Any) -> str:
    """SHA-256 of the numbers, with shape and precision."""
    import torch

    numbers = table.detach().contiguous().view(torch.uint8).numpy()
    return f"{hashlib.sha256(memoryview(numbers).cast('B')).hexdigest()} {tuple(table.shape)} {table.dtype}"
