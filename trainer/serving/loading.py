"""Stage 9: loads a published reranker into memory and ranks documents with it.

`load_reranker` checks the artefact against its manifest and loads it. `rank` scores one request alone;
`trainer.serving.server` batches the pairs of several requests with `encode` and `logits`. The score of a pair does not
depend on its batch. Imports no Django, and torch only to load a model.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.bases import Base, cross_encoder, quiet
from trainer.publishing.manifests import SEQUENCE_CLASSIFICATION, verify
from trainer.serving.packed_linear import pack_linears
from trainer.serving.plain_text import CHARACTERS_OF_TOKEN, PlainText, all_shortened, shortened

CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 1024, 32768
UNBOUNDED_TOKENS = 32768
ENCODED_AT_ONCE = 256


class NoScore(RuntimeError):
    """The model returned NaN or infinity for a pair: its weights are damaged, or training failed."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One ranked document: its index in the request, `score` in [0, 1], and its logit."""

    index: int
    score: float
    logit: float


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A tokenised pair. `ids` and `types` are token ids and segments; `cut`: the document was truncated."""

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    cut: bool

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """All pairs of one request, in the order of its documents; `query_cut`: the query was truncated."""

    pairs: tuple[EncodedPair, ...]
    query_cut: bool

    @property
    def tokens(self) -> int:
        return sum(len(pair) for pair in self.pairs)


class LoadedReranker:
    """A cross-encoder that is ready to score. Thread-safe. Modifies the given model."""

    def __init__(self, model: Any, *, name: str, checksum: str = "", reads_instruction: bool = False) -> None:
        self.name = name
        self.checksum = checksum
        self.reads_instruction = reads_instruction
        self.max_length = int(min(model.max_seq_length or UNBOUNDED_TOKENS, UNBOUNDED_TOKENS))
        self._model = model.eval()
        self._tokenizer = model.tokenizer
        self._tokenizing = threading.Lock()  # a tokenizer keeps its truncation as state
        self._plain = PlainText(self._tokenizer)
        self._constants: dict[str, Any] = {}
        self._in_chat = "message" in model[0].modality_config
        self._frame = self._frame_tokens()
        if self.on_cpu:
            pack_linears(model)

    @property
    def on_cpu(self) -> bool:
        return bool(self._model.device.type == "cpu")

    @property
    def dtype(self) -> str:
        """The precision of the weights, such as `float32`."""
        return str(next(self._model.parameters()).dtype).removeprefix("torch.")

    def rank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[Ranked]:
        """The documents by falling relevance, the first `top_n` or all. Raises NoScore."""
        return in_order(self.scores(query, documents), top_n=top_n)

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """The logit of each document, in the given order; computed in the calling thread."""
        encoded = self.encode(query, documents)
        logits = [0.0] * len(documents)
        for batch in batches([len(pair) for pair in encoded.pairs], self.batch_tokens):
            for row, logit in zip(batch, self.logits([encoded.pairs[row] for row in batch]), strict=True):
                logits[row] = logit
        return logits

    def ranked(self, outputs: Sequence[float], *, top_n: int | None = None) -> list[Ranked]:
        """The ranking of a request from the logits of its pairs. Raises NoScore."""
        return in_order(outputs, top_n=top_n)

    @property
    def batch_tokens(self) -> int:
        """Tokens per batch; more than a thousand no longer fit the caches of a CPU core."""
        return CPU_BATCH_TOKENS if self.on_cpu else DEVICE_BATCH_TOKENS

    def encode(self, query: str, documents: Sequence[str], *, document_tokens: int | None = None) -> EncodedRequest:
        """The tokens of every pair, truncated to the model's maximum length.

        Documents are truncated first, after they were shortened to `document_tokens`. A query keeps at most half of the length, so
        neither text is removed completely. Special tokens that the texts spell are read as text.
        """
        query, query_cut = self._cut_query(self._plain(query))
        with self._tokenizing:
            documents = all_shortened(self._tokenizer, [self._plain(each) for each in documents], document_tokens)
        most = self.max_length * CHARACTERS_OF_TOKEN
        pairs: list[EncodedPair] = []
        for start in range(0, len(documents), ENCODED_AT_ONCE):
            chunk = documents[start : start + ENCODED_AT_ONCE]
            encoded = self._encode([(query, document[:most]) for document in chunk])
            for row, document in enumerate(chunk):
                # A text that was truncated by characters must also have been truncated by tokens.
                if len(document) > most and len(encoded[row]) < self.max_length:
                    encoded[row] = self._encode([(query, document)])[0]
            pairs += encoded
        return EncodedRequest(tuple(pairs), query_cut)

    def logits(self, pairs: Sequence[EncodedPair]) -> list[float]:
        """One raw logit per pair, computed in one batch."""
        import torch

        longest = max(len(pair) for pair in pairs)
        left = self._tokenizer.padding_side == "left"
        ids = torch.full((len(pairs), longest), int(self._tokenizer.pad_token_id))
        mask = torch.zeros((len(pairs), longest), dtype=torch.int64)
        types = torch.zeros((len(pairs), longest), dtype=torch.int64)
        for row, pair in enumerate(pairs):
            place = slice(longest - len(pair), longest) if left else slice(0, len(pair))
            ids[row, place] = torch.tensor(pair.ids)
            mask[row, place] = 1
            if pair.types is not None:
                types[row, place] = torch.tensor(pair.types)
        features = {"input_ids": ids, "attention_mask": mask}
        if pairs[0].types is not None:
            features["token_type_ids"] = types
        device = self._model.device
        with torch.inference_mode():
            features = {name: tensor.to(device) for name, tensor in features.items()}
            scores = self._model({**features, **self._constants})["scores"]
            return [float(score) for score in scores.float().reshape(len(pairs)).cpu().tolist()]

    def _encode(self, pairs: list[tuple[str, str]]) -> list[EncodedPair]:
        """The tokens that `CrossEncoder.predict` would pass to the model, without padding."""
        with self._tokenizing:
            features = self._model.preprocess(pairs)
        ids, mask = features["input_ids"], features["attention_mask"]
        types = features.get("token_type_ids")
        if not self._constants:
            tensors = {"input_ids", "attention_mask", "token_type_ids"}
            self._constants = {name: value for name, value in features.items() if name not in tensors}
        encoded = []
        for row, kept in enumerate(mask.bool()):
            tokens = tuple(ids[row][kept].tolist())
            segments = tuple(types[row][kept].tolist()) if types is not None else None
            encoded.append(EncodedPair(tokens, segments, cut=len(tokens) >= self.max_length))
        return encoded

    def _frame_tokens(self) -> int:
        """Number of tokens of a pair outside query and document: special tokens, or the prompt."""
        return len(self._encode([("", "")])[0])

    @property
    def query_tokens(self) -> int:
        """The most tokens that a query keeps."""
        return max(1, (self.max_length - self._frame) // 2)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by itself, without special tokens."""
        with self._tokenizing:
            return len(self._tokenizer(self._plain(text), add_special_tokens=False, truncation=False)["input_ids"])

    def _cut_query(self, query: str) -> tuple[str, bool]:
        """The query, truncated to half of the available tokens. Without this, a prompt with the document last could lose the
        whole document; a tokenizer that truncates the longer text first does the same by itself.
        """
        room = self.query_tokens
        with self._tokenizing:
            head = shortened(self._tokenizer, query, room)
        if len(head) == len(query):
            return query, False
        return (head if self._in_chat else query), True


