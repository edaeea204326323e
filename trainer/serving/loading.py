"""Stage 9: loads a published reranker into memory and ranks documents with it.

`load_reranker` checks the artefact against its manifest and loads it. `rank` scores one request alone;
`trainer.serving.server` batches the pairs of several requests with `encode` and `logits`. The score of a pair does not
depend on its batch. Imports no Django, and torch only to load a model.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.bases import Base, cross_encoder, quiet
from trainer.publishing.manifests import SEQUENCE_CLASSIFICATION, verify
from trainer.serving.forms.catalogue import REFINED, default_scorer, form_called
from trainer.serving.forms.choice import Choice, logits_of
from trainer.serving.forms.host_cache import choice_here, files_of
from trainer.serving.forms.pairs import EncodedPair, EncodedRequest
from trainer.serving.forms.scorers import PaddedScorer, RefinedScorer, Scorer, UnpaddedScorer, release, unsure_rows
from trainer.serving.plain_text import (
    CHARACTERS_OF_TOKEN,
    USUAL_CHARACTERS_OF_TOKEN,
    PlainText,
    all_shortened,
    shortened,
    start_of,
)

CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 1024, 32768
UNBOUNDED_TOKENS = 32768
ENCODED_AT_ONCE = 256
PREPARED = ("how do fish breathe", ["Gills take oxygen from the water."])


class NoScore(RuntimeError):
    """The model returned NaN or infinity for a pair: its weights are damaged, or training failed."""


class FormMissing(RuntimeError):
    """The form that was asked for cannot run on this machine."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One ranked document: its index in the request, `score` in [0, 1], and its logit."""

    index: int
    score: float
    logit: float


