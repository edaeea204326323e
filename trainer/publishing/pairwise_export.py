"""Publishes a pairwise student: adapter and merged model. All or nothing.

As `trainer.publishing.export` does for rerankers: the merged model is read back and must give the logits of base + adapter
before the manifest is written. Imports no Django, and torch only while publishing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labeling.records import FloatArray
from trainer.bases import Base, load_base
from trainer.publishing.embedding_export import publish_embedder
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
    MERGED,
    PAIRWISE,
    PAIRWISE_ARTEFACTS,
    file_checksum,
)
from trainer.publishing.model_cards import ModelCard

if TYPE_CHECKING:
    from trainer.training.pairwise.student import PairStudent

Triple = tuple[str, str, str]
"""(query, document shown first, document shown second)."""

_PROBE: tuple[Triple, ...] = (
    ("how do fish breathe", "Gills take oxygen from the water.", "A bakery opens before dawn. " * 12),
    ("bread", "Yeast makes the dough rise; the oven does the rest.", "x"),
    ("tax law", "Whoever is resident owes tax on the income of the whole world. " * 4, "It falls with the pressure."),
)


def publish_pairwise(
    workspace_adapter: Path,
    *,
    base: str,
    out: Path,
    card: ModelCard,
    max_length: int,
    probe: Sequence[Triple] = (),
    temperature: float | None = None,
    reads_instruction: bool = True,
) -> Published:
    """Write, check and move into place adapter and merged model; replaces an earlier `out`.

    `probe` are further (query, first, second) to compare the artefacts on; `temperature` is that of a student that embeds texts
    apart, None for one that reads both documents in one sequence. Raises AdapterBroken, ParityFailed, NotEnoughDisk,
    and the errors of `load_base`.
    """
    if temperature is not None:
        return publish_embedder(
            workspace_adapter,
            base=base,
            out=out,
            card=card,
            max_length=max_length,
            probe=[text for triple in probe for text in triple],
            more={
                "form": PAIRWISE,
                "reads": "apart",
                "temperature": temperature,
                "reads_instruction": reads_instruction,
            },
        )
    found = load_base(base)
    check_files(workspace_adapter)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_disk(found, out.parent)
    triples = [*_PROBE, *probe]
    with draft_beside(out) as draft:
        worst = _write(draft, adapter=workspace_adapter, base=found, triples=triples, max_length=max_length)
        facts: dict[str, Any] = {
            "form": PAIRWISE,
            "reads": "jointly",
            "reads_instruction": reads_instruction,
            "base": facts_of_base(found),
            "max_length": max_length,
            "dtype": "float32",
            "parity": {"pairs": len(triples), "tolerance": TOLERANCE, "largest_difference": {MERGED: worst}},
            "adapter_sha256": file_checksum(draft / ADAPTER / ADAPTER_WEIGHTS),
        }
        write_down(draft, base=found, card=card, artefacts=PAIRWISE_ARTEFACTS, facts=facts)
        move_into_place(draft, out)
    return published_at(out, largest_difference=worst)


def _write(draft: Path, *, adapter: Path, base: Base, triples: Sequence[Triple], max_length: int) -> float:
    """Write both folders; return the largest difference in logits, alone and in a padded batch."""
    from peft import PeftModel

    from trainer.training.pairwise.student import PairStudent, load_merged

    student = PairStudent.of_base(base, max_length=max_length, device="cpu", dtype="float32")
    adapted = PeftModel.from_pretrained(student.model, str(adapter))
    check_loaded(adapted, adapter)
    expected = _logits(student, triples, at_once=1)
    write_adapter(draft / ADAPTER, adapter=adapter, base=base, tokenizer=student.tokenizer)
    merged = adapted.merge_and_unload()
    merged.config.pad_token_id = student.tokenizer.pad_token_id
    merged.save_pretrained(str(draft / MERGED))
    student.tokenizer.save_pretrained(str(draft / MERGED))
    model, tokenizer = load_merged(draft / MERGED, student.kind, device="cpu", dtype="float32")
    back = PairStudent(model, tokenizer, student.kind, max_length=max_length, name=base.name)
    worst = 0.0
    for at_once in (1, len(triples)):
        found = _logits(back, triples, at_once=at_once)
        worst = max(worst, float(np.abs(found - expected).max()) if np.isfinite(found).all() else np.inf)
    if not worst <= TOLERANCE:
        raise ParityFailed(
            f"{MERGED} differs from base + adapter by {worst:.2g} logits; expected at most {TOLERANCE:g}; nothing was "
            "published; train in float32 or check the adapter for NaN"
        )
    return worst


def _logits(student: PairStudent, triples: Sequence[Triple], *, at_once: int) -> FloatArray:
    import torch

    student.model.eval()
    sequences = [
        student.reader.tokens(instruction="", query=query, first=first, second=second)
        for query, first, second in triples
    ]
    with torch.inference_mode():
        parts = [student.logits(sequences[at : at + at_once]) for at in range(0, len(sequences), at_once)]
    return np.concatenate([each.numpy() for each in parts]).astype(np.float64)
