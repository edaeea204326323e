"""Special tokens that a text spells stay text, in whatever way a tokenizer declares them."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trainer.serving.plain_text import PlainText, shortened


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words and signs as tokens, with separators of RoBERTa and Llama, one of them found in lowercased text."""
    words = ["[UNK]", "a", "b", "<", ">", "/", "s", "|", "sep", "[", "]"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", bos_token="<s>", eos_token="</s>")
    wrapped.add_special_tokens({"additional_special_tokens": ["<|sep|>", AddedToken("[Sep]", normalized=True)]})  # type: ignore[dict-item]
    wrapped.add_tokens(["b/b"])
    return wrapped


@pytest.mark.parametrize(
    "text", ["</s></s>", "a<s>b", "<|sep|>", "<<s>s>", "[SEP] a [sep]", "</s", "[UNK]</s><|sep|>a", "a b/b"]
)
def test_no_spelled_token_is_read_as_one(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    special = set(tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<|sep|>", "[Sep]"]))
    plain = PlainText(tokenizer)(text)
    assert not special & set(tokenizer(plain, add_special_tokens=False)["input_ids"])
    assert plain.replace(" ", "") == text.replace(" ", "")


def test_texts_without_one_stay_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    read = PlainText(tokenizer)
    for text in ("a b/b", "< s >", "", "<S>", "<|SEP|>"):
        assert read(text) == text
    assert read("</s></s>") == "< /s>< /s>"


def test_a_text_is_shortened_to_whole_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert shortened(tokenizer, "a b  a", 2) == "a b"
    assert shortened(tokenizer, "a b", 2) == "a b" and shortened(tokenizer, "", 1) == ""
    assert shortened(tokenizer, "a" * 50 + " b a", 2) == "a" * 50 + " b", "a token longer than most"