class LoadedReranker:
    """A cross-encoder that is ready to score. Thread-safe. Modifies the given model."""

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        checksum: str = "",
        reads_instruction: bool = False,
        scorer: Scorer | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.name = name
        self.checksum = checksum
        self.reads_instruction = reads_instruction
        self.choice = choice
        self.max_length = int(min(model.max_seq_length or UNBOUNDED_TOKENS, UNBOUNDED_TOKENS))
        self._model = model.eval()
        self._tokenizer = model.tokenizer
        self._tokenizing = threading.Lock()  # a tokenizer keeps its truncation as state
        self._plain = PlainText(self._tokenizer)
        self._in_chat = "message" in model[0].modality_config
        self._scorer = scorer or default_scorer(model)
        self._constants: dict[str, Any] = {}
        self._is_direct = False
        self._frame = self._frame_tokens()
        self._is_direct = self._tokenizes_alone()
        self._exact = ExactPart(self)
        self._is_prepared = False

    @property
    def on_cpu(self) -> bool:
        return bool(self._model.device.type == "cpu")

    @property
    def form(self) -> str:
        """The form that computes the logits, one of `trainer.serving.forms.catalogue`."""
        return self._scorer.form

    @property
    def pads(self) -> bool:
        """Whether the pairs of a pass are padded to the longest."""
        return self._scorer.pads

    @property
    def dtype(self) -> str:
        """The precision of the products, such as `float32`."""
        return self._scorer.dtype

    def rank(self, query: str, documents: Sequence[str], *, top_n: int | None = None) -> list[Ranked]:
        """The documents by falling relevance, the first `top_n` or all. Raises NoScore."""
        return in_order(self.scores(query, documents), top_n=top_n)

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """The logit of each document, in the given order; computed in the calling thread."""
        return logits_of(self._scorer, self.encode(query, documents).pairs).tolist()

    def prepare(self) -> None:
        """Compile what a first request would wait for, once, and compute a small pass."""
        if not self._is_prepared and isinstance(self._scorer, UnpaddedScorer | RefinedScorer):
            self._scorer.prepare(self.batch_tokens)
            self._is_prepared = True
        self.logits(self.encode(*PREPARED).pairs)

    def unsure(self, logits: Sequence[float], *, top_n: int | None = None) -> list[int]:
        """The rows of a list that `exact` has to compute before their order is certain; none for most forms."""
        return unsure_rows(self._scorer, logits, top_n=top_n)

    @property
    def exact(self) -> ExactPart:
        """The model that computes the rows of `unsure`."""
        return self._exact

    def ranked(self, outputs: Sequence[float], *, top_n: int | None = None) -> list[Ranked]:
        """The ranking of a request from the logits of its pairs. Raises NoScore."""
        return in_order(outputs, top_n=top_n)

    @property
    def batch_tokens(self) -> int:
        """Tokens per batch; more than a thousand no longer fit the caches of a CPU core."""
        return CPU_BATCH_TOKENS if self.on_cpu else DEVICE_BATCH_TOKENS

    def encode(
        self,
        query: str,
        documents: Sequence[str],
        *,
        document_tokens: int | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> EncodedRequest:
        """The tokens of every pair, truncated to the model's maximum length; `go_on` is called now and then, and may raise.

        Documents are truncated first, after they were shortened to `document_tokens`. A query keeps at most half of the length, so
        neither text is removed completely. Special tokens that the texts spell are read as text.
        """
        query, query_cut = self._cut_query(self._plain(query))
        pairs: list[EncodedPair] = []
        for start in range(0, len(documents), ENCODED_AT_ONCE):
            go_on()
            plain = [self._plain(each) for each in documents[start : start + ENCODED_AT_ONCE]]
            with self._tokenizing:
                plain = all_shortened(self._tokenizer, plain, document_tokens)
            pairs += self._encode_starts(query, plain)
        return EncodedRequest(tuple(pairs), query_cut)

    def logits(self, pairs: Sequence[EncodedPair]) -> list[float]:
        """One raw logit per pair, computed in one batch."""
        return self._scorer(pairs)

    def _encode_starts(self, query: str, documents: Sequence[str]) -> list[EncodedPair]:
        """The tokens of each pair; of a long document only its start is tokenised, if that fills the model's length."""
        found: list[EncodedPair | None] = [None] * len(documents)
        for characters in (USUAL_CHARACTERS_OF_TOKEN, CHARACTERS_OF_TOKEN, None):
            rows = [row for row, pair in enumerate(found) if pair is None]
            if not rows:
                break
            most = None if characters is None else characters * self.max_length
            starts = [start_of(documents[row], most) for row in rows]
            for row, start, pair in zip(rows, starts, self._encode([(query, each) for each in starts]), strict=True):
                if len(start) == len(documents[row]) or len(pair) >= self.max_length:
                    found[row] = pair
        return [pair for pair in found if pair is not None]

    def _encode(self, pairs: list[tuple[str, str]]) -> list[EncodedPair]:
        """The tokens that `CrossEncoder.predict` would pass to the model, without padding."""
        if not self._is_direct:
            return self._preprocessed(pairs)
        queries, documents = zip(*pairs, strict=True)
        with self._tokenizing:
            found = self._tokenizer(
                queries, documents, truncation="longest_first", max_length=self.max_length, return_attention_mask=False
            )
        types = found.get("token_type_ids") or itertools.repeat(None)
        return [
            EncodedPair(tuple(ids), None if kinds is None else tuple(kinds), cut=len(ids) >= self.max_length)
            for ids, kinds in zip(found["input_ids"], types, strict=False)
        ]

    def _tokenizes_alone(self) -> bool:
        """Whether the tokenizer gives by itself what sentence-transformers' preparation gives, which takes six times as long."""
        if self._in_chat:
            return False
        probe = [("", ""), ("a query", "a document"), (" two words ", "word " * self.max_length)]
        self._is_direct = True
        try:
            return self._encode(probe) == self._preprocessed(probe)
        except (KeyError, TypeError, ValueError):
            return False

    def _preprocessed(self, pairs: list[tuple[str, str]]) -> list[EncodedPair]:
        with self._tokenizing:
            features = self._model.preprocess(pairs)
        ids, mask = features["input_ids"], features["attention_mask"]
        types = features.get("token_type_ids")
        if not self._constants:
            tensors = {"input_ids", "attention_mask", "token_type_ids"}
            self._constants = {name: value for name, value in features.items() if name not in tensors}
            if isinstance(self._scorer, PaddedScorer):
                self._scorer.constants = self._constants
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


class ExactPart:
    """The float32 part of a reranker that computes in bfloat16 first; the batcher treats it as a model of its own."""

    pads = False

    def __init__(self, model: LoadedReranker) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def batch_tokens(self) -> int:
        return self._model.batch_tokens

    def logits(self, pairs: Sequence[EncodedPair]) -> list[float]:
        """One raw logit per pair, computed in one batch."""
        scorer = self._model._scorer
        return (scorer.exact if isinstance(scorer, RefinedScorer) else scorer)(pairs)


def load_reranker(
    path: Path | str, *, device: str | None = None, dtype: str = "float32", form: str = "", cache: Path | None = None
) -> LoadedReranker:
    """Load the published reranker in a folder after checking its files against the manifest.

    Loads the sequence-classification form: it has the same logits as the merged model (publishing compares them) and, for
    a decoder, no output layer over the whole vocabulary. On a CPU, `form` is one of `trainer.serving.forms.catalogue`, "auto" for the
    fastest that keeps the order here, or empty for float32; `cache` keeps what was measured and made for this host.
    Raises ManifestBroken, FormMissing.
    """
    folder = Path(path)
    manifest = verify(folder, artefact=SEQUENCE_CLASSIFICATION)
    model = classifier(folder / SEQUENCE_CLASSIFICATION, device=device, dtype=dtype)
    on_cpu = model.device.type == "cpu" and dtype == "float32"
    choice = choice_here(model, folder, manifest, cache) if form in ("auto", REFINED) and on_cpu else None
    wanted = choice.form if choice is not None and form == "auto" else form
    if wanted in ("", "auto") or not on_cpu:
        scorer = default_scorer(model)
    else:
        scorer = _scorer_called(wanted, model, files_of(folder, cache))
    if isinstance(scorer, RefinedScorer) and choice is not None:
        own = next(each for each in choice.measured if each.form == scorer.form)
        scorer.close, scorer.spread = own.close, own.spread
    release(model, scorer)
    return LoadedReranker(
        model,
        name=str(manifest.get("card", {}).get("name", folder.name)),
        checksum=str(manifest.get("adapter_sha256", "")),
        reads_instruction=bool(manifest.get("reads_instruction", False)),
        scorer=scorer,
        choice=choice,
    )


def _scorer_called(name: str, model: Any, files: Path) -> Scorer:
    form = form_called(name)
    if missing := form.missing():
        raise FormMissing(f"the form {name!r} cannot run here: {missing}; choose another --form, or auto")
    return form.make(model, files)


def classifier(folder: Path, *, device: str | None = None, dtype: str = "float32") -> Any:
    """The `CrossEncoder` in the folder of a sequence-classification form."""
    from sentence_transformers import CrossEncoder

    quiet()
    return CrossEncoder(
        str(folder),
        device=device,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": dtype, "attn_implementation": "sdpa"},
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
