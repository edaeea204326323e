"""Bases of embedding students that differ from a transformer with mean pooling, and what counts as a negative of a query."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling

from labeling.records import Trained, TrainingData
from tests.factories.lessons import Report, make_data, make_options
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from trainer.bases import UnsupportedBase, cross_encoder, load_base
from trainer.instructions import InstructionTooLong
from trainer.serving.embedding import LoadedEmbedder
from trainer.training.adapters import TargetsUnknown
from trainer.training.embedding.bi_encoder import BiEncoder, TokensDiffer, chunks, load_bi_encoder, padded_tokens
from trainer.training.embedding.course import compared_rows, lesson_loss
from trainer.training.embedding.lessons import Lesson
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.plugin import Embedding
from trainer.training.pointwise import Pointwise
from trainer.training.truncation import fit_texts

pytestmark = pytest.mark.usefixtures("all_models_allowed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_embedder(tmp_path_factory.mktemp("embedder"))


def saved_with(base: Path, folder: Path, *modules: Any, **options: Any) -> str:
    """The base with other modules behind its transformer, or with prompts."""
    found = SentenceTransformer(str(base), device="cpu")
    every = [found[0], *(modules or list(found)[1:])]
    SentenceTransformer(modules=every, device="cpu", **options).save_pretrained(str(folder), create_model_card=False)
    return str(folder)


def learn(base: Path | str, workspace: Path, **changes: Any) -> Trained:
    workspace.mkdir()
    small: dict[str, Any] = {"base": str(base), "precision": "fp32", "rank": 4, "threads": 1, "epochs": 1}
    return Embedding(EmbeddingOptions.model_validate(small | changes)).train(make_data(6), workspace, Report())


def test_a_base_whose_embeddings_have_another_size_than_its_tokens_compares_lists_alone(
    base: Path, tmp_path: Path
) -> None:
    dense = saved_with(base, tmp_path / "dense", Pooling(32, pooling_mode="mean"), Dense(32, 8))
    with pytest.raises(TokensDiffer, match="token vectors of 32 numbers and embeddings of 8"):
        learn(dense, tmp_path / "tokens", token_similarity=True)
    trained = learn(dense, tmp_path / "lists", list_similarity=True)
    assert (trained.embedding_sizes, trained.token_weight) == ((8,), 0.0)


def test_a_base_that_leaves_its_prompts_out_is_refused(base: Path, tmp_path: Path) -> None:
    prompts = {"query": "about bread: "}
    without = Pooling(32, pooling_mode="mean", include_prompt=False)
    with pytest.raises(UnsupportedBase, match="include_prompt is false"):
        learn(saved_with(base, tmp_path / "out", without, prompts=prompts), tmp_path / "w")
    kept = load_bi_encoder(load_base(saved_with(base, tmp_path / "in", prompts=prompts)))
    assert kept.prompts["query"] == "about bread: "


@pytest.mark.parametrize("targets", ["nonsense", "LayerNorm", "query, valeu"])
def test_targets_that_cannot_be_adapted_are_named_with_those_that_can(base: Path, tmp_path: Path, targets: str) -> None:
    with pytest.raises(TargetsUnknown, match="query, key, value, dense"):
        learn(base, tmp_path / "w", targets=targets)


def test_special_tokens_that_a_text_spells_are_text_in_training_as_they_are_when_served(base: Path) -> None:
    spelled, broken = "pond [SEP] water [CLS]", "pond [ SEP] water [ CLS]"
    options = EmbeddingOptions(base=str(base), precision="fp32", rank=4, threads=1)
    model = BiEncoder(load_base(str(base)), options).eval()
    found = model.encode([spelled, broken], "document", most=2, max_length=64).numpy()
    served = LoadedEmbedder(SentenceTransformer(str(base), device="cpu"), name="base").vectors([spelled])
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(served[0], abs=1e-5)
    fitted = fit_texts(cross_encoder(load_base(str(base)), device="cpu"), ["[SEP]"], [spelled], max_length=64)
    assert (list(fitted.queries), list(fitted.documents)) == (["[ SEP]"], [broken])


def test_an_instruction_of_dev_queries_that_leaves_no_room_is_named_too(base: Path, tmp_path: Path) -> None:
    data = make_data(6)
    told = ["one", "two"] * (len(data.train) // 2)
    long = replace(data.dev, instructions=["water " * 40] * len(data.dev))
    data = TrainingData(replace(data.train, instructions=told), long)
    with pytest.raises(InstructionTooLong, match="at most 64 tokens of instruction and query"):
        Embedding(EmbeddingOptions(base=str(base), precision="fp32", threads=1)).train(data, tmp_path, Report())
    with pytest.raises(InstructionTooLong, match="at most 32 tokens of instruction and query"):
        Pointwise(make_options(base, max_length=64)).train(data, tmp_path, Report())


def lesson(query: int, *documents: int) -> Lesson:
    """A query and candidates of one token each; the first candidate has the highest Elo."""
    tokens = [{"input_ids": torch.tensor([number])} for number in (query, *documents)]
    elo = 1500.0 - 100.0 * torch.arange(len(documents), dtype=torch.float32)
    return Lesson(tokens[0], tokens[1:], elo, 1.0, torch.zeros(0))


def test_no_candidate_of_a_query_is_a_negative_of_the_same_query(base: Path) -> None:
    first, other, again = lesson(1, 10, 11, 12), lesson(2, 10, 13), lesson(1, 14, 15)
    assert compared_rows([first, other, again]).int().tolist() == [
        [1, 1, 1, 0, 1, 0, 0],  # 10 is its own best candidate, 14 and 15 are candidates of the same query
        [0, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 1, 1, 1, 1],
    ]
    options = EmbeddingOptions(base=str(base), precision="fp32", rank=4, threads=1, pull=0.0)
    model = BiEncoder(load_base(str(base)), options)
    vectors = torch.nn.functional.normalize(torch.randn(7, 32, generator=torch.manual_seed(0)), dim=-1)
    vectors[5] = vectors[1]  # the text that both queries have

    def gradient(*lessons: Lesson) -> torch.Tensor:
        own = vectors[: sum(1 + len(each.documents) for each in lessons)].clone().requires_grad_()
        lesson_loss(model, lessons, own, options, elo_scale=50.0).backward()
        assert own.grad is not None
        return own.grad

    shared = gradient(first, lesson(2, 10, 11))
    alone = options.model_copy(update={"in_batch_negatives": False})
    rows = vectors.clone().requires_grad_()
    lesson_loss(model, [first, lesson(2, 10, 11)], rows, alone, elo_scale=50.0).backward()
    assert rows.grad is not None
    assert torch.allclose(shared[0], rows.grad[0], atol=1e-6), "the other query has no text that is new to the first"
    assert not torch.allclose(shared[4], rows.grad[4], atol=1e-3), "the first has one that is new to the other"


@pytest.mark.parametrize("most", [1, 3, 7])
@pytest.mark.parametrize("overhead", [0, 10, 100])
def test_batches_cost_as_little_as_any_division_by_length(most: int, overhead: int) -> None:
    lengths = [12, 64, 3, 30, 31, 12, 5]
    ordered = sorted(lengths, reverse=True)
    costs = []
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        bounds = [0, *(at for at, cut in enumerate(cuts, 1) if cut), len(lengths)]
        parts = [ordered[begin:end] for begin, end in itertools.pairwise(bounds)]
        if max(map(len, parts)) <= most:
            costs.append(sum(len(part) * part[0] + overhead for part in parts))

    batches = list(chunks(lengths, most, overhead=overhead))

    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert max(map(len, batches)) <= most
    padded = padded_tokens(lengths, most, overhead=overhead)
    assert padded + overhead * len(batches) == min(costs)


def test_no_texts_make_no_batch() -> None:
    assert list(chunks([], 4, overhead=100)) == []
