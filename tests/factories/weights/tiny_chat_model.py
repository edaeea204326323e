"""A chat model of a few kilobytes for real servers: it answers A or B by chance, a grade, or JSON where a score or ranking is asked for.

The weights are set, not trained: the last token alone decides the next one. `save_tiny_chat_model` writes it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

# Pieces of at most 32 bytes, because llama-cpp-python shows no longer token.
ANSWER = ('{"reasoning": "A answers it.", ', '"score": 0.5}')
RANKING = ('{"best": "B", ', '"ranking": ["B", "A", "C"]}')
LETTER, JSON, RANKED, GRADE, END = "<|letter|>", "<|json|>", "<|ranked|>", "<|grade|>", "<|end|>"
SPECIAL = (END, LETTER, JSON, RANKED, GRADE)
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    "{% set asked = messages[0]['content'] + messages[-1]['content'] %}"
    "{% if '\"score\"' in asked %}<|json|>{% elif '\"ranking\"' in asked %}<|ranked|>"
    "{% elif 'number alone' in asked %}<|grade|>{% else %}<|letter|>{% endif %}"
)
# Dimensions of the hidden state: after the marks, after the first pieces, after anything else.
AT_LETTER, AT_JSON, AT_RANKED, AT_GRADE, AT_ANSWER, AT_RANKING, AT_OTHERS = range(1, 8)
LOGIT_A, LOGIT_B = 1.2, 0.9
# The norm of the last layer multiplies the one dimension of the hidden state that is not 0, of 8, by this.
NORM = math.sqrt(7.0)
LOGITS_OF_GRADES = {"0": 0.0, "1": 0.5, "2": 2.0, "3": 1.5}


def save_tiny_chat_model(folder: Path, *, positions: int = 8192) -> None:
    """Write a GPT-2 with one token a byte, and its chat template, in the format of transformers."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocab = {character: place for place, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([*ANSWER, *RANKING])
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
        leads = {
            LETTER: AT_LETTER,
            JSON: AT_JSON,
            RANKED: AT_RANKED,
            GRADE: AT_GRADE,
            ANSWER[0]: AT_ANSWER,
            RANKING[0]: AT_RANKING,
        }
        for name, dimension in leads.items():
            inputs[ids[name]] = 0.0
            inputs[ids[name], dimension] = 1.0
        outputs[:, AT_LETTER : AT_OTHERS + 1] = -4.0
        outputs[ids["A"], AT_LETTER], outputs[ids["B"], AT_LETTER] = LOGIT_A, LOGIT_B
        for grade, logit in LOGITS_OF_GRADES.items():
            outputs[ids[grade], AT_GRADE] = logit
        followers = {
            AT_JSON: ANSWER[0],
            AT_ANSWER: ANSWER[1],
            AT_RANKED: RANKING[0],
            AT_RANKING: RANKING[1],
            AT_OTHERS: END,
        }
        for dimension, token in followers.items():
            outputs[ids[token], dimension] = 4.0
    model.save_pretrained(folder)
