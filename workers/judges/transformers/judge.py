"""Judge plugin `transformers-local`: a causal language model inside the worker, on CPU or CUDA.

Asks for one token, A or B, with the prompts of `prompting`; `next_token` does the batching and shares the
pass over a common first document. Imports no Django, and torch only in `prepare`.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, FailureKind, Usage, Verdict
from labeling.retrieval.model_folders import check_folder
from labeling.retrieval.model_names import ModelName, check_model
from workers.endpoints.failures import NotAsked
from workers.judges.examples import MOST_EXAMPLES, Examples
from workers.judges.openai.answers import clamp
from workers.judges.prompting import Cutter, Limits, Prompt, build_prompt, cutter_by_offsets, prompt_hash
from workers.judges.transformers.next_token import NextTokens, Padding, next_token_log_probabilities

CPU_BATCH_TOKENS = 2048
CUDA_BATCH_TOKENS = 32768
CHECKED_BYTES = 1 << 20


class LabelsMissing(ValueError):
    """The tokenizer has no single token for a label, so its probability cannot be read."""


class LocalOptions(Judge.Options):
    model: ModelName = pydantic.Field(
        min_length=1, max_length=500, description="Folder, or name on the hub, of a causal LM."
    )
    revision: str = pydantic.Field(default="", max_length=100, description="Commit or branch on the hub; empty: main.")
    device: Literal["auto", "cpu", "cuda"] = pydantic.Field(default="auto", description="auto: CUDA if available.")
    dtype: Literal["auto", "float32", "bfloat16"] = pydantic.Field(
        default="auto", description="auto: bfloat16 on CUDA, float32 on the CPU."
    )
    clamp: bool = pydantic.Field(
        default=False, description="Round to win, tie or loss, as the paper does; costs accuracy."
    )
    min_label_mass: float = pydantic.Field(
        default=0.8, ge=0, le=1, description="Smallest P(A) + P(B) that counts as an answer."
    )
    max_document_tokens: int = pydantic.Field(
        default=1024, ge=1, le=1_000_000, description="Longest document in tokens; the rest is cut off."
    )
    max_query_tokens: int = pydantic.Field(
        default=512, ge=1, le=1_000_000, description="Longest query in tokens; the rest is cut off."
    )
    batch_tokens: int = pydantic.Field(
        default=0, ge=0, description="Most tokens in one pass, padding included; 0: 2,048 on the CPU, 32,768 on CUDA."
    )
    share_prefix: bool = pydantic.Field(
        default=True, description="Read a document once for all pairs of a batch that show it first."
    )
    padding: Padding = pydantic.Field(default="left", description="Side on which shorter prompts are padded.")
    threads: int = pydantic.Field(default=1, ge=1, le=256, description="CPU threads.")
    examples: Examples = pydantic.Field(
        default=(), max_length=MOST_EXAMPLES, description="People's answers to other queries, shown in the prompt."
    )
    batch_deadline_s: float = pydantic.Field(
        default=150.0,
        gt=0,
        le=3600,
        description="Latest start of a pass in seconds; keep it below the lease of the tasks.",
    )


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A loaded model with its tokenizer; `label_ids` are the tokens of A, then of B."""

    model: Any
    tokenizer: Any
    label_ids: tuple[tuple[int, ...], tuple[int, ...]]
    most_tokens: int
    can_share: bool


