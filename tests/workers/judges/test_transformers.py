"""The local judge on a tiny random Qwen3 with a tiny tokenizer, both made here; the oracle is a plain pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from labeling.plugin_checks import check_plugin
from labeling.plugins import get_plugin
from labeling.records import Comparison, Failure, FailureKind, TextRecord, Verdict
from workers.endpoints.failures import NotAsked
from workers.judges.prompting import Limits, build_prompt
from workers.judges.transformers.judge import (
    LabelsMissing,
    TransformersJudge,
    cutter_of_tokenizer,
    label_ids_of,
    model_revision,
    token_ids_of,
)
from workers.judges.transformers.next_token import common_prefix, next_token_log_probabilities, plan_batches

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# system #}"
)
WORDS = ["goldfish", "pond", "carp", "bread", "oven", "Answer A", "Document B", "query", "relevant", "water"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as the hub has them: weights, config, tokenizer, chat template."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        initializer_range=0.3,  # far from uniform, so that a wrong position shows
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def judge_with(folder: Path) -> Callable[..., TransformersJudge]:
    def build(**options: Any) -> TransformersJudge:
        defaults = {"model": str(folder), "device": "cpu", "min_label_mass": 0.0, "batch_tokens": 4096}
        judge = TransformersJudge.from_dict(defaults | options)
        assert isinstance(judge, TransformersJudge)
        judge.prepare(None)  # type: ignore[arg-type]  # this judge does not look at the collection
        return judge

    return build


def plain(model: Any, sequence: list[int]) -> torch.Tensor:
    """log P of every token after one sequence, by itself: no batch, no padding, no cache."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1].log_softmax(-1)


def random_sequences(seed: int, prefixes: int, each: int) -> tuple[list[list[int]], list[str]]:
    """Sequences of many lengths, `each` for every one of some prefixes, in mixed order."""
    generator = torch.Generator().manual_seed(seed)

    def draw(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most, (1,), generator=generator))
        return torch.randint(3, 300, (length,), generator=generator).tolist()

    rows = []
    for number in range(prefixes):
        prefix = draw(20, 60)
        rows += [(prefix + draw(1, 40), str(number)) for _ in range(each)]
    order = torch.randperm(len(rows), generator=generator).tolist()
    return [rows[i][0] for i in order], [rows[i][1] for i in order]


# --- the engine --------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("batch_tokens", [1, 250, 100_000])
def test_every_batch_equals_a_plain_pass(model: Any, padding: Any, shared: bool, batch_tokens: int) -> None:
    sequences, keys = random_sequences(seed=1, prefixes=4, each=3)
    found = next_token_log_probabilities(
        model,
        sequences,
        range(model.config.vocab_size),
        keys=keys if shared else None,
        padding=padding,
        batch_tokens=batch_tokens,
    ).log_probabilities
    expected = torch.stack([plain(model, sequence) for sequence in sequences])
    assert (found - expected).abs().max() < 1e-5
    assert expected.std() > 0.5  # the oracle tells tokens apart


def test_equal_sequences_share_all_but_the_last_token(model: Any) -> None:
    sequence = list(range(10, 60))
    found = next_token_log_probabilities(model, [sequence] * 3, [5], keys=["same"] * 3).log_probabilities
    assert found[:, 0].tolist() == pytest.approx([plain(model, sequence)[5].item()] * 3, abs=1e-5)
    assert common_prefix([sequence] * 3) == 49


def test_keys_that_promise_too_much_do_no_harm(model: Any) -> None:
    sequences = [[7] * 30, [8] * 30, [7] * 20 + [9] * 4]
    found = next_token_log_probabilities(model, sequences, [5], keys=["same"] * 3).log_probabilities
    assert found[:, 0].tolist() == pytest.approx([plain(model, each)[5].item() for each in sequences], abs=1e-5)


def test_plan_holds_every_sequence_once_within_the_bound() -> None:
    sequences, keys = random_sequences(seed=2, prefixes=6, each=5)
    batches = plan_batches(sequences, keys, batch_tokens=400)
    assert sorted(row.index for batch in batches for row in batch.rows) == list(range(30))
    for batch in batches:
        whole = [[*(batch.prefixes[row.prefix] if row.prefix >= 0 else []), *row.suffix] for row in batch.rows]
        assert whole == [sequences[row.index] for row in batch.rows]
        assert len(whole) == 1 or len(whole) * max(map(len, whole)) <= 400
    passes = sum(len(prefix) for batch in batches for prefix in batch.prefixes)
    passes += sum(len(row.suffix) for batch in batches for row in batch.rows)
    assert passes < sum(map(len, sequences))


