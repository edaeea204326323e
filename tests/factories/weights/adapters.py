"""Random LoRA adapters as a trainer would leave them, and published rerankers made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from trainer.bases import cross_encoder, load_base
from trainer.publishing.export import ModelCard, Published, publish


def save_random_adapter(folder: Path, *, base: str, seed: int = 0, **lora: Any) -> Path:
    """An adapter whose weights are all random, so that merging it changes every logit."""
    found = load_base(base)
    model = cross_encoder(found)
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": list(found.lora_targets),
        "modules_to_save": list(found.saved_modules) or None,
        "init_lora_weights": False,
    }
    adapted = get_peft_model(model.model, LoraConfig(**(options | lora)))
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_" in name:
                weights.copy_(torch.randn_like(weights) * 0.05)
    adapted.save_pretrained(str(folder))
    return folder


def publish_random(folder: Path, *, base: str, **options: Any) -> Published:
    """A reranker published from a random adapter, in `folder`/reranker."""
    adapter = save_random_adapter(folder / "workspace", base=base)
    card = ModelCard(name="tiny", data={"snapshot": "fish"}, metrics={"ndcg@10": 0.5}, lineage={"run": 7})
    return publish(adapter, base=base, out=folder / "reranker", card=card, **options)
