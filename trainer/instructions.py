"""Puts instructions before the training queries, where the rows have several. Imports no Django.

A text that stands before every query teaches nothing and takes room, so by default instructions are only learned if they differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from labeling.records import Examples, TrainingData
from labeling.retrieval.query_instruction import with_instruction
from trainer.training.options import LoRAOptions

OTHERWISE = ", or choose a larger max_length, a base that reads more, or instructions: never"


class InstructionTooLong(ValueError):
    """An instruction leaves no room for the query."""


def told_data(data: TrainingData, options: LoRAOptions) -> tuple[TrainingData, bool]:
    """The rows with instructions before their queries, and whether the student learns to read them.

    A share `without_instruction` of the training queries keeps its text alone; the dev rows have all instructions.
    """
    if not learns(data.train, options):
        return replace(data, train=replace(data.train, instructions=()), dev=replace(data.dev, instructions=())), False
    rng = np.random.default_rng([options.seed, 5])
    queries = np.unique(data.train.query_ids)
    without = set(queries[rng.random(len(queries)) < options.without_instruction].tolist())
    return replace(data, train=_told(data.train, without), dev=_told(data.dev, set())), True


def learns(train: Examples, options: LoRAOptions) -> bool:
    """Whether the student reads instructions: as the option says, or where the training rows have more than one."""
    found = {each.strip() for each in train.instructions} - {""}
    return bool(found) and (options.instructions == "always" or (options.instructions == "auto" and len(found) > 1))


def check_instruction(tokens: int, *, longest: int, what: str, otherwise: str = "") -> None:
    """Raise InstructionTooLong unless `tokens` of an instruction are at most half of the `longest` query in tokens.

    `otherwise` names what else can be changed.
    """
    if tokens > longest // 2:
        raise InstructionTooLong(
            f"the instruction has {tokens:,} tokens, and {what} reads at most {longest:,} tokens of instruction and query; "
            f"shorten the instruction to {longest // 2:,} tokens{otherwise}"
        )


def check_instructions(tokenizer: Any, *parts: Examples, longest: int, base: str) -> None:
    """Raise InstructionTooLong for an instruction of the rows that is too long; a query keeps `longest` tokens."""
    for each in {text.strip() for rows in parts for text in rows.instructions} - {""}:
        tokens = len(tokenizer(each, add_special_tokens=False, truncation=False)["input_ids"])
        check_instruction(tokens, longest=longest, what=f"base {base!r} here", otherwise=OTHERWISE)


def _told(rows: Examples, without: set[int]) -> Examples:
    if not rows.instructions:
        return rows
    texts = [
        query if number in without else with_instruction(query, instruction)
        for query, instruction, number in zip(rows.queries, rows.instructions, rows.query_ids.tolist(), strict=True)
    ]
    return replace(rows, queries=texts)
