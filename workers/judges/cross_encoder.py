"""Judge plugin `cross-encoder`: any reranker with one score for a query and a document, as a judge of pairs.

Loads a sequence classification model from the hub or a folder (safetensors alone, at a pinned revision), or its ONNX form.
Each document is scored once a query, and `score_difference` turns differences into preferences. Imports no Django, and torch
or ONNX Runtime only in `prepare`.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pydantic
from scipy.special import expit

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, FloatArray, TextRecord, Verdict
from labeling.retrieval.model_folders import check_folder
from labeling.retrieval.model_names import ModelName, check_model
from workers.judges.score_difference import Recent, ScoreDifferenceJudge
from workers.judges.transformers.judge import model_revision

BATCH_TOKENS = 4096
SCORES_KEPT = 200_000
MODELS_KEPT = 2


class NotAReranker(ValueError):
    """The model has no single score for a query and a document."""


class BackendMissing(RuntimeError):
    """The library of the chosen backend is not installed."""


class CrossEncoderOptions(Judge.Options):
    model: ModelName = pydantic.Field(
        min_length=1, max_length=500, description="Folder, or name on the hub, of a sentence-transformers reranker."
    )
    revision: str = pydantic.Field(
        default="",
        max_length=100,
        description="Commit on the hub; required for a name, so that scores can be repeated.",
    )
    backend: Literal["torch", "onnx"] = pydantic.Field(
        default="torch", description="torch: safetensors; onnx: the file onnx_file, run by ONNX Runtime."
    )
    onnx_file: str = pydantic.Field(
        default="onnx/model.onnx", max_length=200, description="Path of the ONNX file within the model's folder."
    )
    max_tokens: int = pydantic.Field(
        default=512,
        ge=16,
        le=32_768,
        description="Longest query and document together, in tokens; the rest is cut off.",
    )
    temperature: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Score difference that gives a preference of .73. 0: differences over their deviation in the query.",
    )
    device: Literal["auto", "cpu", "cuda"] = pydantic.Field(default="auto", description="auto: CUDA if available.")
    threads: int = pydantic.Field(default=1, ge=1, le=256, description="CPU threads.")

    @pydantic.field_validator("onnx_file")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".onnx":
            raise ValueError(f"onnx_file is {value!r}; expected a relative path within the model that ends with .onnx")
        return value

    @pydantic.model_validator(mode="after")
    def _pinned(self) -> CrossEncoderOptions:
        if not Path(self.model).is_dir() and not self.revision:
            raise ValueError(f"revision is missing; name the commit of {self.model!r} on the hub")
        return self


@dataclass(frozen=True, slots=True)
class LoadedScorer:
    """`score(queries, documents)` gives one raw score each, float64[n]; one call at a time."""

    score: Callable[[Sequence[str], Sequence[str]], FloatArray]
    lock: threading.Lock


@register
class CrossEncoderJudge(ScoreDifferenceJudge):
    """Prefers the document with the higher score. Scores a query's candidates once, however many pairs are asked."""

    name = "cross-encoder"
    label = "Reranker (cross-encoder)"
    resource = "gpu"
    Options = CrossEncoderOptions  # type: ignore[assignment]  # model has no default
    options: CrossEncoderOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        revision = model_revision(self.options.model, self.options.revision)
        self.model_revision = f"{revision} {self.options.backend}"[:200]
        self._raw: Recent[tuple[int, int], float] = Recent(SCORES_KEPT)

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> list[str]:
        if options.get("backend") == "onnx" and importlib.util.find_spec("onnxruntime") is None:
            return ["the backend onnx needs ONNX Runtime; install onnxruntime, or choose the backend torch"]
        return []

    def prepare(self, collection: Collection) -> None:
        """Load the model, once in each process. Raises NotAReranker, BackendMissing, ModelNotAllowed, FolderIncomplete."""
        super().prepare(collection)
        self._raw = Recent(SCORES_KEPT)
        load_scorer(self.options)

    def score(self, query: TextRecord, documents: Sequence[TextRecord]) -> FloatArray:
        known = {each.id: self._raw.get((query.id, each.id)) for each in documents}
        missing = [each for each in documents if known[each.id] is None]
        if missing:
            scorer = load_scorer(self.options)
            with scorer.lock:
                scores = scorer.score([query.text] * len(missing), [each.text for each in missing])
            for each, score in zip(missing, scores.tolist(), strict=True):
                known[each.id] = score
                self._raw.put((query.id, each.id), score)
        return np.array([known[each.id] for each in documents], dtype=np.float64)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        answers = super().judge(comparisons)
        if self.options.temperature == 0.0:
            return answers
        return [
            self._at_temperature(comparison) if isinstance(answer, Verdict) else answer
            for comparison, answer in zip(comparisons, answers, strict=True)
        ]

    def _at_temperature(self, comparison: Comparison) -> Verdict:
        a = self.score(comparison.query_a, [comparison.a])[0]
        b = self.score(comparison.query_b, [comparison.b])[0]
        return Verdict(preference=float(expit((a - b) / self.options.temperature)))


