"""Turns a comparison into the messages for a language model: cleaned, truncated, fenced, hashed.

The texts are files in `prompts/`; their hash is part of a judge's provenance. The judges `openai-http` and
`transformers-local` use it; imports no Django.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import os
import re
import secrets
import string
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from labeling.annotation.criteria import Criterion
from labeling.records import Comparison
from labeling.retrieval.model_names import check_model
from workers.judges.examples import WorkedExample, examples_for

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROMPTS = Path(__file__).parent / "prompts"
AnswerForm = Literal["letter", "score", "score_or_neither", "ranking", "criteria"]

# Forms whose answer is a reasoning and one score.
SCORED = ("score", "score_or_neither")

BYTES_PER_TOKEN = 4
EXAMPLE_TOKENS = 256  # the most of each text of a worked example
MOST_CHARACTERS_PER_TOKEN = 64
HUB_TIMEOUT_S = 20.0

# C0 and C1 controls but tab and newline, lone surrogates, bidirectional overrides, invisible tag letters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
_ROLE_TOKEN = re.compile(
    r"<\|[^|<>\n]{1,64}\|>"  # Qwen, Llama 3, Phi, GPT
    "|<\uff5c[^\uff5c<>\n]{1,64}\uff5c>"  # DeepSeek, with full-width bars
    r"|</?s>|\[/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|<</?SYS>>"  # Mistral, Llama 2
    r"|<(?:start|end)_of_(?:turn|image)>|<(?:bos|eos|pad|unk)>"  # Gemma
    r"|</?think>|</?tool_call>|</?tool_response>",
    re.IGNORECASE,
)

# A secret of this process, so that no document can contain a predicted fence.
_PROCESS_SECRET = secrets.token_bytes(32)

Cutter = Callable[[str, int], tuple[str, bool]]
"""(text, most tokens) -> (the part that is kept, whether anything was cut)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt. Prompts that are equal up to the end of the first document have the same `prefix_key`; `documents`: how many it
    shows.
    """

    system: str
    user: str
    truncated: bool
    prefix_key: str
    documents: int = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """The most tokens of each document and of the query."""

    document_tokens: int
    query_tokens: int


def build_prompt(
    comparison: Comparison,
    *,
    form: AnswerForm,
    limits: Limits,
    cut: Cutter,
    examples: Sequence[WorkedExample] = (),
    criteria: Sequence[Criterion] = (),
) -> Prompt:
    """The prompt of one comparison in its order of presentation: A is the document presented first. Examples about a query
    of the comparison are left out; `criteria` are those that the form `criteria` asks about.

    The nonce of the fences is drawn from a secret of this process and from what is presented first, so
    that pairs with a common first document share a prefix that servers can cache.
    """
    query_first, query_second = comparison.query_a, comparison.query_b
    if comparison.swapped:
        query_first, query_second = query_second, query_first
    queries = [cut(clean(query.text), limits.query_tokens) for query in (query_first, query_second)]
    documents = [cut(clean(each.text), limits.document_tokens) for each in (comparison.first, comparison.second)]
    instruction = clean(comparison.instruction).strip()
    shown = [_cut_example(example, limits, cut) for example in examples_for(comparison, examples)]
    parts = [instruction, str(comparison.cross_query), queries[0][0], documents[0][0]]
    prefix_key = hashlib.sha256("\x00".join(parts).encode()).hexdigest()
    others = [text for example in shown for text in (example.query, example.first, example.second, example.why)]
    nonce = nonce_for(prefix_key, [*others, *(text for text, _ in (*queries, *documents))])
    user = _template("two_queries" if comparison.cross_query else "one_query").substitute(
        instruction=f"Instruction of this project: {instruction}\n\n" if instruction else "",
        nonce=nonce,
        query_first=queries[0][0],
        query_second=queries[1][0],
        first=documents[0][0],
        second=documents[1][0],
    )
    return Prompt(
        system=_file("system"),
        user=f"{_shown_examples(shown, form, nonce)}{user}{_answer_form(form, criteria)}".rstrip(),
        truncated=any(was_cut for _, was_cut in (*queries, *documents)),
        prefix_key=prefix_key,
    )


def _answer_form(form: AnswerForm, criteria: Sequence[Criterion]) -> str:
    if form != "criteria":
        return _file(f"answer_{form}")
    lines = [f"- {each.name}: {clean(each.description)}" if each.description else f"- {each.name}" for each in criteria]
    shape = ", ".join(f"{json.dumps(each.name, ensure_ascii=False)}: a number from -1 to 1" for each in criteria)
    return _template("answer_criteria").substitute(criteria="\n".join(lines), shape=shape)


def _cut_example(example: WorkedExample, limits: Limits, cut: Cutter) -> WorkedExample:
    most = min(EXAMPLE_TOKENS, limits.document_tokens)
    texts = {name: cut(clean(getattr(example, name)), most)[0] for name in ("query", "first", "second", "why")}
    return example.model_copy(update=texts)


def _shown_examples(examples: Sequence[WorkedExample], form: AnswerForm, nonce: str) -> str:
    if not examples:
        return ""
    blocks = [
        _template("example").substitute(
            nonce=nonce,
            query=example.query,
            first=example.first,
            second=example.second,
            note=f"Note: {example.why}\n" if example.why and form not in SCORED else "",
            answer=_example_answer(example, form),
        )
        for example in examples
    ]
    return "\n".join([_file("examples"), *blocks, ""])


def _example_answer(example: WorkedExample, form: AnswerForm) -> str:
    if form == "letter":
        return example.label
    if form == "criteria":  # people compared the documents as a whole
        return f"Document {example.label} is the more relevant."
    why = example.why or f"Document {example.label} serves the query better."
    answer: dict[str, object] = {"reasoning": why, "score": round(2.0 * example.preference - 1.0, 2)}
    return json.dumps(answer | ({"neither": False} if form == "score_or_neither" else {}), ensure_ascii=False)


def frame_of(
    instruction: str,
    form: AnswerForm,
    examples: Sequence[WorkedExample] = (),
    criteria: Sequence[Criterion] = (),
) -> str:
    """All of a prompt but its query and documents; examples are not cut."""
    user = _template("one_query").substitute(
        instruction=f"Instruction of this project: {clean(instruction).strip()}\n\n" if instruction.strip() else "",
        nonce="0" * 16, query_first="", query_second="", first="", second="",
    )  # fmt: skip
    return f"{_file('system')}\n{_shown_examples(examples, form, '0' * 16)}{user}{_answer_form(form, criteria)}"


def prompt_hash(form: AnswerForm, *, examples: bool = False) -> str:
    """SHA-256 (hex) over the files that make up the prompts of this form of answer, with or without examples."""
    names = ["system", "one_query", "two_queries", f"answer_{form}", *(["examples", "example"] if examples else [])]
    return hashlib.sha256("\x00".join(_file(name) for name in names).encode()).hexdigest()


def clean(text: str) -> str:
    """The text without control characters and without special tokens of chat templates.

    Each is replaced by a space, because deleting it could join the text around it into another special token.
    """
    return _ROLE_TOKEN.sub(" ", _CONTROL.sub(" ", text.replace("\r\n", "\n")))


def cut_by_bytes(text: str, most_tokens: int) -> tuple[str, bool]:
    """Truncate without a tokenizer, counting four bytes of UTF-8 as one token.

    This is about right for English and code; for Chinese or Japanese (three bytes per character) it
    keeps up to a third more tokens than the limit, so lower the limit or name a tokenizer.
    """
    encoded = text.encode()
    most_bytes = most_tokens * BYTES_PER_TOKEN
    if len(encoded) <= most_bytes:
        return text, False
    return encoded[:most_bytes].decode(errors="ignore"), True


def approximate_tokens(text: str) -> int:
    """Number of tokens by the rule of `cut_by_bytes`."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def cutter_of(tokenizer: str) -> Cutter:
    """A cutter that counts with a tokenizer.json: a folder, a file, the bundled model or a name on the hub; "" counts bytes."""
    if not tokenizer:
        return cut_by_bytes
    return _tokenizer_cutter(tokenizer)


