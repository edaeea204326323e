"""Prepares a base for training: LoRA layers, dropout, precision, optimizer.

All trainers share it. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers.cross_encoder import CrossEncoder
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.trainer_utils import set_seed

from trainer.bases import Base

if TYPE_CHECKING:
    from trainer.training.options import LoRAOptions

FLOAT32_ATTENTION = "sdpa_in_float32"


def attach_adapter(model: CrossEncoder, base: Base, options: LoRAOptions, *, head: bool = True) -> PeftModel:
    """Add LoRA layers to the cross-encoder's own modules; a new head is trained fully, unless there is none."""
    return with_adapter(cast(Any, model).model, options, base.lora_targets, saved=base.saved_modules if head else ())


def with_adapter(inner: Any, options: LoRAOptions, targets: Sequence[str], *, saved: Sequence[str] = ()) -> PeftModel:
    """Add LoRA layers to a model of transformers: to the layers that the options name, or to `targets`.

    `saved`: modules to train fully and to save with the adapter. What is trained is in float32.
    """
    set_seed(options.seed)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=[each.strip() for each in options.targets.split(",") if each.strip()] or list(targets),
        modules_to_save=list(saved) or None,
    )
    adapted = get_peft_model(inner, config)
    # PEFT keeps its own layers in float32, but not a head, whose small updates would round to zero in bfloat16.
    for weights in adapted.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()
    if options.gradient_checkpointing:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return cast(PeftModel, adapted)


def uses_bf16(precision: str) -> bool:
    """Whether a training computes in bfloat16. auto: on a GPU that supports it."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


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
