"""Token sequences of a query with two documents, for encoders and for decoders; training and judging use the same.

Encoders read `[CLS] query [SEP] first [SEP] second [SEP]` (duoBERT: Nogueira et al., arXiv 1910.14424); decoders read a
prompt whose next token is A or B. A text's tokens do not depend on the document beside it, so that sequences with the same
query and first document share a prefix. Imports no Django.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.bases import Base, UnsupportedBase

Kind = Literal["encoder", "decoder"]

LEAST_DOCUMENT = 4
QUERY_SHARE = 4  # the query may take one part in four of the room
TEXTS_KEPT = 50_000
LONGEST_TEXT = 64  # characters a token that are tokenised at most: a text of megabytes is not read to its end
_MARK = "zelo-7f3a-content"
_ASK = "Which document serves the query better, A or B? Reply with one letter."
_LABELS = ("A", "B")


class InstructionTooLong(ValueError):
    """The instruction leaves no room for the query and the documents."""


@dataclass(frozen=True, slots=True)
class PairTokens:
    """One sequence: its `ids`, and where the second document's part begins; `cut`: whether a text was truncated."""

    ids: list[int]
    second_at: int
    cut: bool


class PairReader:
    """Turns texts into `PairTokens` of at most `max_length` tokens. Raises UnsupportedBase."""

    reads_instruction = True  # False for a student that was trained without

    def __init__(self, tokenizer: Any, kind: Kind, *, max_length: int, name: str) -> None:
        self.kind, self.max_length, self._tokenizer, self._name = kind, max_length, tokenizer, name
        self._known: dict[tuple[str, int], tuple[list[int], bool]] = {}
        self._special = special_pattern(tokenizer)
        self._parts = self._encoder_parts() if kind == "encoder" else self._decoder_parts()
        self.label_ids = tuple(self._label(each) for each in _LABELS) if kind == "decoder" else ()

    def tokens(self, *, instruction: str, query: str, first: str, second: str) -> PairTokens:
        """The sequence that shows `first` first. Raises InstructionTooLong."""
        before, after_instruction, after_query, between, end = self._parts
        room = self.max_length - sum(map(len, self._parts))
        reads = self.reads_instruction and instruction.strip()
        told, _ = self._ids(instruction, room + 1) if reads else ([], False)
        if 2 * len(told) > room:
            raise InstructionTooLong(
                f"the instruction has more than {room // 2} tokens, and base {self._name!r} reads at most {self.max_length} tokens "
                "of instruction, query and both documents; shorten the instruction, or choose a larger max_length, a base that "
                "reads more, or instructions: never"
            )
        room -= len(told)
        asked, query_cut = self._ids(query, max(1, room // QUERY_SHARE))
        most = (room - len(asked)) // 2
        shown = [self._ids(text, most) for text in (first, second)]
        head = [*before, *told, *(after_instruction if told else ()), *asked, *after_query, *shown[0][0], *between]
        ids = [*head, *shown[1][0], *end]
        return PairTokens(ids, len(head), query_cut or shown[0][1] or shown[1][1])

    def _ids(self, text: str, most: int) -> tuple[list[int], bool]:
        """The first `most` tokens of a text without special tokens, and whether it was cut."""
        key = (text, most)
        if key not in self._known:
            if len(self._known) >= TEXTS_KEPT:
                self._known.clear()
            kept = text[: LONGEST_TEXT * most]
            ids = self._encoded(plain_text(kept, self._special))
            self._known[key] = (ids[:most], len(ids) > most or len(kept) < len(text))
        return self._known[key]

    def _encoded(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _encoder_parts(self) -> tuple[list[int], ...]:
        start, separator = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        if start is None or separator is None:
            raise UnsupportedBase(
                f"base {self._name!r}: its tokenizer has no tokens that start a sequence and separate texts, so it cannot read two "
                "documents; choose an encoder such as minilm, or a decoder (architecture ...ForCausalLM)"
            )
        parts: tuple[list[int], ...] = ([start], [separator], [separator], [separator], [separator])
        return self._roomy(parts)

    def _decoder_parts(self) -> tuple[list[int], ...]:
        head, tail = self._frame()
        return self._roomy(
            (
                self._encoded(f"{head}{_ASK}\n\n"),
                self._encoded("\n\n"),
                self._encoded("\n\nDocument A:\n"),
                self._encoded("\n\nDocument B:\n"),
                self._encoded(f"\n\nAnswer:{tail}"),
            )
        )

    def _frame(self) -> tuple[str, str]:
        """The chat template's text before and after a message of the user; plain text where it shows none."""
        tokenizer = self._tokenizer
        if not tokenizer.chat_template:
            return tokenizer.bos_token or "", ""
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception:  # templates raise any exception, for instance on unknown roles
            text = ""
        head, found, tail = text.partition(_MARK)
        return (head, tail) if found else (tokenizer.bos_token or "", "")

    def _roomy(self, parts: tuple[list[int], ...]) -> tuple[list[int], ...]:
        around = sum(map(len, parts))
        least = around + 4 * LEAST_DOCUMENT
        if self.max_length < least:
            raise UnsupportedBase(
                f"base {self._name!r} reads at most {self.max_length} tokens here, and every pair has {around} tokens besides its "
                f"texts; expected at least {least}; choose a larger max_length or a base that reads more"
            )
        return parts

    def _label(self, label: str) -> int:
        for text in (label, f" {label}"):
            ids = self._encoded(text)
            if len(ids) == 1 and ids[0] != self._tokenizer.unk_token_id:
                return int(ids[0])
        raise UnsupportedBase(
            f"base {self._name!r}: its tokenizer has no single token for {label!r}, so the answer cannot be read; choose another "
            "decoder"
        )


def special_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches the tokenizer's special tokens, which no text may contain."""
    special = sorted({*tokenizer.all_special_tokens, *_added(tokenizer)}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, special))) if special else None


def plain_text(text: str, special: re.Pattern[str] | None) -> str:
    """The text with a blank in the place of each special token."""
    return special.sub(" ", text) if special else text


def _added(tokenizer: Any) -> Sequence[str]:
    return [str(each.content) for each in getattr(tokenizer, "added_tokens_decoder", {}).values() if each.special]


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows in batches of similar length, longest first: rows times the longest is at most `batch_tokens`, or one row."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    at = 0
    while at < len(order):
        count = max(1, batch_tokens // max(1, lengths[order[at]]))
        yield order[at : at + count]
        at += count


def reads_segments(config: Any) -> bool:
    """Whether the encoder tells the second text from the first by its token types."""
    return int(getattr(config, "type_vocab_size", 0) or 0) > 1


def length_of(base: Base, max_length: int, tokenizer: Any) -> int:
    """The tokens that base and options allow."""
    own = int(getattr(tokenizer, "model_max_length", 0) or 0)
    limits = (max_length, base.max_length, own if 0 < own < 10**9 and not base.max_length else None)
    return min(filter(None, limits))
