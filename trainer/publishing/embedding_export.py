"""Publishes an embedding student: adapter, merged encoder and a folder for sentence-transformers. All or nothing.

As `trainer.publishing.export` does for rerankers: the forms are read back and must give the vectors of base + adapter before
the manifest is written. Imports no Django, and torch only while publishing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labeling.records import FloatArray
from trainer.bases import Base, load_base, quiet
from trainer.publishing.export import (
    ADAPTER_WEIGHTS,
    TOLERANCE,
    ParityFailed,
    Published,
    check_disk,
    check_files,
    check_loaded,
    draft_beside,
    facts_of_base,
    move_into_place,
    published_at,
    write_adapter,
    write_down,
)
from trainer.publishing.manifests import (
    ADAPTER,
    BI_ENCODER,
    EMBEDDING_ARTEFACTS,
    MERGED,
    SENTENCE_TRANSFORMERS,
    file_checksum,
)
from trainer.publishing.model_cards import ModelCard

_PROBE = (
    "how do fish breathe", "Gills take oxygen from the water.", "A bakery opens before dawn. " * 12, "x",
    "what is the boiling point of water at high altitude, and why is it lower there", "bread",
)  # fmt: skip


def publish_embedder(
    workspace_adapter: Path,
    *,
    base: str,
    out: Path,
    card: ModelCard,
    probe: Sequence[str] = (),
    max_length: int | None = None,
    sizes: Sequence[int] = (),
    token_weight: float = 0.0,
    list_weight: float = 0.0,
    more: Mapping[str, Any] | None = None,
) -> Published:
    """Write, check and move into place the three artefacts of an embedder's adapter; replaces an earlier `out`.

    `probe` are further texts to compare the artefacts on; `sizes` the embedding sizes that it was trained for;
    `token_weight` and `list_weight` the shares of token and list similarity in its scores; `more` replaces and adds facts of the manifest. Raises
    AdapterBroken, ParityFailed, NotEnoughDisk, and the errors of `load_base`.
    """
    found = load_base(base)
    check_files(workspace_adapter)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_disk(found, out.parent)
    texts = [*_PROBE, *probe]
    with draft_beside(out) as draft:
        expected = _write(draft, adapter=workspace_adapter, base=found, texts=texts, max_length=max_length)
        parity = {
            SENTENCE_TRANSFORMERS: _compare(
                _loaded(draft / SENTENCE_TRANSFORMERS), texts, expected, SENTENCE_TRANSFORMERS
            ),
            MERGED: _compare(_with_encoder(draft), texts, expected, MERGED),
        }
        facts: dict[str, Any] = {
            "form": BI_ENCODER,
            "base": facts_of_base(found),
            "max_length": max_length or found.max_length,
            "dtype": "float32",
            "embedding_size": int(expected.shape[1]),
            "embedding_sizes": [int(size) for size in sizes or (expected.shape[1],)],
            "token_weight": token_weight,
            "list_weight": list_weight,
            "parity": {"texts": len(texts), "tolerance": TOLERANCE, "largest_difference": parity},
            "adapter_sha256": file_checksum(draft / ADAPTER / ADAPTER_WEIGHTS),
            **(more or {}),
        }
        write_down(draft, base=found, card=card, artefacts=EMBEDDING_ARTEFACTS, facts=facts)
        move_into_place(draft, out)
    return published_at(out, largest_difference=max(parity.values()))


def _write(draft: Path, *, adapter: Path, base: Base, texts: Sequence[str], max_length: int | None) -> FloatArray:
    """Write the three folders and return the vectors of base + adapter, computed text by text without padding."""
    from peft import PeftModel

    from trainer.training.embedding.bi_encoder import load_bi_encoder

    model = load_bi_encoder(base, device="cpu")
    if max_length is not None:
        model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    first: Any = model[0]
    adapted = PeftModel.from_pretrained(first.model, str(adapter))
    check_loaded(adapted, adapter)
    model.eval()
    expected = _vectors(model, texts, batch_size=1)
    write_adapter(draft / ADAPTER, adapter=adapter, base=base, tokenizer=model.tokenizer)
    first.model = adapted.merge_and_unload()
    model.save_pretrained(str(draft / SENTENCE_TRANSFORMERS), create_model_card=False)
    first.model.save_pretrained(str(draft / MERGED))
    tokenizer: Any = model.tokenizer
    tokenizer.save_pretrained(str(draft / MERGED))
    return expected


def _loaded(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    quiet()
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _with_encoder(draft: Path) -> Any:
    """The sentence-transformers form with the merged encoder in the place of its own."""
    from transformers import AutoModel

    model = _loaded(draft / SENTENCE_TRANSFORMERS)
    model[0].model = AutoModel.from_pretrained(str(draft / MERGED), local_files_only=True, use_safetensors=True)
    return model


def _vectors(model: Any, texts: Sequence[str], *, batch_size: int) -> FloatArray:
    model.eval()
    found = model.encode(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, dtype=np.float64)


def _compare(model: Any, texts: Sequence[str], expected: FloatArray, artefact: str) -> float:
    """The largest difference of a component of a unit vector, alone and in a padded batch. Raises ParityFailed."""
    worst = 0.0
    for batch_size in (1, len(texts)):
        found = _vectors(model, texts, batch_size=batch_size)
        worst = max(worst, float(np.abs(found - expected).max()) if np.isfinite(found).all() else np.inf)
    if not worst <= TOLERANCE:
        raise ParityFailed(
            f"{artefact} differs from base + adapter by {worst:.2g} in a component of a unit vector; expected at most "
            f"{TOLERANCE:g}; nothing was published; train in float32 or check the adapter for NaN"
        )
    return worst
