"""The choice of worked examples: by coverage, notes first, both answers in turn."""

from __future__ import annotations

import numpy as np

from workers.jobs.teaching.choice import choose_examples
from workers.judges.examples import WorkedExample

TOPICS = {"fish": "carp pond gill water", "tax": "levy income audit return", "rust": "crate borrow trait compile"}


def example(query_id: int, topic: str, *, preference: float = 0.9, why: str = "") -> WorkedExample:
    text = TOPICS[topic]
    return WorkedExample(
        query_id=query_id, query=f"about {topic}", first=text, second="else", preference=preference, why=why
    )


def test_choice_covers_every_topic_before_it_repeats_one() -> None:
    known = [example(number, topic) for number, topic in enumerate(["fish"] * 8 + ["tax"] * 3 + ["rust"])]
    chosen = choose_examples(known, 3, rng=np.random.default_rng(0))
    assert {each.query for each in chosen} == {"about fish", "about tax", "about rust"}
    assert [each.label for each in chosen] == ["A", "B", "A"]
    assert len({each.query_id for each in choose_examples(known, 12, rng=np.random.default_rng(0))}) == 12


def test_choice_follows_the_texts_to_be_covered_and_prefers_notes() -> None:
    known = [example(1, "fish"), example(2, "tax"), example(3, "tax", why="Cites the law."), example(4, "rust")]
    chosen = choose_examples(known, 1, like=["income levy", "audit of an income"], rng=np.random.default_rng(0))
    assert [each.query_id for each in chosen] == [3]
    assert choose_examples([], 3, rng=np.random.default_rng(0)) == []
