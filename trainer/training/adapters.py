"""Prepares a base for training: LoRA layers, dropout, precision, optimizer.

All trainers share it. Imports no Django.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from sentence_transformers.cross_encoder import CrossEncoder
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.trainer_utils import set_seed

from labeling.records import FloatArray
from labeling.retrieval.precision import WORTH_IT, has_bfloat16, same_order
from trainer.bases import Base
from trainer.training.options import START

if TYPE_CHECKING:
    from trainer.training.options import LoRAOptions

log = logging.getLogger(__name__)

FLOAT32_ATTENTION = "sdpa_in_float32"
PRECISION_FILE = "precision.json"
PROBE_ROWS = 16  # rows of the timing; on a CPU, more rows change a step's time and not the ratio
PROBE_RUNS = 2
# Scores closer than this share of their range may change places: the rounding of bfloat16 is larger than their difference.
SAME_SHARE = 0.02
Scores = Callable[[bool], torch.Tensor]


class TargetsUnknown(ValueError):
    """The option `targets` names no layer that can be adapted."""


def attach_adapter(model: CrossEncoder, base: Base, options: LoRAOptions, *, head: bool = True) -> PeftModel:
    """Add LoRA layers to the cross-encoder's own modules; a new head is trained fully, unless there is none."""
    return with_adapter(cast(Any, model).model, options, base.lora_targets, saved=base.saved_modules if head else ())


def with_adapter(inner: Any, options: LoRAOptions, targets: Sequence[str], *, saved: Sequence[str] = ()) -> PeftModel:
    """Add LoRA layers to a model of transformers: to the layers that the options name, or to `targets`.

    `saved`: modules to train fully and to save with the adapter. What is trained is in float32.
    """
    set_seed(options.seed)
    named = [each.strip() for each in options.targets.split(",") if each.strip()]
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=named or list(targets),
        modules_to_save=list(saved) or None,
    )
    unknown = TargetsUnknown(
        f"targets are {options.targets!r}; expected names of linear layers of {options.base!r}, such as {_layers_of(inner)}, or "
        "empty for its default"
    )
    if not all(any(f".{name}".endswith(f".{each}") for name, _ in inner.named_modules()) for each in named):
        raise unknown  # PEFT only refuses targets of which it finds none
    try:
        adapted = get_peft_model(inner, config)
    except ValueError as error:
        if not named:
            raise
        raise unknown from error
    # PEFT keeps its own layers in float32, but not a head, whose small updates would round to zero in bfloat16.
    for weights in adapted.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()
    if options.gradient_checkpointing:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return cast(PeftModel, adapted)


def _layers_of(inner: torch.nn.Module) -> str:
    """The names of the model's linear layers, as `targets` takes them."""
    names = dict.fromkeys(
        name.rpartition(".")[2] for name, each in inner.named_modules() if isinstance(each, torch.nn.Linear)
    )
    return ", ".join(list(names)[:10])


def start_of(options: Any, workspace: Path) -> Path | None:
    """The folder of the adapter from which a training continues, None where it begins with the base."""
    return workspace / START if getattr(options, "start", "") else None


def load_start(adapted: PeftModel, start: Path) -> None:
    """Replace the weights of a new adapter by those of a trained one."""
    set_peft_model_state_dict(adapted, load_file(str(start / "adapter_model.safetensors")))


