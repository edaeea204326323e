"""Builds prompts about a set of documents, each under a letter; the counterpart of `prompting` for more than two.

The judge `setwise` uses it; imports no Django.
"""

from __future__ import annotations

import functools
import hashlib
import string
from pathlib import Path
from typing import Literal

from labeling.records import Comparison
from workers.judges.prompting import PROMPTS, Cutter, Limits, Prompt, clean, nonce_for

SetForm = Literal["set_letter", "ranking"]

LETTERS = string.ascii_uppercase
# More letters than this do not fit into the twenty alternatives of most endpoints.
MOST_DOCUMENTS = 16


def build_set_prompt(comparison: Comparison, *, form: SetForm, limits: Limits, cut: Cutter) -> Prompt:
    """The prompt of one question within a query: its documents under A, B, C, ... in the order in which they are shown."""
    query, query_cut = cut(clean(comparison.query_a.text), limits.query_tokens)
    texts = [cut(clean(each.text), limits.document_tokens) for each in comparison.shown]
    instruction = clean(comparison.instruction).strip()
    prefix_key = hashlib.sha256("\x00".join(["set", instruction, query, texts[0][0]]).encode()).hexdigest()
    nonce = nonce_for(prefix_key, [query, *(text for text, _ in texts)])
    block = _template("set_document")
    documents = [
        block.substitute(label=label, nonce=nonce, text=text) for label, (text, _) in zip(LETTERS, texts, strict=False)
    ]
    user = _template("set_query").substitute(
        instruction=f"Instruction of this project: {instruction}\n\n" if instruction else "",
        nonce=nonce,
        query=query,
        documents="".join(documents),
        count=len(texts),
    )
    return Prompt(
        system=read_prompt("system_set"),
        user=f"{user}{read_prompt(f'answer_{form}')}".rstrip(),
        truncated=query_cut or any(was_cut for _, was_cut in texts),
        prefix_key=prefix_key,
        documents=len(texts),
    )


def set_frame_of(instruction: str, form: SetForm, count: int) -> str:
    """All of a prompt about so many documents but its query and their texts."""
    block = _template("set_document")
    documents = "".join(block.substitute(label=label, nonce="0" * 16, text="") for label in LETTERS[:count])
    instruction = clean(instruction).strip()
    user = _template("set_query").substitute(
        instruction=f"Instruction of this project: {instruction}\n\n" if instruction else "",
        nonce="0" * 16, query="", documents=documents, count=count,
    )  # fmt: skip
    return f"{read_prompt('system_set')}\n{user}{read_prompt(f'answer_{form}')}"


def set_prompt_hash(form: SetForm) -> str:
    """SHA-256 (hex) over the files that make up these prompts."""
    names = ["system_set", "set_query", "set_document", f"answer_{form}"]
    return hashlib.sha256("\x00".join(read_prompt(name) for name in names).encode()).hexdigest()


@functools.cache
def read_prompt(name: str) -> str:
    """The text of a file in `prompts/`."""
    return Path(PROMPTS / f"{name}.txt").read_text(encoding="utf-8")


@functools.cache
def _template(name: str) -> string.Template:
    return string.Template(read_prompt(name))
