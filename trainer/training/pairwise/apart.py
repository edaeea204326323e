"""A student of an embedder base: it embeds query and documents apart, and compares the cosines.

logit = (cos(query, first) - cos(query, second)) / temperature. It starts from the order that the base has, where a fresh head
over both documents would start from nothing, and embeds a document once for all of its pairs. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from labeling.records import FloatArray
from trainer.bases import Base
from trainer.training.pairwise.figures import cross_entropies
from trainer.training.pairwise.inputs import InstructionTooLong, batches, plain_text, special_pattern

TEMPERATURE = 0.05
TEXTS_KEPT = 50_000
LONGEST_TEXT = 64  # characters a token that are tokenised at most
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ApartTokens:
    """The tokens of a query, of the document shown first and of the one shown second; `cut`: whether one was truncated."""

    query: Ids
    first: Ids
    second: Ids
    cut: bool

    @property
    def ids(self) -> list[int]:
        """All tokens, for counting."""
        return [*self.query, *self.first, *self.second]


class ApartReader:
    """Turns texts into `ApartTokens`, each text of at most `max_length` tokens."""

    label_ids: tuple[int, ...] = ()
    reads_instruction = True  # False for a student that was trained without

    def __init__(self, model: SentenceTransformer, *, max_length: int, name: str) -> None:
        tokenizer: Any = model.tokenizer
        self.max_length, self._tokenizer, self._name = max_length, tokenizer, name
        self._prompts = {role: model.prompts.get(role) or "" for role in ("query", "document")}
        self._special = special_pattern(tokenizer)
        self._known: dict[tuple[str, str], tuple[Ids, bool]] = {}

    def tokens(self, *, instruction: str, query: str, first: str, second: str) -> ApartTokens:
        """The tokens of one comparison. Raises InstructionTooLong."""
        if instruction.strip() and self.reads_instruction:
            told, was_cut = self._ids(instruction, "instruction")
            if was_cut or 2 * len(told) > self.max_length:
                raise InstructionTooLong(
                    f"the instruction has more than {self.max_length // 2} tokens, and base {self._name!r} reads at most "
                    f"{self.max_length} tokens of instruction and query; shorten the instruction, or choose a larger max_length, a base that "
                    "reads more, or instructions: never"
                )
            query = f"{instruction.strip()}\n{query}"
        asked, one, other = self._ids(query, "query"), self._ids(first, "document"), self._ids(second, "document")
        return ApartTokens(asked[0], one[0], other[0], asked[1] or one[1] or other[1])

    def _ids(self, text: str, role: str) -> tuple[Ids, bool]:
        key = (text, role)
        if key not in self._known:
            if len(self._known) >= TEXTS_KEPT:
                self._known.clear()
            kept = text[: LONGEST_TEXT * self.max_length]
            shown = self._prompts.get(role, "") + plain_text(kept, self._special)
            encoded = self._tokenizer(shown, truncation=True, max_length=self.max_length, verbose=False)["input_ids"]
            whole = len(self._tokenizer(shown, verbose=False)["input_ids"])
            self._known[key] = (tuple(encoded), whole > len(encoded) or len(kept) < len(text))
        return self._known[key]


class ApartStudent:
    """An embedder with a temperature, with the interface of `trainer.training.pairwise.student.PairStudent`."""

    kind = "encoder"

    def __init__(self, model: SentenceTransformer, *, max_length: int, name: str, temperature: float) -> None:
        length = min(max_length, int(model.max_seq_length or max_length))
        self.embedder, self.temperature, self.bf16 = model, temperature, False
        self.reader = ApartReader(model, max_length=length, name=name)
        self.tokenizer: Any = model.tokenizer
        self.wrapped: Any = None
        self.model: Any = model

    @classmethod
    def of_base(cls, base: Base, *, max_length: int, device: str | None, dtype: str) -> ApartStudent:
        """The base as it is. Raises NotAnEmbedder."""
        from trainer.training.embedding.bi_encoder import load_bi_encoder

        model = load_bi_encoder(base, device=device, dtype=dtype)
        return cls(model, max_length=max_length, name=base.name, temperature=TEMPERATURE)

    @property
    def device(self) -> torch.device:
        return next(self.embedder.parameters()).device

    @property
    def max_length(self) -> int:
        return self.reader.max_length

    def logits(self, sequences: Sequence[ApartTokens]) -> torch.Tensor:
        """Logits float32[n] that the document shown first is the more relevant, with gradients; equal texts are embedded once."""
        texts = list(dict.fromkeys(text for each in sequences for text in (each.query, each.first, each.second)))
        return self._compared(sequences, texts, self._embedded(texts))

    def _embedded(self, texts: Sequence[Ids]) -> torch.Tensor:
        longest = max(map(len, texts))
        left = self.tokenizer.padding_side == "left"
        ids = torch.full((len(texts), longest), int(self.tokenizer.pad_token_id or 0))
        mask = torch.zeros((len(texts), longest), dtype=torch.long)
        for row, text in enumerate(texts):
            start = longest - len(text) if left else 0
            ids[row, start : start + len(text)] = torch.tensor(text)
            mask[row, start : start + len(text)] = 1
        features = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self.tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(ids)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            vectors = self.embedder(batch_to_device(features, self.device))["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    def _compared(self, sequences: Sequence[ApartTokens], texts: Sequence[Ids], vectors: torch.Tensor) -> torch.Tensor:
        place = {text: at for at, text in enumerate(texts)}
        query, first, second = (
            vectors[[place[getattr(each, part)] for each in sequences]] for part in ("query", "first", "second")
        )
        return ((query * (first - second)).sum(dim=-1)) / self.temperature

    @torch.inference_mode()
    def scores(self, sequences: Sequence[ApartTokens], *, batch_tokens: int) -> FloatArray:
        """Logits float64[n] without gradients; each distinct text is embedded once, in batches of at most `batch_tokens`."""
        if not sequences:
            return np.zeros(0)
        self.embedder.eval()
        texts = list(dict.fromkeys(text for each in sequences for text in (each.query, each.first, each.second)))
        vectors: torch.Tensor | None = None
        for rows in batches([len(text) for text in texts], batch_tokens):
            part = self._embedded([texts[at] for at in rows])
            if vectors is None:
                vectors = part.new_zeros((len(texts), part.shape[1]))
            vectors[rows] = part
        assert vectors is not None
        return np.asarray(self._compared(sequences, texts, vectors).cpu().numpy(), dtype=np.float64)


def calibrated_temperature(temperature: float, logits: FloatArray, preferences: FloatArray) -> float:
    """The temperature that gives the least log-loss of the preferences, from logits float64[n] at `temperature`."""
    factors = np.geomspace(0.05, 20.0, 241)
    losses = [cross_entropies(logits / factor, preferences).mean() for factor in factors]
    return float(temperature * factors[int(np.argmin(losses))])


def published_apart(folder: Path, manifest: Any, *, device: str | None, dtype: str) -> ApartStudent:
    """The student in the sentence-transformers form of a published folder."""
    model = SentenceTransformer(
        str(folder / "sentence_transformers"),
        device=device or "cpu",
        local_files_only=True,
        model_kwargs={"dtype": dtype, "attn_implementation": "sdpa"},
    )
    student = ApartStudent(
        model,
        max_length=int(manifest["max_length"]),
        name=str(manifest["base"]["name"]),
        temperature=float(manifest["temperature"]),
    )
    student.reader.reads_instruction = bool(manifest.get("reads_instruction", True))
    return student
