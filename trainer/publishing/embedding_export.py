"""Publishes an embedding student: adapter, merged encoder and a folder for sentence-transformers. All or nothing.

As `trainer.publishing.export` does for rerankers: the forms are read back and must give the vectors of base + adapter before
the manifest is written. Imports no Django, and torch only while publishing.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from labeling.records import FloatArray
from trainer.bases import Base, base_checksum, base_revision, load_base, quiet
from trainer.publishing.export import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MADE_WITH,
    TOLERANCE,
    AdapterBroken,
    ParityFailed,
    Published,
    check_disk,
    check_loaded,
    draft_beside,
    move_into_place,
    write_adapter,
)
from trainer.publishing.manifests import (
    ADAPTER,
    BI_ENCODER,
    EMBEDDING_ARTEFACTS,
    MANIFEST,
    MERGED,
    SENTENCE_TRANSFORMERS,
    file_checksum,
    write_manifest,
)
from trainer.publishing.model_cards import ModelCard, render_card

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
    more: Mapping[str, Any] | None = None,
) -> Published:
    """Write, check and move into place the three artefacts of an embedder's adapter; replaces an earlier `out`.

    `probe` are further texts to compare the artefacts on; `sizes` the embedding sizes that it was trained for;
    `token_weight` the share of token similarity in its scores; `more` replaces and adds facts of the manifest. Raises
    AdapterBroken, ParityFailed, NotEnoughDisk, and the errors of `load_base`.
    """
    found = load_base(base)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (workspace_adapter / name).is_file():
            raise AdapterBroken(
                f"the adapter's folder {workspace_adapter} has no {name}; expected a PEFT adapter in safetensors"
            )
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
            "base": {
                "name": found.name,
                "kind": found.kind,
                "model_type": found.model_type,
                "revision": base_revision(found),
                "sha256": base_checksum(found),
            },
            "max_length": max_length or found.max_length,
            "dtype": "float32",
            "embedding_size": int(expected.shape[1]),
            "embedding_sizes": [int(size) for size in sizes or (expected.shape[1],)],
            "token_weight": token_weight,
            "parity": {"texts": len(texts), "tolerance": TOLERANCE, "largest_difference": parity},
            "adapter_sha256": file_checksum(draft / ADAPTER / ADAPTER_WEIGHTS),
            **(more or {}),
        }
        for artefact in EMBEDDING_ARTEFACTS:
            text = render_card(card, artefact=artefact, base=found.name, facts=facts)
            (draft / artefact / "README.md").write_text(text)
        about = {
            **facts,
            "card": card.as_dict(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_with": {name: importlib.metadata.version(name) for name in MADE_WITH},
        }
        manifest = write_manifest(draft, about)
        move_into_place(draft, out)
    return Published(out, manifest, file_checksum(out / MANIFEST), max(parity.values()))


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
