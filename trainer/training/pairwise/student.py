"""A model that reads a query and two documents: the logit that the first is the more relevant.

The trainer makes one from a base, the judge from a published folder. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from labeling.records import FloatArray, PairExamples
from trainer.bases import Base, cross_encoder, quiet
from trainer.publishing.manifests import MERGED, PAIRWISE, ManifestBroken, verify
from trainer.training.pairwise.apart import ApartReader, ApartStudent, published_apart
from trainer.training.pairwise.inputs import Kind, PairReader, PairTokens, batches, length_of, reads_segments


class PairStudent:
    """A model that reads both documents in one sequence. `wrapped` is the CrossEncoder of a base, None for a published one."""

    def __init__(self, model: Any, tokenizer: Any, kind: Kind, *, max_length: int, name: str) -> None:
        self.model, self.tokenizer, self.kind = model, tokenizer, kind
        self.reader = PairReader(tokenizer, kind, max_length=max_length, name=name)
        self.wrapped: Any = None
        self.bf16 = False

    @classmethod
    def of_base(
        cls, base: Base, *, max_length: int, seed: int = 0, device: str | None = None, dtype: str
    ) -> PairStudent:
        """The base with a fresh head where it is an encoder. Raises UnsupportedBase."""
        wrapped = cross_encoder(base, seed=seed, device=device, dtype=dtype)
        tokenizer = wrapped.tokenizer
        if base.kind == "decoder":  # its own chat template: that of the CrossEncoder shows one document
            tokenizer = AutoTokenizer.from_pretrained(str(base.folder), local_files_only=True)
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        length = length_of(base, max_length, tokenizer)
        student = cls(wrapped.model, tokenizer, base.kind, max_length=length, name=base.name)
        student.wrapped = wrapped
        return student

    @classmethod
    def published(cls, folder: Path, *, device: str | None = None, dtype: str = "float32") -> AnyStudent:
        """The model in the folder of a published student, whose files are verified. Raises ManifestBroken."""
        manifest = verify(folder)
        if manifest.get("form") != PAIRWISE:
            raise ManifestBroken(
                f"{folder} holds a {manifest.get('form', 'reranker')}; expected a pairwise student: train one with the trainer "
                "pairwise"
            )
        if manifest.get("reads") == "apart":
            return published_apart(folder, manifest, device=device, dtype=dtype)
        kind: Kind = "decoder" if manifest["base"]["kind"] == "decoder" else "encoder"
        model, tokenizer = load_merged(folder / MERGED, kind, device=device, dtype=dtype)
        student = cls(
            model, tokenizer, kind, max_length=int(manifest["max_length"]), name=str(manifest["base"]["name"])
        )
        student.reader.reads_instruction = bool(manifest.get("reads_instruction", True))
        return student

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def max_length(self) -> int:
        return self.reader.max_length

    def logits(self, sequences: Sequence[PairTokens]) -> torch.Tensor:
        """Logits float32[n] of one batch that the document shown first is the more relevant, with gradients."""
        inputs = {name: value.to(self.device) for name, value in self._padded(sequences).items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if self.kind == "encoder":
                return torch.as_tensor(self.model(**inputs).logits[:, 0].float())
            positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            last = self.model(**inputs, position_ids=positions, logits_to_keep=1).logits[:, -1].float()
        a, b = self.reader.label_ids
        return torch.as_tensor(last[:, a] - last[:, b])

    def _padded(self, sequences: Sequence[PairTokens]) -> dict[str, torch.Tensor]:
        """Decoders are padded on the left, so that the answer comes after the last position."""
        longest = max(len(each.ids) for each in sequences)
        ids = torch.full((len(sequences), longest), int(self.tokenizer.pad_token_id or 0))
        mask = torch.zeros((len(sequences), longest), dtype=torch.long)
        types = torch.zeros((len(sequences), longest), dtype=torch.long)
        for row, each in enumerate(sequences):
            start = longest - len(each.ids) if self.kind == "decoder" else 0
            ids[row, start : start + len(each.ids)] = torch.tensor(each.ids)
            mask[row, start : start + len(each.ids)] = 1
            types[row, each.second_at : len(each.ids)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.kind == "encoder" and reads_segments(self.model.config):
            inputs["token_type_ids"] = types
        return inputs

    @torch.inference_mode()
    def scores(self, sequences: Sequence[PairTokens], *, batch_tokens: int) -> FloatArray:
        """Logits float64[n] without gradients, in batches of at most `batch_tokens` tokens with padding."""
        self.model.eval()
        found = np.empty(len(sequences))
        for rows in batches([len(each.ids) for each in sequences], batch_tokens):
            found[rows] = self.logits([sequences[at] for at in rows]).cpu().numpy()
        return found


AnyStudent = PairStudent | ApartStudent


def untrained_student(base: Base, *, apart: bool, max_length: int, reads_instruction: bool) -> AnyStudent | None:
    """The base before training, in float32; None for an encoder that reads both documents: its head is random."""
    if not apart and base.kind != "decoder":
        return None
    kind = ApartStudent if apart else PairStudent
    found = kind.of_base(base, max_length=max_length, device=None, dtype="float32")
    found.reader.reads_instruction = reads_instruction
    return found


def load_merged(folder: Path, kind: Kind, *, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer of a merged student, without the network."""
    quiet()
    load = AutoModelForCausalLM if kind == "decoder" else AutoModelForSequenceClassification
    model: Any = load.from_pretrained(
        str(folder),
        local_files_only=True,
        use_safetensors=True,
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return model.to(device or "cpu").eval(), tokenizer


def both_orders(reader: PairReader | ApartReader, pairs: PairExamples, chosen: Sequence[int]) -> list[Any]:
    """Two sequences of each chosen pair: a first, then b first."""
    found: list[Any] = []
    for at in chosen:
        shared = {"instruction": pairs.instructions[at], "query": pairs.queries[at]}
        found.append(reader.tokens(**shared, first=pairs.a[at], second=pairs.b[at]))
        found.append(reader.tokens(**shared, first=pairs.b[at], second=pairs.a[at]))
    return found
