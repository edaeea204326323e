"""Prepares a base for training: LoRA layers, dropout, and the precision of attention.

`trainer.training.fine_tuning` calls it. Imports no Django.
"""

from __future__ import annotations

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
    from trainer.training.options import RerankerOptions
    from trainer.training.pairwise.options import PairwiseOptions

FLOAT32_ATTENTION = "sdpa_in_float32"


def attach_adapter(
    model: CrossEncoder, base: Base, options: RerankerOptions | PairwiseOptions, *, head: bool = True
) -> PeftModel:
    """Add LoRA layers to the cross-encoder's own modules; a new head is trained fully, unless there is none."""
    targets = [each.strip() for each in options.targets.split(",") if each.strip()]
    set_seed(options.seed)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets or list(base.lora_targets),
        modules_to_save=(list(base.saved_modules) or None) if head else None,
    )
    inner: Any = model.model
    adapted = get_peft_model(inner, config)
    # PEFT keeps its own layers in float32, but not a head, whose small updates would round to zero in bfloat16.
    for weights in adapted.parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()
    if options.gradient_checkpointing:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return cast(PeftModel, adapted)


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
