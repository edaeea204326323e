"""Writes the tiny chat model as GGUF. A script of its own: it runs in the environment of the server, which has `gguf`.

Usage: python tiny_gguf.py WEIGHTS.npz TOKENS.json MODEL.gguf. The JSON holds {"tokens": [...], "special": [...], "plain": [...], "template", "end"}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def write(weights: str, tokens: str, out: str) -> None:
    """Write a GPT-2 of one layer and its tokenizer."""
    import gguf  # type: ignore[import-not-found, unused-ignore]
    import numpy as np

    arrays, told = np.load(weights), json.loads(Path(tokens).read_text(encoding="utf-8"))
    width, positions = arrays["transformer.wte.weight"].shape[1], arrays["transformer.wpe.weight"].shape[0]
    writer = gguf.GGUFWriter(out, "gpt2")
    writer.add_context_length(positions)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(4 * width)
    writer.add_head_count(1)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(told["tokens"])
    kinds = [3 if each in told["special"] else 4 if each in told["plain"] else 1 for each in told["tokens"]]
    writer.add_token_types(kinds)
    # The format needs merges; this one joins two characters into a token that exists.
    writer.add_token_merges(["Ġ Ġ"])
    end = told["tokens"].index(told["end"])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(told["template"])
    names = {
        "token_embd.weight": "transformer.wte.weight", "position_embd.weight": "transformer.wpe.weight",
        "output_norm.weight": "transformer.ln_f.weight", "output_norm.bias": "transformer.ln_f.bias", "output.weight": "lm_head.weight",
    }  # fmt: skip
    parts = {"attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc",
             "ffn_down": "mlp.c_proj"}  # fmt: skip
    for name, theirs in parts.items():
        for kind in ("weight", "bias"):
            names[f"blk.0.{name}.{kind}"] = f"transformer.h.0.{theirs}.{kind}"
    for name, theirs in names.items():
        array = arrays[theirs].astype(np.float32)
        is_turned = ".c_" in theirs and theirs.endswith("weight")  # GPT-2 stores them input first
        writer.add_tensor(name, np.ascontiguousarray(array.T if is_turned else array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(*sys.argv[1:4])
