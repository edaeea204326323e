"""A base embedder with a LoRA adapter: texts to unit vectors with gradients, in chunks, at any scale of the adapter.

`trainer.training.embedding.course` trains it. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from labeling.retrieval.embedder import Float32Array
from trainer.bases import Base, UnsupportedBase, loading, quiet
from trainer.recommendation import is_bi_encoder
from trainer.serving.plain_text import PlainText
from trainer.token_similarity import with_tokens
from trainer.training.adapters import PROBE_ROWS, choose_bf16, load_start, place_of, set_dropout, with_adapter
from trainer.training.embedding.options import EmbeddingOptions, sizes_of

Role = Literal["query", "document"]
ADAPTER = "default"
# What a further batch costs besides its texts, forward and backward, in tokens of MiniLM: 20 to 40 ms on two cores; a GPU waits for launches.
OVERHEAD = {"cpu": 100, "gpu": 4000}


class NotAnEmbedder(ValueError):
    """The base was not saved as an embedder of sentence-transformers."""


class SizeTooLarge(ValueError):
    """The base's embeddings are smaller than a size that was asked for."""


class TokensDiffer(ValueError):
    """The base's token vectors have another size than its embeddings, so the two cannot be compared alike."""


def check_embedder(base: Base) -> None:
    """Raise NotAnEmbedder for a base that is no bi-encoder of sentence-transformers."""
    if not is_bi_encoder(base):
        raise NotAnEmbedder(
            f"base {base.name!r} is not an embedder: its folder has no modules.json with a pooling layer; choose an embedder in "
            "the format of sentence-transformers, such as minilm, or train a reranker with another trainer"
        )


def load_bi_encoder(base: Base, *, device: str | None = None, dtype: str = "float32") -> SentenceTransformer:
    """The base as sentence-transformers loads it, without the network. Raises NotAnEmbedder, UnsupportedBase."""
    check_embedder(base)
    quiet()
    with loading(base):
        model = SentenceTransformer(
            str(base.folder),
            device=device,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": dtype, "attn_implementation": "sdpa"},
        )
    if any(model.prompts.values()) and not all(getattr(each, "include_prompt", True) for each in model):
        raise UnsupportedBase(
            f"base {base.name!r} leaves its prompts out of the vectors (include_prompt is false), which a pass over queries and "
            "documents cannot; choose an embedder whose pooling includes the prompt"
        )
    return model