def local_tokenizer(name: str) -> str:
    """The path of a tokenizer's file that is on this machine, "" for one that would have to be downloaded."""
    from huggingface_hub import try_to_load_from_cache

    from labeling.retrieval.embedder import embedder_location

    if not name:
        return ""
    path = Path(embedder_location(check_model(name)))  # the bundled model is in no cache of the hub
    path = path / "tokenizer.json" if path.is_dir() else path
    if path.is_file():
        return str(path)
    try:
        cached = try_to_load_from_cache(name, "tokenizer.json")
    except ValueError:  # no name that the hub could have
        return ""
    return cached if isinstance(cached, str) else ""


def counter_of(tokenizer: str) -> Callable[[str], int]:
    """A function that counts the tokens of a text as `cutter_of` does."""
    if not tokenizer:
        return approximate_tokens
    loaded = _tokenizer(tokenizer)
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


@functools.lru_cache(maxsize=4)
def _tokenizer_cutter(name: str) -> Cutter:
    tokenizer = _tokenizer(name)
    return cutter_by_offsets(lambda text: [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets])


@functools.lru_cache(maxsize=4)
def _tokenizer(name: str) -> Tokenizer:
    from tokenizers import Tokenizer  # the small library; transformers takes seconds to import

    tokenizer = Tokenizer.from_file(local_tokenizer(name) or _downloaded(name))
    tokenizer.no_truncation()
    return tokenizer


