"""The bound on tokens holds for real tokenizers: byte-pair encodings trained here, a real vocabulary, hostile text."""

from __future__ import annotations

import inspect
import json
import random
import textwrap
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from workers.runs.text_sizes import most_tokens, token_rate

PROSE = [
    textwrap.dedent(inspect.getdoc(each) or "") for each in (json, random, textwrap, inspect, str, dict, list, int)
]
GERMAN = (Path(__file__).parents[3] / "locale/de/LC_MESSAGES/django.po").read_text(encoding="utf-8")
SOURCES = [inspect.getsource(module) for module in (json, random, textwrap, inspect)]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """A byte-level encoding of 8,000 tokens, a quarter of what the smallest language models have."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator([*SOURCES[:3], GERMAN], trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet))
    return made


@pytest.mark.parametrize(
    "text",
    [
        *PROSE,
        SOURCES[3][:20_000],  # code that it was not trained on
        "Aufsichtsratsvorsitzendenwahl in Großstädten über 100.000 Einwohner " * 20,
        "金魚はどのように呼吸しますか。" * 20,
        "как дышит золотая рыбка? " * 20,
        "🐟🐠 €42.17 — 3.14159265358979" * 10,
        "user_id=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "\n\n\t  \n a  b   c\n",
    ],
)
def test_no_tokenizer_needs_more(bpe: Tokenizer, text: str) -> None:
    assert len(bpe.encode(text).ids) <= most_tokens(text)


def test_bound_of_prose_is_prose_is_no_more_than_twice_what_is_expected() -> None:
    text = " ".join(PROSE)
    assert len(text) / 4 < most_tokens(text) < 0.6 * len(text)


def test_a_named_tokenizer_is_counted_with(bpe: Tokenizer, tmp_path: Path) -> None:
    path = str(tmp_path / "tokenizer.json")
    bpe.save(path)
    rate = token_rate(PROSE, path)
    tokens = sum(len(bpe.encode(text).ids) for text in PROSE)
    assert rate.expected == pytest.approx(tokens / sum(len(text.encode()) for text in PROSE))
    assert rate.expected <= rate.most < 1.0
    assert token_rate([], "").most == 1.0
