"""Which instructions students read, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labeling.records import Examples, TrainingData
from labeling.retrieval.query_instruction import instruction_of, with_instruction
from trainer.instructions import InstructionTooLong, check_instructions, told_data
from trainer.serving.protocols import RerankRefused, read_request
from trainer.serving.score_protocol import read_score_request
from trainer.training.options import LoRAOptions


def rows(instructions: list[str]) -> Examples:
    """Two rows for each instruction, which is the query's."""
    count = len(instructions)
    return Examples(
        queries=[f"q{at}" for at in range(count) for _ in range(2)],
        documents=[f"d{at}" for at in range(2 * count)],
        labels=np.tile([0.2, 0.8], count),
        weights=np.ones(2 * count),
        query_ids=np.repeat(np.arange(count), 2),
        instructions=[each for each in instructions for _ in range(2)],
    )


def told(texts: list[str], **options: Any) -> tuple[Examples, Examples, bool]:
    data, reads = told_data(TrainingData(rows(texts), rows(texts)), LoRAOptions(**options))
    return data.train, data.dev, reads


def test_a_query_has_its_own_instruction_or_the_projects() -> None:
    assert instruction_of(" own ", "project") == "own"
    assert [instruction_of(each, "project") for each in (None, "", "  ", 3)] == ["project"] * 4
    assert with_instruction("q", " Cheap ones. ") == "Cheap ones.\nq"
    assert with_instruction("q", " ") == "q"


def test_one_instruction_for_all_queries_is_not_learned_by_default() -> None:
    train, _, reads = told(["same"] * 20)
    assert not reads
    assert set(train.queries) == {f"q{at}" for at in range(20)}
    assert told(["same"] * 20, instructions="always")[2]
    assert not told(["", "", ""], instructions="always")[2]
    assert not told(["one", "two"] * 10, instructions="never")[2]


def test_a_share_of_queries_is_shown_without_and_dev_always_with() -> None:
    train, dev, reads = told(["cheap", "fast"] * 100, without_instruction=0.25)
    assert reads
    without = [query for query in train.queries if "\n" not in query]
    assert 0.15 < len(without) / len(train.queries) < 0.35
    assert all(train.queries[at] == train.queries[at + 1] for at in range(0, len(train.queries), 2))
    assert all(query.split("\n")[0] in ("cheap", "fast") for query in dev.queries)


def test_too_long_an_instruction_is_named() -> None:
    class Words:
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": list(range(len(text.split())))}

    check_instructions(Words(), rows(["a b c d", "a"]), longest=8, base="minilm")
    with pytest.raises(
        InstructionTooLong, match=r"has 5 tokens, and base 'minilm' here reads at most 8 .*larger max_length"
    ):
        check_instructions(Words(), rows(["a b c d e", "a"]), longest=8, base="minilm")


def test_requests_carry_an_instruction() -> None:
    body = {"query": "q", "documents": ["a"], "instruction": "Only cheap ones."}
    asked = read_request("/v1/rerank", body)
    assert (asked.instruction, asked.warnings) == ("Only cheap ones.", ())
    scored = read_score_request({"text_1": "q", "text_2": ["a"], "instruction": "Only cheap ones."})
    assert (scored.instruction, scored.warnings) == ("Only cheap ones.", ())
    with pytest.raises(RerankRefused, match="instruction is a list"):
        read_request("/v1/rerank", {**body, "instruction": ["a"]})