class TokenizerUnavailable(RuntimeError):
    """A tokenizer is not on this machine and its hub did not deliver it."""


def _downloaded(name: str) -> str:
    """The path of the hub's file, within HUB_TIMEOUT_S: where packets are dropped, the hub's client retries for minutes.

    Raises TokenizerUnavailable.
    """
    from huggingface_hub import hf_hub_download

    found: list[str] = []
    reasons: list[str] = []

    def download() -> None:
        try:
            found.append(hf_hub_download(name, "tokenizer.json"))
        except Exception as error:
            reasons.append(str(error).strip().split("\n")[0][:200] or type(error).__name__)

    thread = threading.Thread(target=download, name="tokenizer-download", daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    if found:
        return found[0]
    reason = reasons[0] if reasons else f"the hub did not answer within {HUB_TIMEOUT_S:g} s"
    raise TokenizerUnavailable(
        f"the tokenizer {name!r} is not on this machine ({reason}); name a folder with its tokenizer.json, "
        "or leave the judge's option `tokenizer` empty"
    )


def cutter_by_offsets(ends: Callable[[str], list[int]]) -> Cutter:
    """A cutter from a function that returns the end position in characters of each token of a text."""

    def cut(text: str, most_tokens: int) -> tuple[str, bool]:
        kept = text[: most_tokens * MOST_CHARACTERS_PER_TOKEN]  # a text of megabytes is not tokenised to its end
        ends_of_tokens = ends(kept)
        if len(ends_of_tokens) > most_tokens:
            kept = kept[: ends_of_tokens[most_tokens - 1]]
        return kept, len(kept) < len(text)

    return cut


def nonce_for(prefix_key: str, texts: list[str]) -> str:
    """Sixteen hexadecimal digits that occur in none of the texts."""
    for attempt in range(16):
        message = f"{os.getpid()}:{attempt}:{prefix_key}".encode()
        nonce = hmac.new(_PROCESS_SECRET, message, hashlib.sha256).hexdigest()[:16]
        if not any(nonce in text for text in texts):
            return nonce
    return secrets.token_hex(32)


@functools.cache
def _file(name: str) -> str:
    return (PROMPTS / f"{name}.txt").read_text(encoding="utf-8")


@functools.cache
def _template(name: str) -> string.Template:
    return string.Template(_file(name))