def place_of(precision: str) -> dict[str, Any]:
    """`device` and `dtype` of a model that is trained: bfloat16 weights only on a GPU that supports them."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "dtype": "float32"}
    bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_bf16_supported())
    return {"device": None, "dtype": "bfloat16" if bf16 else "float32"}


def choose_bf16(options: LoRAOptions, inner: Any, scores: Scores, workspace: Path) -> bool:
    """Whether a training computes in bfloat16; on a CPU its attention then computes in float32.

    auto: on a GPU that supports it; on a CPU if forward and backward pass are clearly faster and `scores(bf16)`, float[n] of one
    query's or several rows' documents, keeps its order. The workspace keeps the answer, so that a resumed training computes alike.
    """
    if torch.cuda.is_available():
        return bool(place_of(options.precision)["dtype"] == "bfloat16")
    if options.precision == "fp32" or (options.precision == "auto" and not has_bfloat16()):
        return False
    if not has_bfloat16():
        log.warning("the processor has no bfloat16: the training is slower with bf16 than with precision auto")
    before = inner.config._attn_implementation
    attend_in_float32(inner)
    if options.precision == "bf16" or _kept_choice(inner, scores, workspace / PRECISION_FILE):
        return True
    if before != inner.config._attn_implementation:
        inner.set_attn_implementation(before)
    return False


def _kept_choice(inner: torch.nn.Module, scores: Scores, file: Path) -> bool:
    if file.exists():
        return bool(json.loads(file.read_text())["bf16"])
    was_training = inner.training
    inner.eval()  # dropout would draw random numbers
    chosen = bfloat16_trains_faster(scores, [each for each in inner.parameters() if each.requires_grad])
    inner.train(was_training)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"bf16": chosen}))
    draft.replace(file)
    return chosen


def bfloat16_trains_faster(scores: Scores, weights: Sequence[torch.Tensor]) -> bool:
    """Whether a step of `weights` with `scores(True)` takes clearly less time than with `scores(False)`, and orders alike.

    The order is checked first: it warms both forms up. Measured in CPU time of the thread, as in `labeling.retrieval.precision`.
    """
    try:
        exact, fast = _values(scores, bf16=False), _values(scores, bf16=True)
        if not np.isfinite(fast).all() or not same_order(
            exact[None], fast[None], close=SAME_SHARE * float(np.ptp(exact))
        ):
            log.warning("bfloat16 changes the order of the first training rows; the training computes in float32")
            return False
        return _step_seconds(scores, weights, bf16=False) >= WORTH_IT * _step_seconds(scores, weights, bf16=True)
    except RuntimeError as error:  # a layer without a kernel for bfloat16
        log.info("the model cannot train in bfloat16 (%s)", str(error).partition("\n")[0])
        return False


@torch.no_grad()
def _values(scores: Scores, *, bf16: bool) -> FloatArray:
    return np.asarray(scores(bf16).float().numpy(), dtype=np.float64)


def _step_seconds(scores: Scores, weights: Sequence[torch.Tensor], *, bf16: bool) -> float:
    """The shortest of some forward and backward passes; the gradients are discarded."""
    times = []
    for _ in range(PROBE_RUNS):
        begun = time.thread_time()
        torch.autograd.grad(scores(bf16).sum(), weights, allow_unused=True)
        times.append(time.thread_time() - begun)
    return min(times)


def optimizer_of(
    weights: Iterable[torch.nn.Parameter], options: LoRAOptions, *, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW, and a rate that rises over the share `warmup` of the steps and then falls to 0 in a line."""
    warm = options.warmup * steps

    def rate(step: int) -> float:
        return (step + 1) / (warm + 1) if step < warm else max(0.0, (steps - step) / max(1.0, steps - warm))

    optimizer = torch.optim.AdamW(list(weights), lr=options.learning_rate, weight_decay=options.weight_decay)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def set_dropout(model: torch.nn.Module, share: float) -> None:
    """Set dropout in all layers, including the base's: the dropout of pretraining slows down a short training.

    Attention stores dropout as a module or, in newer architectures, as a number.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif _is_number(getattr(module, "attention_dropout", None)):
            module.attention_dropout = share  # type: ignore[assignment]


def _is_number(value: object) -> bool:
    """Whether the value is a number; configurations use both 0 and 0.0."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def attend_in_float32(model: Any) -> None:
    """Compute attention in float32 on a CPU: torch's bf16 kernels are several times slower, above all backward."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(FLOAT32_ATTENTION, _attention_in_float32)
        AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
        model.set_attn_implementation(FLOAT32_ATTENTION)


def _attention_in_float32(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **rest: Any
) -> Any:
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **rest)
