"""A published embedding student in memory: texts to unit vectors, and documents of a query ranked by cosine.

It has the interface of `trainer.serving.loading.LoadedReranker`, so that the server batches both alike. Imports no Django, and
torch only to load a model.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labeling.retrieval.embedder import Float32Array
from trainer.bases import quiet
from trainer.publishing.manifests import SENTENCE_TRANSFORMERS, verify
from trainer.serving.forms.packed_linear import pack_linears
from trainer.serving.forms.pairs import EncodedPair, EncodedRequest, batches, distinct
from trainer.serving.loading import (
    CPU_BATCH_TOKENS,
    DEVICE_BATCH_TOKENS,
    ENCODED_AT_ONCE,
    UNBOUNDED_TOKENS,
    NoScore,
    Ranked,
    in_order,
)
from trainer.serving.plain_text import CHARACTERS_OF_TOKEN, PlainText, all_shortened
from trainer.token_similarity import list_similarities, mixed, similarities, with_tokens

Role = Literal["query", "document"]


class LoadedEmbedder:
    """A bi-encoder that is ready to embed. Thread-safe. Modifies the given model.

    `sizes` are the embedding sizes that it was trained for, the whole one first; `token_weight` and `list_weight`
    are the shares of token and list similarity in the scores of documents (`trainer.token_similarity`).
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        checksum: str = "",
        sizes: Sequence[int] = (),
        token_weight: float = 0.0,
        list_weight: float = 0.0,
        reads_instruction: bool = False,
    ) -> None:
        self.name = name
        self.reads_instruction = reads_instruction
        self.checksum = checksum
        self.max_length = int(min(model.max_seq_length or UNBOUNDED_TOKENS, UNBOUNDED_TOKENS))
        self.sizes = tuple(sizes) or (int(model.get_embedding_dimension()),)
        self.token_weight, self.list_weight = token_weight, list_weight
        self._model = model.eval()
        self._tokenizer = model.tokenizer
        self._tokenizing = threading.Lock()
        self._plain = PlainText(self._tokenizer)
        self._constants: dict[str, Any] = {}
        if self.on_cpu:
            pack_linears(model)

    @property
    def is_cosine(self) -> bool:
        """Whether the score of a document is its cosine alone."""
        return not self.token_weight and not self.list_weight

    @property
    def on_cpu(self) -> bool:
        return bool(self._model.device.type == "cpu")

    @property
    def query_tokens(self) -> int:
        """The most tokens that a query keeps."""
        return self.max_length

    def count_tokens(self, text: str) -> int:
        """Tokens of a text by itself, without special tokens."""
        with self._tokenizing:
            return len(self._tokenizer(self._plain(text), add_special_tokens=False, truncation=False)["input_ids"])

    @property
    def pooling(self) -> str:
        """The pooling of token vectors, in TEI's words: `mean`, `cls`, `last_token`, ...; `unknown` without such a module."""
        mode = next((each.pooling_mode for each in self._model if hasattr(each, "pooling_mode")), "unknown")
        return "last_token" if mode == "lasttoken" else str(mode)

    @property
    def dtype(self) -> str:
        """The precision of the weights, such as `float32`."""
        return str(next(self._model.parameters()).dtype).removeprefix("torch.")

    @property
    def pads(self) -> bool:
        """Whether the texts of a pass are padded to the longest."""
        return True

    @property
    def batch_tokens(self) -> int:
        return CPU_BATCH_TOKENS if self.on_cpu else DEVICE_BATCH_TOKENS

    def rank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[Ranked]:
        """The documents by falling score, the first `top_n` or all. Raises NoScore."""
        return self.ranked(self._computed(self.encode(query, documents).pairs), top_n=top_n)

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """The score of each document, in the given order; computed in the calling thread."""
        return self._scores(self._computed(self.encode(query, documents).pairs))

    def vectors(self, texts: Sequence[str], *, role: Role = "document") -> Float32Array:
        """Unit vectors float32[n, size]; computed in the calling thread."""
        return np.stack([_vector(each) for each in self._computed(self.encode_texts(texts, role=role))])

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        *,
        document_tokens: int | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> EncodedRequest:
        """The tokens of the query, then of every document, each truncated to the model's maximum length.

        Documents are shortened to `document_tokens` first. `go_on` is called now and then, and may raise.
        """
        (asked,) = self.encode_texts([query], role="query")
        own = EncodedPair(asked.ids, asked.types, cut=False)
        return EncodedRequest(
            (own, *self.encode_texts(documents, role="document", tokens=document_tokens, go_on=go_on)),
            query_cut=asked.cut,
        )

    def encode_texts(
        self,
        texts: Sequence[str],
        *,
        role: Role,
        tokens: int | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> list[EncodedPair]:
        """The tokens of each text, with the model's prompt of the role; special tokens that it spells are read as text.

        `tokens` and `go_on`: see `encode`.
        """
        most = self.max_length * CHARACTERS_OF_TOKEN
        prompt = self._model.prompts.get(role) or None
        found: list[EncodedPair] = []
        for start in range(0, len(texts), ENCODED_AT_ONCE):
            go_on()
            plain = [self._plain(each) for each in texts[start : start + ENCODED_AT_ONCE]]
            with self._tokenizing:
                plain = all_shortened(self._tokenizer, plain, tokens)
            own = self._split([text[:most] for text in plain], prompt)
            for row, text in enumerate(plain):
                # A text that was truncated by characters must also have been truncated by tokens.
                if len(text) > most and len(own[row]) < self.max_length:
                    own[row] = self._split([text], prompt)[0]
            found += own
        return found

    def _split(self, texts: Sequence[str], prompt: str | None) -> list[EncodedPair]:
        with self._tokenizing:
            features = self._model.preprocess(list(texts), prompt=prompt)
        ids, mask, types = features["input_ids"], features["attention_mask"], features.get("token_type_ids")
        if not self._constants:
            tensors = {"input_ids", "attention_mask", "token_type_ids"}
            self._constants = {name: value for name, value in features.items() if name not in tensors}
        rows = []
        for row, kept in enumerate(mask.bool()):
            tokens = tuple(ids[row][kept].tolist())
            segments = tuple(types[row][kept].tolist()) if types is not None else None
            rows.append(EncodedPair(tokens, segments, cut=len(tokens) >= self.max_length))
        return rows

    def logits(self, pairs: Sequence[EncodedPair]) -> list[Float32Array]:
        """One unit vector float32[size] per text, computed in one batch; with its tokens where they count in the score."""
        import torch

        longest = max(len(pair) for pair in pairs)
        left = self._tokenizer.padding_side == "left"
        ids = torch.full((len(pairs), longest), int(self._tokenizer.pad_token_id or 0))
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
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
            given = self._model({**features, **self._constants})
            vectors = torch.nn.functional.normalize(given["sentence_embedding"].float(), dim=-1).cpu().numpy()
            if not self.token_weight:
                return list(vectors)
            states = given["token_embeddings"].float().cpu().numpy()
        special = torch.tensor(self._tokenizer.all_special_ids)
        kept = (mask.bool() & ~torch.isin(ids, special)).numpy()
        return [with_tokens(vectors[row], states[row][kept[row]]) for row in range(len(pairs))]

    def ranked(self, outputs: Sequence[Float32Array], *, top_n: int | None = None) -> list[Ranked]:
        """The ranking of a request from the vectors of its query and documents. Raises NoScore."""
        return [Ranked(each.index, each.logit, each.logit) for each in in_order(self._scores(outputs), top_n=top_n)]

    def _scores(self, outputs: Sequence[Float32Array]) -> list[float]:
        """The cosine of the first text with each of the others, with the shares of the other signals; NaN stays NaN."""
        if self.is_cosine or len(outputs) < 2:
            return _cosines([_vector(own) for own in outputs])
        tokens = None
        if self.token_weight:
            cosines, found = similarities(outputs[0], outputs[1:])
            tokens = np.array(found)
        else:
            cosines = _cosines(outputs)
        context = list_similarities([_vector(own) for own in outputs[1:]]) if self.list_weight else None
        scores = mixed(np.array(cosines), tokens, context, token_weight=self.token_weight, list_weight=self.list_weight)
        return [_within(float(own)) for own in scores]

    def shortened(self, vector: Float32Array, size: int | None) -> Float32Array:
        """The first `size` numbers of a text's vector as a unit vector. Raises NoScore."""
        vector = _vector(vector)
        if not np.isfinite(vector).all():
            raise NoScore("the model gave a vector with a number that is not finite; train or publish it again")
        if size is None or size == len(vector):
            return vector
        cut = vector[:size]
        return np.asarray(cut / max(float(np.linalg.norm(cut)), 1e-12), dtype=np.float32)

    def _computed(self, pairs: Sequence[EncodedPair]) -> list[Float32Array]:
        computed, places = distinct(pairs)
        found: list[Any] = [None] * len(computed)
        for batch in batches([len(pair) for pair in computed], self.batch_tokens):
            for row, vector in zip(batch, self.logits([computed[row] for row in batch]), strict=True):
                found[row] = vector
        return [found[place] for place in places]


def _cosines(vectors: Sequence[Float32Array]) -> list[float]:
    """The cosine of the first unit vector with each of the others; NaN stays NaN."""
    query = vectors[0].astype(np.float64)
    cosines = [float(own.astype(np.float64) @ query) for own in vectors[1:]]
    return [_within(each) for each in cosines]


def _within(score: float) -> float:
    return min(1.0, max(-1.0, score)) if math.isfinite(score) else score


def _vector(output: Float32Array) -> Float32Array:
    """The vector of a text without the rows of its tokens."""
    return output[0] if output.ndim == 2 else output


def load_embedding_student(path: Path | str, *, device: str | None = None, dtype: str = "float32") -> LoadedEmbedder:
    """Load the published embedding student in a folder after checking its files. Raises ManifestBroken."""
    folder = Path(path)
    manifest = verify(folder, artefact=SENTENCE_TRANSFORMERS)
    from sentence_transformers import SentenceTransformer

    quiet()
    model = SentenceTransformer(
        str(folder / SENTENCE_TRANSFORMERS),
        device=device,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": dtype, "attn_implementation": "sdpa"},
    )
    return LoadedEmbedder(
        model,
        name=str(manifest.get("card", {}).get("name", folder.name)),
        checksum=str(manifest.get("adapter_sha256", "")),
        sizes=manifest.get("embedding_sizes", ()),
        token_weight=float(manifest.get("token_weight", 0.0)),
        list_weight=float(manifest.get("list_weight", 0.0)),
        reads_instruction=bool(manifest.get("reads_instruction", False)),
    )