@functools.lru_cache(maxsize=MODELS_KEPT)
def load_scorer(options: CrossEncoderOptions) -> LoadedScorer:
    """The model of these options. Raises NotAReranker, BackendMissing, ModelNotAllowed."""
    from transformers import AutoConfig, AutoTokenizer

    check_model(options.model)
    check_folder(options.model)
    revision = options.revision or None
    config = AutoConfig.from_pretrained(options.model, revision=revision, trust_remote_code=False)
    if config.num_labels != 1:
        raise NotAReranker(
            f"{options.model!r} has {config.num_labels} labels; expected one score; choose a reranker, or a model "
            "trained with one label"
        )
    tokenizer = AutoTokenizer.from_pretrained(options.model, revision=revision, trust_remote_code=False)
    positions = int(getattr(config, "max_position_embeddings", None) or options.max_tokens)
    longest = min(options.max_tokens, positions, int(tokenizer.model_max_length))
    load = _torch_logits if options.backend == "torch" else _onnx_logits
    logits = load(options, revision)

    def score(queries: Sequence[str], documents: Sequence[str]) -> FloatArray:
        # Longest first, so that passes hold pairs of about the same length.
        order = sorted(range(len(documents)), key=lambda row: -len(queries[row]) - len(documents[row]))
        scores = np.empty(len(documents))
        size = max(1, BATCH_TOKENS // options.max_tokens)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            encoded = tokenizer(
                [queries[row] for row in rows],
                [documents[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="np",
            )
            scores[rows] = logits(dict(encoded))
        if not np.isfinite(scores).all():
            raise NotAReranker(f"{options.model!r} returned a score that is not finite; its weights are damaged")
        return scores

    return LoadedScorer(score, threading.Lock())


def _torch_logits(options: CrossEncoderOptions, revision: str | None) -> Callable[[dict[str, Any]], FloatArray]:
    import torch
    from transformers import AutoModelForSequenceClassification

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        options.model, revision=revision, use_safetensors=True, trust_remote_code=False
    )
    model.to(device).float().eval()

    def logits(encoded: dict[str, Any]) -> FloatArray:
        if device == "cpu":
            torch.set_num_threads(options.threads)
        with torch.inference_mode():
            found = model(**{name: torch.from_numpy(value).to(device) for name, value in encoded.items()}).logits
        return np.asarray(found[:, 0].float().cpu().numpy(), dtype=np.float64)

    return logits


def _onnx_logits(options: CrossEncoderOptions, revision: str | None) -> Callable[[dict[str, Any]], FloatArray]:
    try:
        import onnxruntime
    except ImportError:
        raise BackendMissing(
            "ONNX Runtime is not installed; install onnxruntime, or choose the backend torch"
        ) from None
    path = Path(options.model) / options.onnx_file
    if not Path(options.model).is_dir():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(options.model, options.onnx_file, revision=revision))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"] if options.device != "cpu" else ["CPUExecutionProvider"]
    providers = [each for each in wanted if each in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    names = {each.name for each in session.get_inputs()}

    def logits(encoded: dict[str, Any]) -> FloatArray:
        [found, *_] = session.run(None, {name: value for name, value in encoded.items() if name in names})
        return np.asarray(found, dtype=np.float64).reshape(len(found), -1)[:, 0]

    return logits
