"""A chat model of a few kilobytes for real servers: it answers A or B by chance, and JSON where a score is asked for.

The weights are set, not trained: the last token alone decides the next one. `save_tiny_chat_model` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ANSWER = '{"reasoning": "A answers it.", "score": 0.5}'
LETTER, JSON, END = "<|letter|>", "<|json|>", "<|end|>"
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    "{% if '\"score\"' in messages[0]['content'] + messages[-1]['content'] %}<|json|>{% else %}<|letter|>{% endif %}"
)
# Dimensions of the hidden state: after the letter's mark, after the mark of JSON, after anything else.
AT_LETTER, AT_JSON, AT_OTHERS = 1, 2, 3
LOGIT_A, LOGIT_B = 1.2, 0.9


def save_tiny_chat_model(folder: Path, *, positions: int = 8192) -> None:
    """Write a GPT-2 with one token a byte, and its chat template, in the format of transformers."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocab = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, LETTER, JSON])
    tokenizer.add_tokens([ANSWER])
    ids = tokenizer.get_vocab()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config: Any = GPT2Config(
        vocab_size=len(ids), n_positions=positions, n_embd=8, n_layer=1, n_head=1, tie_word_embeddings=False,
        eos_token_id=ids[END], bos_token_id=ids[END], pad_token_id=ids[END],
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        inputs, outputs = model.transformer.wte.weight, model.lm_head.weight
        inputs[:, AT_OTHERS] = 1.0
        for name, dimension in ((LETTER, AT_LETTER), (JSON, AT_JSON)):
            inputs[ids[name]] = 0.0
            inputs[ids[name], dimension] = 1.0
        outputs[:, [AT_LETTER, AT_JSON, AT_OTHERS]] = -4.0
        outputs[ids["A"], AT_LETTER], outputs[ids["B"], AT_LETTER] = LOGIT_A, LOGIT_B
        outputs[ids[ANSWER], AT_JSON] = 4.0
        outputs[ids[END], AT_OTHERS] = 4.0
    model.save_pretrained(folder)