class BiEncoder(torch.nn.Module):
    """An embedder whose adapter is trained; `scale` 0 is the untrained base, 1 the whole adapter."""

    def __init__(self, base: Base, options: EmbeddingOptions) -> None:
        super().__init__()
        self.bf16 = False
        self._start: dict[str, torch.Tensor] = {}
        self._learned: dict[str, torch.Tensor] = {}
        self.model = load_bi_encoder(base, **place_of(options.precision))
        self._plain = PlainText(self.model.tokenizer)
        self.whole_length = int(self.model.max_seq_length or base.max_length or options.max_length)
        self.sizes = _sizes(base, int(self.model.get_embedding_dimension() or 0), options)
        self.overhead = OVERHEAD["cpu" if self.model.device.type == "cpu" else "gpu"]
        first: Any = self.model[0]
        self.token_size = int(first.get_embedding_dimension())
        inner: Any = first.model
        self.adapted = with_adapter(inner, options, base.lora_targets)
        set_dropout(self.model, options.dropout)
        self.log_temperature = torch.nn.Parameter(
            torch.tensor(options.temperature, device=self.model.device).log(), requires_grad=options.learn_temperature
        )
        self._scalings = {
            name: each.scaling[ADAPTER] for name, each in self.adapted.named_modules() if isinstance(each, LoraLayer)
        }

    def choose_precision(
        self, options: EmbeddingOptions, query: str, documents: Sequence[str], workspace: Path
    ) -> None:
        """Compute in bfloat16 from now on where `adapters.choose_bf16` finds so, from one query with its documents."""
        asked = self.tokens([query], "query", max_length=options.max_length)
        shown = self.tokens(documents[:PROBE_ROWS], "document", max_length=options.max_length)

        def scores(bf16: bool) -> torch.Tensor:
            self.bf16 = bf16
            return torch.as_tensor(self(shown) @ self(asked)[0])

        inner: Any = cast(Any, self.model[0]).model
        self.bf16 = choose_bf16(options, inner, scores, workspace)

    def start_from(self, adapter: Path) -> None:
        """Begin with a trained adapter: from now on `at_scale(0)` is that adapter instead of the base."""
        load_start(self.adapted, adapter)
        self._start = {name: each.detach().clone() for name, each in self._trained()}

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, each) for name, each in self.named_parameters() if each.requires_grad)

    def scaled(self, name: str, weights: torch.Tensor, scale: float) -> torch.Tensor:
        """A trained weight with `scale` folded in: the whole adapter, or the way from the start to it."""
        if self._start:
            return torch.lerp(self._start[name].to(weights.device), weights, scale)
        return weights * (scale if ".lora_B." in name else 1.0)

    @torch.no_grad()
    def _between(self, scale: float) -> None:
        """Use the weights between the start (0) and what has been learned (1), which is kept until scale 1 returns to it."""
        self._learned = self._learned or {name: each.detach().clone() for name, each in self._trained()}
        for name, each in self._trained():
            each.copy_(self._learned[name] if scale == 1.0 else self.scaled(name, self._learned[name], scale))
        if scale == 1.0:
            self._learned = {}

    def at_scale(self, scale: float) -> None:
        """Multiply the adapter's part of every weight by `scale`; after `start_from`, its way from the start."""
        if self._start:
            self._between(scale)
            return
        for name, layer in self.adapted.named_modules():
            if name in self._scalings:
                cast(Any, layer).scaling[ADAPTER] = scale * self._scalings[name]

    def tokens(self, texts: Sequence[str], role: Role, *, max_length: int) -> list[dict[str, torch.Tensor]]:
        """Features of each text by itself, truncated to `max_length` tokens and the model's limit.

        As when it is served, special tokens that a text spells are read as text.
        """
        self.model.max_seq_length = min(max_length, self.whole_length)
        features = self.model.preprocess(
            [self._plain(each) for each in texts], prompt=self.model.prompts.get(role) or None
        )
        rows = features["attention_mask"].bool()
        tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
        return [{name: value[at][kept] for name, value in tensors.items()} for at, kept in enumerate(rows)]

    def forward(self, texts: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
        """Unit vectors float32[n, size] of the tokenised texts, in one batch."""
        features = _padded(texts, self.model)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            vectors = self.model(batch_to_device(features, self.model.device))["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], role: Role, *, most: int, max_length: int) -> torch.Tensor:
        """Unit vectors float32[n, size] without gradients, at most `most` texts in a batch."""
        tokenised = [
            own
            for at in range(0, len(texts), 256)
            for own in self.tokens(texts[at : at + 256], role, max_length=max_length)
        ]
        found = torch.empty(len(texts), self.sizes[0])
        for rows in chunks([len(each["input_ids"]) for each in tokenised], most, overhead=self.overhead):
            found[rows] = self([tokenised[at] for at in rows])[:, : self.sizes[0]].cpu()
        return found

    @torch.no_grad()
    def encode_tokens(self, texts: Sequence[str], role: Role, *, most: int) -> list[Float32Array]:
        """float32[1 + tokens, size] of each text, as `with_tokens` gives them, without special tokens; whole texts.

        Without tokens where they are no vectors of the embeddings' size.
        """
        tokenizer: Any = self.model.tokenizer
        special = torch.tensor(tokenizer.all_special_ids)
        tokenised = self.tokens(texts, role, max_length=self.whole_length)
        found: list[Any] = [None] * len(texts)
        for rows in chunks([len(each["input_ids"]) for each in tokenised], most, overhead=self.overhead):
            features = _padded([tokenised[at] for at in rows], self.model)
            kept = features["attention_mask"].bool() & ~torch.isin(features["input_ids"], special)
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
                given = self.model(batch_to_device(features, self.model.device))
            vectors = torch.nn.functional.normalize(given["sentence_embedding"].float(), dim=-1).cpu().numpy()
            states = given["token_embeddings"].float().cpu().numpy()
            if self.token_size != vectors.shape[1]:
                kept[:] = False  # the text's vector stands for its tokens, see `with_tokens`
            for row, at in enumerate(rows):
                found[at] = with_tokens(vectors[row], states[row][kept[row].cpu().numpy()])
        return found


def _sizes(base: Base, whole: int, options: EmbeddingOptions) -> tuple[int, ...]:
    wanted = sizes_of(options.embedding_sizes)
    if wanted and wanted[0] > whole:
        raise SizeTooLarge(
            f"embedding size {wanted[0]} was asked for, but base {base.name!r} gives {whole}; expected sizes of at most {whole}"
        )
    return (whole, *(size for size in wanted if size < whole))


def _padded(texts: Sequence[dict[str, torch.Tensor]], model: SentenceTransformer) -> dict[str, torch.Tensor]:
    tokenizer: Any = model.tokenizer
    pad = {"input_ids": tokenizer.pad_token_id or 0}
    left = tokenizer.padding_side == "left"
    longest = max(len(each["input_ids"]) for each in texts)
    features = {}
    for name, first in texts[0].items():
        rows = torch.full((len(texts), longest), pad.get(name, 0), dtype=first.dtype)
        for at, each in enumerate(texts):
            count = len(each[name])
            rows[at, longest - count if left else 0 : longest if left else count] = each[name]
        features[name] = rows
    return features


def chunks(lengths: Sequence[int], most: int, *, overhead: int) -> Iterator[list[int]]:
    """Rows in batches of at most `most` texts, longest first, so that padding and batches cost least together.

    A batch costs its texts times the tokens of its longest, and `overhead` tokens.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    sizes = np.array([lengths[row] for row in order], dtype=np.int64)
    costs, begins = np.zeros(len(order) + 1, dtype=np.int64), np.zeros(len(order) + 1, dtype=np.int64)
    for end in range(1, len(order) + 1):
        first = max(0, end - most)
        own = costs[first:end] + sizes[first:end] * np.arange(end - first, 0, -1) + overhead
        begins[end] = first + int(own.argmin())
        costs[end] = own[begins[end] - first]
    bounds = [len(order)]
    while bounds[-1]:
        bounds.append(int(begins[bounds[-1]]))
    for begin, end in pairwise(reversed(bounds)):
        yield order[begin:end]


def padded_tokens(lengths: Sequence[int], most: int, *, overhead: int) -> int:
    """Tokens that are computed for texts of these lengths, with padding."""
    return sum(len(rows) * max(lengths[row] for row in rows) for rows in chunks(lengths, most, overhead=overhead))


def backward_through(
    model: BiEncoder,
    texts: Sequence[dict[str, torch.Tensor]],
    loss: Callable[[torch.Tensor], torch.Tensor],
    *,
    most: int,
) -> float:
    """Add the gradient of `loss` (of the vectors of all texts) to the weights, and return the loss.

    With more than `most` texts the gradients with respect to the vectors are cached and each chunk is computed a second time
    (GradCache, Gao et al., arXiv 2101.06983): the same gradient, with the memory of one chunk.
    """
    batches = list(chunks([len(each["input_ids"]) for each in texts], most, overhead=model.overhead))
    if len(texts) <= most:
        parts = [model([texts[at] for at in rows]) for rows in batches]
        value = loss(_in_order(parts, batches))
        value.backward()
        return float(value.detach())
    states, parts = [], []
    for rows in batches:
        states.append(torch.random.get_rng_state())
        with torch.no_grad():
            parts.append(model([texts[at] for at in rows]))
    vectors = _in_order(parts, batches).requires_grad_()
    value = loss(vectors)
    value.backward()
    cached = cast(torch.Tensor, vectors.grad)
    after = torch.random.get_rng_state()
    for rows, state in zip(batches, states, strict=True):
        torch.random.set_rng_state(state)  # the same dropout as in the first pass
        model([texts[at] for at in rows]).backward(cached[rows])
    torch.random.set_rng_state(after)
    return float(value.detach())


def _in_order(parts: Sequence[torch.Tensor], batches: Sequence[Sequence[int]]) -> torch.Tensor:
    """The rows of all parts in the order of the texts."""
    rows = torch.tensor([row for own in batches for row in own])
    return torch.cat(list(parts))[torch.argsort(rows).to(parts[0].device)]