def load_reranker(path: Path | str, *, device: str | None = None, dtype: str = "float32") -> LoadedReranker:
    """Load the published reranker in a folder after checking its files against the manifest.

    Loads the sequence-classification form: it has the same logits as the merged model (publishing compares them) and, for
    a decoder, no output layer over the whole vocabulary. Raises ManifestBroken.
    """
    folder = Path(path)
    manifest = verify(folder, artefact=SEQUENCE_CLASSIFICATION)
    from sentence_transformers import CrossEncoder

    quiet()
    model = CrossEncoder(
        str(folder / SEQUENCE_CLASSIFICATION),
        device=device,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": dtype, "attn_implementation": "sdpa"},
    )
    name = str(manifest.get("card", {}).get("name", folder.name))
    return LoadedReranker(
        model,
        name=name,
        checksum=str(manifest.get("adapter_sha256", "")),
        reads_instruction=bool(manifest.get("reads_instruction", False)),
    )


def load_base_reranker(base: Base, *, max_length: int | None = None, device: str | None = None) -> LoadedReranker:
    """Load an untrained base; its ranking is meaningful only if `base.ranks_untrained`."""
    return LoadedReranker(cross_encoder(base, max_length=max_length, device=device), name=base.name)


def in_order(logits: Sequence[float], *, top_n: int | None = None) -> list[Ranked]:
    """Sort by falling logit, ties by index; scores could tie after rounding, logits do not. Raises NoScore."""
    for index, logit in enumerate(logits):
        if not math.isfinite(logit):
            raise NoScore(
                f"the model gave {logit} for document {index}; expected a finite number; train or publish it again"
            )
    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    return [Ranked(index, sigmoid(logits[index]), logits[index]) for index in order[:top_n]]


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Batches of rows of similar length, longest first, each within `most_tokens` including padding."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        longest = max(1, lengths[order[0]])
        count = max(1, most_tokens // longest)
        # A row much shorter than the first would be mostly padding.
        count = next((n for n in range(1, min(count, len(order))) if too_short(lengths[order[n]], longest)), count)
        yield order[:count]
        order = order[count:]


def too_short(length: int, longest: int) -> bool:
    """Whether padding a row to `longest` costs more than a separate batch."""
    return longest - length > 16 + longest // 4