class SmallMemory:
    """A model whose device holds only so many rows."""

    def __init__(self, model: Any, most_rows: int) -> None:
        self.model, self.most_rows = model, most_rows
        self.config, self.device = model.config, model.device

    def __call__(self, **arguments: Any) -> Any:
        if arguments["input_ids"].shape[0] > self.most_rows:
            raise torch.OutOfMemoryError("too many rows")
        return self.model(**arguments)


def test_batches_are_halved_where_memory_ends(model: Any) -> None:
    sequences, keys = random_sequences(seed=3, prefixes=3, each=4)
    found = next_token_log_probabilities(SmallMemory(model, 2), sequences, [5], keys=keys, batch_tokens=10_000)
    expected = [plain(model, sequence)[5].item() for sequence in sequences]
    assert found.log_probabilities[:, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert not found.out_of_memory
    none_fits = next_token_log_probabilities(SmallMemory(model, 0), sequences, [5])
    assert none_fits.out_of_memory == set(range(12))
    assert none_fits.log_probabilities.isnan().all()


def test_no_pass_begins_after_the_deadline(model: Any) -> None:
    found = next_token_log_probabilities(model, [[5, 6], [7]], [5], deadline=0.0)
    assert found.out_of_time == {0, 1}


# --- the judge ---------------------------------------------------------------------------

numbers = itertools.count(1)


def comparison(a: str = "a carp", b: str = "an oven", *, query_b: str = "", swapped: bool = False) -> Comparison:
    query = TextRecord(1, "goldfish in a pond")
    other = TextRecord(2, query_b) if query_b else query
    return Comparison(next(numbers), query, other, TextRecord(3, a), TextRecord(4, b), swapped=swapped)


def questions() -> list[Comparison]:
    """A graph of pairs with common first documents, in both orders, and a cross-query pair."""
    documents = [f"{word} " * (3 + 5 * i) for i, word in enumerate(WORDS[:5])]
    pairs = [
        comparison(a, b, swapped=swapped) for a, b in itertools.combinations(documents, 2) for swapped in (False, True)
    ]
    return [*pairs, comparison(query_b="bread from an oven")]


def expected_preference(judge: TransformersJudge, model: Any, question: Comparison) -> float:
    assert judge._loaded is not None
    tokenizer = judge._loaded.tokenizer
    prompt = build_prompt(question, form="letter", limits=Limits(1024, 512), cut=cutter_of_tokenizer(tokenizer))
    row = plain(model, token_ids_of(tokenizer, prompt))
    a, b = (sum(math.exp(row[i]) for i in label_ids_of(tokenizer, label)) for label in "AB")
    return question.preference_of_a(a / (a + b))


def test_judge_keeps_the_contract_of_its_kind(folder: Path) -> None:
    assert check_plugin(TransformersJudge, options={"model": str(folder)}) == []


def test_judge_comes_by_the_registry() -> None:
    assert get_plugin("judge", "transformers-local") is TransformersJudge


@pytest.mark.parametrize("padding", ["left", "right"])
def test_verdicts_equal_plain_passes(judge_with: Callable[..., TransformersJudge], model: Any, padding: str) -> None:
    judge = judge_with(padding=padding)
    asked = questions()
    answers = judge.judge(asked)
    preferences = [answer.preference for answer in answers if isinstance(answer, Verdict)]
    assert preferences == pytest.approx([expected_preference(judge, model, each) for each in asked], abs=1e-5)
    assert len(set(preferences)) == len(asked)
    assert all(answer.usage.input_tokens > 100 for answer in answers)


def test_sharing_prefixes_changes_no_verdict(judge_with: Callable[..., TransformersJudge]) -> None:
    asked = questions()
    shared, whole = (judge_with(share_prefix=share).judge(asked) for share in (True, False))
    assert [answer.preference for answer in shared if isinstance(answer, Verdict)] == pytest.approx(
        [answer.preference for answer in whole if isinstance(answer, Verdict)], abs=1e-5
    )


def test_model_that_says_something_else_gives_no_vote(judge_with: Callable[..., TransformersJudge]) -> None:
    answer = judge_with(min_label_mass=0.8).judge([comparison()])[0]
    assert isinstance(answer, Failure)
    assert (answer.kind, answer.retryable) == (FailureKind.LABEL_MASS, False)


def test_numbers_that_overflow_give_no_vote(judge_with: Callable[..., TransformersJudge]) -> None:
    judge = judge_with()
    assert judge._loaded is not None
    with torch.no_grad():
        judge._loaded.model.lm_head.weight.fill_(float("nan"))
    answer = judge.judge([comparison()])[0]
    assert isinstance(answer, Failure) and answer.kind is FailureKind.LABEL_MASS


def test_prompt_beyond_the_context_is_an_overflow_and_leaves_the_rest(
    judge_with: Callable[..., TransformersJudge],
) -> None:
    judge = judge_with(max_document_tokens=100_000)
    long, short = judge.judge([comparison("pond " * 4000), comparison()])
    assert isinstance(long, Failure) and long.kind is FailureKind.CONTEXT_OVERFLOW and not long.retryable
    assert isinstance(short, Verdict)


def test_documents_are_cut_in_the_models_own_tokens(judge_with: Callable[..., TransformersJudge]) -> None:
    judge = judge_with(max_document_tokens=6)
    assert judge._loaded is not None
    tokenizer = judge._loaded.tokenizer
    cut, was_cut = cutter_of_tokenizer(tokenizer)("goldfish pond carp bread oven water water", 6)
    assert was_cut and len(tokenizer.encode(cut, add_special_tokens=False)) == 6
    first, second = judge.judge([comparison("carp", "pond"), comparison("carp", "pond " * 50)])
    assert isinstance(first, Verdict) and isinstance(second, Verdict)
    assert (first.truncated, second.truncated) == (False, True)


def test_batch_that_takes_too_long_leaves_the_rest_unasked(judge_with: Callable[..., TransformersJudge]) -> None:
    answers = judge_with(batch_deadline_s=1e-9).judge([comparison(), comparison()])
    assert all(isinstance(answer, NotAsked) and answer.retryable for answer in answers)


def test_bfloat16_agrees_roughly(judge_with: Callable[..., TransformersJudge]) -> None:
    asked = questions()
    exact = [answer.preference for answer in judge_with().judge(asked) if isinstance(answer, Verdict)]
    half = [answer.preference for answer in judge_with(dtype="bfloat16").judge(asked) if isinstance(answer, Verdict)]
    assert half == pytest.approx(exact, abs=0.1)


def test_prompt_without_a_chat_template_ends_where_the_answer_begins(
    judge_with: Callable[..., TransformersJudge],
) -> None:
    judge = judge_with()
    assert judge._loaded is not None
    tokenizer = judge._loaded.tokenizer
    prompt = build_prompt(comparison(), form="letter", limits=Limits(64, 64), cut=cutter_of_tokenizer(tokenizer))
    assert tokenizer.decode(token_ids_of(tokenizer, prompt)).endswith("<|im_end|>\n<|im_start|>assistant\n")
    tokenizer.chat_template = None
    assert tokenizer.decode(token_ids_of(tokenizer, prompt)).endswith("\n\nAnswer:")


def test_label_that_is_no_single_token_is_refused(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert len(label_ids_of(tokenizer, "A")) == 2  # "A" and " A"
    with pytest.raises(LabelsMissing, match="Zebra"):
        label_ids_of(tokenizer, "Zebra")


def test_revision_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    assert model_revision("org/name", "abc123") == "org/name@abc123"
    (tmp_path / "model.safetensors").write_bytes(b"one")
    one = model_revision(str(tmp_path), "")
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert model_revision(str(tmp_path), "") != one
    assert model_revision(str(folder), "").startswith("sha256:")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(judge_with: Callable[..., TransformersJudge]) -> None:
    asked = questions()
    cpu, cuda = (judge_with(device=device, dtype="float32").judge(asked) for device in ("cpu", "cuda"))
    assert [answer.preference for answer in cuda if isinstance(answer, Verdict)] == pytest.approx(
        [answer.preference for answer in cpu if isinstance(answer, Verdict)], abs=1e-3
    )
