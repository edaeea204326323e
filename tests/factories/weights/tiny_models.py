"""Tiny random models with tokenizers trained here, saved as folders of safetensors, for tests without a download."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TEXTS = ["goldfish pond carp water", "bread oven flour yeast", "Query Document yes no answer", "relevant one word"]
WORD_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def save_tiny_qwen3(folder: Path, *, template: str = "", seed: int = 0, max_positions: int = 512) -> Path:
    """A random Qwen3 decoder; its logits are far from uniform, so that a wrong position shows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS * 20, "yes", "no"] * 3, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    if template:
        wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=max_positions,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=wrapped.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def _pieces() -> dict[str, int]:
    """A vocabulary of the texts' words, their beginnings, pairs of characters and single ones; a trainer's would be another one on each run."""
    words = sorted({word for text in TEXTS for word in text.split()})
    characters = sorted({*"abcdefghijklmnopqrstuvwxyz0123456789", *"".join(words)})
    beginnings = sorted({word[:length] for word in words for length in range(2, len(word) + 1)})
    inside = sorted({word[at : at + 2] for word in words for at in range(1, len(word) - 1)} | set(characters))
    pieces = [*WORD_SPECIAL, *characters, *(f"##{each}" for each in inside), *beginnings]
    return {piece: at for at, piece in enumerate(pieces)}


def save_tiny_bert(folder: Path, *, seed: int = 0, max_positions: int = 128) -> Path:
    """A random BERT encoder without a head."""
    tokenizer = Tokenizer(models.WordPiece(_pieces(), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(WORD_SPECIAL)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    wrapped.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=max_positions,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return folder