@register
class TransformersJudge(Judge):
    """preference = P(A) / (P(A) + P(B)) of the token that follows the prompt."""

    name = "transformers-local"
    label = "Language model in the worker (transformers)"
    can_drift = False
    batch_size = 256
    resource = "gpu"
    added_options = frozenset({"examples"})
    Options = LocalOptions  # type: ignore[assignment]  # model has no default
    options: LocalOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self.prompt_hash = prompt_hash("letter", examples=bool(self.options.examples))
        self.model_revision = model_revision(self.options.model, self.options.revision)
        self._loaded: LocalModel | None = None
        self._lock = threading.Lock()

    def prepare(self, collection: Collection) -> None:
        """Load model and tokenizer; the collection is not used."""
        with self._lock:
            if self._loaded is None:
                self._loaded = load_local_model(self.options)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError(f"judge {self.name!r} has no model yet; call prepare(collection) first")
        started = time.monotonic()
        limits = Limits(self.options.max_document_tokens, self.options.max_query_tokens)
        cut = cutter_of_tokenizer(loaded.tokenizer)
        prompts = [
            build_prompt(each, form="letter", limits=limits, cut=cut, examples=self.options.examples)
            for each in comparisons
        ]
        sequences = [token_ids_of(loaded.tokenizer, prompt) for prompt in prompts]
        fitting = [index for index, ids in enumerate(sequences) if len(ids) < loaded.most_tokens]
        with self._lock:
            next_tokens = self._ask(loaded, [sequences[i] for i in fitting], [prompts[i].prefix_key for i in fitting])
        share_s = (time.monotonic() - started) / max(1, len(comparisons))
        place = {index: row for row, index in enumerate(fitting)}
        return [
            self._answer(
                comparison,
                prompts[index],
                labels=loaded.label_ids,
                next_tokens=next_tokens,
                row=place.get(index),
                usage=Usage(input_tokens=len(sequences[index]), latency_s=share_s),
            )
            for index, comparison in enumerate(comparisons)
        ]

    def _ask(self, loaded: LocalModel, sequences: list[list[int]], keys: list[str]) -> NextTokens:
        import torch

        on_cpu = loaded.model.device.type == "cpu"
        if on_cpu:
            torch.set_num_threads(self.options.threads)
        return next_token_log_probabilities(
            loaded.model,
            sequences,
            [*loaded.label_ids[0], *loaded.label_ids[1]],
            keys=keys if self.options.share_prefix and loaded.can_share else None,
            padding=self.options.padding,
            pad_id=loaded.tokenizer.pad_token_id or 0,
            batch_tokens=self.options.batch_tokens or (CPU_BATCH_TOKENS if on_cpu else CUDA_BATCH_TOKENS),
            deadline=time.monotonic() + self.options.batch_deadline_s,
        )

    def _answer(
        self,
        comparison: Comparison,
        prompt: Prompt,
        *,
        labels: tuple[tuple[int, ...], tuple[int, ...]],
        next_tokens: NextTokens,
        row: int | None,
        usage: Usage,
    ) -> Verdict | Failure:
        """The verdict on one comparison from row `row` of the log-probabilities; None: it was too long."""
        if row is None or row in next_tokens.out_of_memory:
            bound = "the model's context" if row is None else "the memory of the device"
            message = f"{usage.input_tokens} tokens exceed {bound}; lower max_document_tokens"
            return Failure(FailureKind.CONTEXT_OVERFLOW, message, retryable=False)
        if row in next_tokens.out_of_time:
            message = f"not asked: the batch took longer than {self.options.batch_deadline_s:g} s"
            return NotAsked(FailureKind.TIMEOUT, message, retryable=True, retry_after_s=0.0)
        masses = [math.exp(value) for value in next_tokens.log_probabilities[row].tolist()]
        a, b = math.fsum(masses[: len(labels[0])]), math.fsum(masses[len(labels[0]) :])
        if not a + b > 0.0 or a + b < self.options.min_label_mass:  # NaN fails the first test
            message = (
                f"the model did not answer A or B: P(A) + P(B) is {a + b:.3f}, expected at least "
                f"{self.options.min_label_mass:g}; choose a model that follows instructions"
            )
            return Failure(FailureKind.LABEL_MASS, message, retryable=False, usage=usage)
        first = a / (a + b)
        return Verdict(
            preference=comparison.preference_of_a(clamp(first) if self.options.clamp else first),
            truncated=prompt.truncated,
            usage=usage,
        )


def load_local_model(options: LocalOptions) -> LocalModel:
    """Load model and tokenizer onto their device. Raises LabelsMissing, ModelNotAllowed, FolderIncomplete."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    check_model(options.model)
    check_folder(options.model)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    half = options.dtype == "bfloat16" or (options.dtype == "auto" and device == "cuda")
    revision = options.revision or None
    tokenizer = AutoTokenizer.from_pretrained(options.model, revision=revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(
        options.model,
        revision=revision,
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation="sdpa",
    )
    model.to(device).eval()
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return LocalModel(
        model=model,
        tokenizer=tokenizer,
        label_ids=(label_ids_of(tokenizer, "A"), label_ids_of(tokenizer, "B")),
        most_tokens=int(getattr(config, "max_position_embeddings", None) or 1 << 30),
        # A sliding window over a padded prefix would count the padding, so such models share no prefixes.
        can_share=kinds == {"full_attention"},
    )


def label_ids_of(tokenizer: Any, label: str) -> tuple[int, ...]:
    """The tokens of a label, with and without a leading space. Raises LabelsMissing."""
    found = set()
    for variant in (label, f" {label}"):
        ids = tokenizer.encode(variant, add_special_tokens=False)
        if len(ids) == 1 and tokenizer.decode(ids).strip() == label:
            found.add(ids[0])
    if not found:
        raise LabelsMissing(f"the tokenizer splits {label!r} into several tokens; choose another model")
    return tuple(sorted(found))


def token_ids_of(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The prompt in the model's chat template with thinking turned off; plain text without a template."""
    if not tokenizer.chat_template:
        return list(tokenizer.encode(f"{prompt.system}\n\n{prompt.user}\n\nAnswer:"))
    text = tokenizer.apply_chat_template(
        _messages(tokenizer, prompt), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return list(tokenizer.encode(text, add_special_tokens=False))


def _messages(tokenizer: Any, prompt: Prompt) -> list[dict[str, str]]:
    """System and user message, or one joined message if the template ignores system messages."""
    if "system" in str(tokenizer.chat_template):
        return [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
    return [{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}]


def cutter_of_tokenizer(tokenizer: Any) -> Cutter:
    """A cutter that counts with the model's own tokenizer."""

    def ends(text: str) -> list[int]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [end for _, end in encoded["offset_mapping"]]

    return cutter_by_offsets(ends)


def model_revision(model: str, revision: str) -> str:
    """The identity of the weights: for a folder `sha256:` and 12 digits, otherwise the requested revision.

    A folder is identified by its config, and by size, first and last megabyte of each weight file: reading
    gigabytes to the end would hold up every start.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{revision or 'main'}"[:200]
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("config.json"), *folder.glob("tokenizer.json"), *folder.glob("*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(CHECKED_BYTES))
            stream.seek(max(0, size - CHECKED_BYTES))
            digest.update(stream.read())
    return f"sha256:{digest.hexdigest()[:12]}"
