"""Fine-tuning: it learns, repeats itself to the bit, goes on exactly, and says what went wrong. Tiny random models."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.cross_encoder.losses import MSELoss

from labeling.plugin_checks import check_plugin
from labeling.records import Examples, Trained, TrainingData
from tests.factories.lessons import Report, make_data, make_examples, make_options, write_rows
from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3
from trainer.bases import MINILM, BaseMissing, cross_encoder, load_base
from trainer.examples import EmptySnapshot, load_training_data
from trainer.training import fine_tuning
from trainer.training.adapters import attach_adapter, attend_in_float32, set_dropout
from trainer.training.checkpoints import CheckpointBroken, PickleRefused, last_checkpoint
from trainer.training.dev_ndcg import LossNotFinite, dev_ndcg, some_queries, with_an_order
from trainer.training.losses.squared_error import SquaredError
from trainer.training.memory import OutOfMemory
from trainer.training.pointwise import Pointwise
from trainer.training.truncation import TooShort, fit_texts

NO_EXAMPLES = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_qwen3(tmp_path_factory.mktemp("qwen3"))


def learn(
    base: Path | str, workspace: Path, *, data: TrainingData | None = None, **options: Any
) -> tuple[Trained, Report]:
    workspace.mkdir(exist_ok=True)
    told = Report()
    return Pointwise(make_options(base, **options)).train(data or make_data(), workspace, told), told


def weights_of(trained: Trained) -> dict[str, torch.Tensor]:
    return load_file(str(trained.adapter / "adapter_model.safetensors"))


def assert_equal(first: Trained, second: Trained) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_plugin_keeps_its_contract() -> None:
    assert check_plugin(Pointwise) == []


def test_the_loss_without_weights_is_the_librarys(bert: Path) -> None:
    model = cross_encoder(load_base(str(bert)), max_length=64, device="cpu").eval()
    examples = make_examples(2)
    texts = [list(examples.queries), list(examples.documents)]
    ours = SquaredError(model)(texts, [torch.tensor([label, 1.0]) for label in examples.labels])
    theirs = MSELoss(model, activation_fn=torch.nn.Sigmoid())(texts, torch.tensor(examples.labels))
    assert torch.allclose(ours, theirs.to(ours.dtype), rtol=1e-6)


def test_a_weight_of_two_is_a_row_that_stands_twice(bert: Path) -> None:
    model = cross_encoder(load_base(str(bert)), max_length=64, device="cpu").eval()
    once = SquaredError(model)([["a", "b"], ["x y", "z"]], [torch.tensor([0.9, 2.0]), torch.tensor([0.1, 1.0])])
    label = [torch.tensor([0.9, 1.0])] * 2 + [torch.tensor([0.1, 1.0])]
    twice = SquaredError(model)([["a", "a", "b"], ["x y", "x y", "z"]], label)
    assert torch.allclose(2 * once, 3 * twice, rtol=1e-5)


def test_it_learns_and_keeps_the_best_adapter(tmp_path: Path) -> None:
    data = make_data(24)
    trained, told = learn(
        MINILM, tmp_path / "w", data=data, rank=16, batch_size=16, epochs=2, eval_steps=9, max_length=32
    )
    looks = [each["ndcg"] for each in told.of("evaluated")]
    assert max(looks) > looks[0] + 0.05
    assert trained.facts["dev_ndcg@10"] == max(looks)
    model = cross_encoder(load_base(MINILM), max_length=32, device="cpu")
    model.model.load_adapter(str(trained.adapter))
    cut = fit_texts(model, data.dev.queries, data.dev.documents, max_length=32)
    dev = dataclasses.replace(data.dev, queries=cut.queries, documents=cut.documents)
    assert dev_ndcg(model, dev, batch_size=64) == pytest.approx(max(looks), abs=1e-6)


def learned_model(monkeypatch: pytest.MonkeyPatch, base: Path, workspace: Path, **options: Any) -> Any:
    """The model that a training worked on, as it left it."""
    seen: list[Any] = []
    monkeypatch.setattr(
        fine_tuning, "attach_adapter", lambda model, *rest: seen.append(model) or attach_adapter(model, *rest)
    )
    learn(base, workspace, max_steps=2, **options)
    return seen[-1].train()


def logits_of(model: Any) -> torch.Tensor:
    texts = model.preprocess([("goldfish", "a pond with water"), ("bread and its oven", "x")])
    with torch.no_grad():
        scores: torch.Tensor = model(texts)["scores"]
    return scores.view(-1).float()


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_dropout_is_what_was_chosen_not_what_the_base_was_pretrained_with(
    kind: str, share: float, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = learned_model(monkeypatch, request.getfixturevalue(kind), tmp_path / "w", dropout=share)
    assert torch.equal(logits_of(model), logits_of(model)) == (share == 0.0)


@pytest.mark.parametrize(("pretrained", "expected"), [(0, 0.3), (0.1, 0.3), (False, False), (None, None)])
def test_dropout_of_attention_is_set_where_it_is_a_number(pretrained: object, expected: object) -> None:
    attention = torch.nn.Module()
    attention.attention_dropout = pretrained  # type: ignore[assignment]
    set_dropout(attention, 0.3)
    assert attention.attention_dropout == expected


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_attention_in_float32_is_the_same_attention(kind: str, request: pytest.FixtureRequest) -> None:
    model = cross_encoder(load_base(str(request.getfixturevalue(kind))), max_length=64, device="cpu").eval()
    expected = logits_of(model)
    attend_in_float32(model.model)
    assert torch.allclose(logits_of(model), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_bf16_on_a_cpu_leaves_attention_in_float32(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: dict[str, set[torch.dtype]] = {"attention": set(), "linear": set()}
    attend, multiply = torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.linear

    def attention(query: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        result: torch.Tensor = attend(query, *rest, **more)
        kinds["attention"].add(result.dtype)
        return result

    def linear(*arguments: Any) -> torch.Tensor:
        result: torch.Tensor = multiply(*arguments)
        kinds["linear"].add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    learn(request.getfixturevalue(kind), tmp_path / "w", precision="bf16", max_steps=2)
    assert kinds == {"attention": {torch.float32}, "linear": {torch.bfloat16}}


@pytest.mark.parametrize("kind", ["bert", pytest.param("qwen", marks=pytest.mark.long)])
def test_the_same_seed_gives_the_same_adapter(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(kind)
    first, _ = learn(base, tmp_path / "first", dropout=0.1, epochs=1)
    second, _ = learn(base, tmp_path / "second", dropout=0.1, epochs=1)
    other, _ = learn(base, tmp_path / "other", dropout=0.1, epochs=1, seed=1)
    assert_equal(first, second)
    assert any(not torch.equal(weights_of(first)[name], each) for name, each in weights_of(other).items())


@pytest.mark.parametrize(
    "step", [pytest.param(5, marks=pytest.mark.long), 12, pytest.param(20, marks=pytest.mark.long)]
)  # within an epoch, at its end, in the second one
def test_it_goes_on_exactly(qwen: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"dropout": 0.1, "patience": 0, "eval_steps": step}
    whole, _ = learn(qwen, tmp_path / "whole", **options)
    finish = fine_tuning.checkpoints.finish_checkpoint

    def die(*args: Any, **state: Any) -> Path:
        finish(*args, **state)
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tuning.checkpoints, "finish_checkpoint", die)
    with pytest.raises(KeyboardInterrupt):
        learn(qwen, tmp_path / "broken", **options)
    monkeypatch.undo()
    torch.manual_seed(99)
    resumed, told = learn(qwen, tmp_path / "broken", **options)
    assert told.of("resumed") == [{"step": step}]
    assert_equal(whole, resumed)
    assert whole.facts["dev_ndcg@10"] == resumed.facts["dev_ndcg@10"]


@pytest.mark.parametrize(("epochs", "max_steps", "expected"), [(1, 500, 12), (3, 4, 4), (1, 0, 12)])
def test_epochs_or_steps_whichever_ends_first(
    bert: Path, tmp_path: Path, epochs: int, max_steps: int, expected: int
) -> None:
    trained, told = learn(bert, tmp_path / "w", epochs=epochs, max_steps=max_steps)
    assert trained.facts["steps"] == expected
    assert {each["steps"] for each in told.of("step")} == {expected}  # what the bar and the time left go by
    assert told.of("step")[-1]["step"] == expected
    assert told.of("step")[-1]["eta_s"] == 0


def test_a_finished_training_is_not_repeated(bert: Path, tmp_path: Path) -> None:
    first, _ = learn(bert, tmp_path / "w", epochs=1)
    again, told = learn(bert, tmp_path / "w", epochs=1)
    assert not told.of("step")
    assert_equal(first, again)


def test_it_stops_where_nothing_gets_better(bert: Path, tmp_path: Path) -> None:
    _, told = learn(bert, tmp_path / "w", data=make_data(8, dev=6), learning_rate=1e-9, patience=2, eval_steps=2)
    assert [each["step"] for each in told.of("evaluated")] == [0, 2, 4]


def test_where_a_fresh_head_ranks_best_untrained_there_is_nothing_to_publish(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter((0.9, *[0.1] * 50))
    monkeypatch.setattr(fine_tuning, "dev_ndcg", lambda *_, **__: next(values))
    trained, _ = learn(bert, tmp_path / "many", data=make_data(8, dev=6))
    assert trained.facts["best_step"] == 0 and trained.base_won
    values = iter((0.9, 0.1, 0.2, *[0.1] * 50))
    few, told = learn(bert, tmp_path / "few", data=make_data(8, dev=2))
    assert not few.base_won and few.facts["best_step"] == told.of("evaluated")[2]["step"], "by chance on two queries"
    assert few.facts["dev_ndcg@10"] == 0.2


def test_without_a_dev_split_the_last_adapter_stays(bert: Path, tmp_path: Path) -> None:
    data = make_data(8)
    alone = TrainingData(data.train, NO_EXAMPLES)
    trained, told = learn(bert, tmp_path / "w", data=alone, epochs=1)
    assert not told.of("evaluated")
    assert trained.facts["dev_ndcg@10"] is None
    assert weights_of(trained)


@pytest.mark.parametrize("documents", [1, 3])
def test_dev_queries_without_an_order_choose_no_checkpoint(bert: Path, tmp_path: Path, documents: int) -> None:
    data, dev = make_data(8), make_examples(4, documents=documents)
    equal = dataclasses.replace(dev, labels=np.full(len(dev), 0.7))
    trained, told = learn(bert, tmp_path / "w", data=TrainingData(data.train, equal), epochs=1, patience=1)
    assert not told.of("evaluated") and not trained.base_won
    assert trained.facts["steps"] == told.of("step")[-1]["steps"], "nothing stops it early"
    one = dataclasses.replace(equal, labels=np.where(dev.query_ids == dev.query_ids[0], dev.labels, 0.7))
    assert set(with_an_order(one).query_ids.tolist()) <= {int(dev.query_ids[0])}


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (3, 3, 2), (1, 7)])
def test_the_parts_of_a_step_learn_what_the_whole_step_would(bert: Path, sizes: tuple[int, ...]) -> None:
    model = cross_encoder(load_base(str(bert)), max_length=64, device="cpu").eval()
    examples = make_examples(2, documents=4)
    rows = list(zip(examples.queries, examples.documents, examples.labels, strict=True))
    loss = SquaredError(model)

    def gradient(parts: list[list[tuple[str, str, float]]]) -> torch.Tensor:
        model.zero_grad()
        loss.rows_a_part = len(rows) / len(parts)
        for part in parts:
            texts = [[query for query, _, _ in part], [document for _, document, _ in part]]
            (loss(texts, [torch.tensor([label, 1.5]) for _, _, label in part]) / len(parts)).backward()
        return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])

    bounds = np.cumsum((0, *sizes)).tolist()
    whole, cut = gradient([rows]), gradient([rows[a:b] for a, b in itertools.pairwise(bounds)])
    assert torch.allclose(whole, cut, rtol=1e-4, atol=1e-7)


def test_where_memory_runs_out_the_batch_is_halved_and_said(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"patience": 0, "epochs": 1, "batch_size": 10}  # the last of ten steps has six rows
    roomy, before = learn(qwen, tmp_path / "roomy", **options)
    forward = SquaredError.forward

    def cramped(self: Any, inputs: Any, labels: Any, **rest: Any) -> Any:
        if len(labels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return forward(self, inputs, labels, **rest)

    monkeypatch.setattr(SquaredError, "forward", cramped)
    tight, told = learn(qwen, tmp_path / "tight", **options)
    assert [(each["batch_size"], each["accumulation"]) for each in told.of("out_of_memory")] == [(5, 2), (3, 4)]
    assert tight.facts["batch_size"] == 3
    # Adam makes whole steps of the smallest gradients, whose sign is rounding: losses stay equal, such weights do not.
    assert [each["loss"] for each in told.of("step")] == pytest.approx(
        [each["loss"] for each in before.of("step")], rel=1e-4
    )
    for name, weights in weights_of(roomy).items():
        assert (weights - weights_of(tight)[name]).abs().mean() < 1e-3, name


def test_where_not_one_row_fits_it_says_what_would_help(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **rest: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(SquaredError, "forward", full)
    with pytest.raises(OutOfMemory, match="choose a shorter max_length"):
        learn(bert, tmp_path / "w", batch_size=2)


def test_a_loss_that_is_no_number_ends_it_with_a_remedy(bert: Path, tmp_path: Path) -> None:
    data = make_data()
    labels = data.train.labels.copy()
    labels[3] = np.nan
    broken = Examples(data.train.queries, data.train.documents, labels, data.train.weights, data.train.query_ids)
    with pytest.raises(LossNotFinite, match="a smaller learning_rate"):
        learn(bert, tmp_path / "w", data=TrainingData(broken, data.dev), eval_steps=50)
    assert last_checkpoint(tmp_path / "w" / "checkpoints") is None


def test_a_checkpoint_with_a_pickle_in_it_is_refused(bert: Path, tmp_path: Path) -> None:
    learn(bert, tmp_path / "w", epochs=1)
    found = last_checkpoint(tmp_path / "w" / "checkpoints")
    assert found is not None
    (found / "optimizer.pt").write_bytes(b"anything")
    with pytest.raises(PickleRefused, match=r"optimizer\.pt"):
        learn(bert, tmp_path / "w", epochs=2)


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_that_is_damaged_is_refused_with_a_remedy(bert: Path, tmp_path: Path, file: str) -> None:
    learn(bert, tmp_path / "w", epochs=1)
    found = last_checkpoint(tmp_path / "w" / "checkpoints")
    assert found is not None
    state = json.loads((found / "state.json").read_text())
    state["course"]["stopped"] = False  # as one that is to go on
    (found / "state.json").write_text("{" if file == "state.json" else json.dumps(state))
    if file != "state.json":
        tensors = load_file(found / file)
        name = next(name for name, each in tensors.items() if each.ndim)
        tensors[name].view(-1)[0] = float("nan")
        save_file(tensors, found / file)
    with pytest.raises(CheckpointBroken, match="remove this folder and resume"):
        learn(bert, tmp_path / "w", epochs=2, patience=0)


def test_weights_that_are_no_numbers_are_never_written(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(8)

    def spoiled(self: Any, step: int) -> None:
        next(each for each in self.model.parameters() if each.requires_grad).data.fill_(float("nan"))

    monkeypatch.setattr(fine_tuning._LoraTrainer, "look", spoiled)
    with pytest.raises(LossNotFinite, match="a weight at step 5"):
        learn(bert, tmp_path / "w", data=TrainingData(data.train, NO_EXAMPLES))
    assert last_checkpoint(tmp_path / "w" / "checkpoints") is None


def test_a_head_is_learned_in_float32_where_the_base_is_bfloat16(bert: Path) -> None:
    base = load_base(str(bert))
    model = cross_encoder(base, max_length=64, device="cpu", dtype="bfloat16")
    adapted = attach_adapter(model, base, make_options(bert))
    learned = {name: each for name, each in adapted.named_parameters() if each.requires_grad}
    assert any("classifier" in name for name in learned)
    assert {each.dtype for each in learned.values()} == {torch.float32}
    assert {each.dtype for each in adapted.parameters() if not each.requires_grad} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        SquaredError(model)([["a"], ["b c"]], [torch.tensor([0.9, 1.0])]).backward()
    assert all(each.grad is not None and each.grad.dtype == torch.float32 for each in learned.values())


def test_nothing_that_is_written_is_a_pickle(bert: Path, tmp_path: Path) -> None:
    learn(bert, tmp_path / "w", epochs=1)
    kinds = {path.suffix for path in (tmp_path / "w").rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_a_base_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BaseMissing):
        learn(tmp_path / "nowhere", tmp_path / "w")


def test_long_documents_are_cut_and_counted(bert: Path, tmp_path: Path) -> None:
    data = make_data(8)
    long = [*data.train.documents[:-2], "carp " * 500, "pond " * 500]
    cut = Examples(data.train.queries, long, data.train.labels, data.train.weights, data.train.query_ids)
    _, told = learn(bert, tmp_path / "w", data=TrainingData(cut, data.dev), epochs=1, max_length=64)
    assert told.of("prepared")[0]["cut_rows"] == 2
    assert told.of("prepared")[0]["longest"] <= 64


@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_what_is_cut_fits_and_keeps_the_query_and_the_prompts_end(kind: str, request: pytest.FixtureRequest) -> None:
    model = cross_encoder(load_base(str(request.getfixturevalue(kind))), max_length=120, device="cpu")
    queries = ["goldfish " * 5, "goldfish " * 200, "carp"]
    documents = ["water bread " * 100, "pond", "short"]
    fitted = fit_texts(model, queries, documents, max_length=120)
    assert fitted.cut == 2
    assert (fitted.queries[0], fitted.queries[2], fitted.documents[1:]) == (queries[0], "carp", ["pond", "short"])
    for query, document, length in zip(fitted.queries, fitted.documents, fitted.lengths, strict=True):
        ids = model.preprocess([(query, document)])["input_ids"][0].tolist()
        assert length - 6 <= len(ids) <= length <= 120
    ends = [
        model.preprocess([pair])["input_ids"][0].tolist()[-1]
        for pair in zip(fitted.queries, fitted.documents, strict=True)
    ]
    assert len(set(ends)) == 1


def test_a_length_without_room_for_a_document_is_refused(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(TooShort, match="expected at least"):
        learn(qwen, tmp_path / "w", max_length=16)


def test_the_dev_split_is_thinned_by_whole_queries() -> None:
    examples = make_examples(5, documents=4)
    assert len(some_queries(examples, 11)) == 8
    assert len(some_queries(examples, 3)) == 4
    assert some_queries(examples, 20) is examples
    many = dataclasses.replace(make_examples(50, documents=4), instructions=[f"prefer {at}" for at in range(200)])
    some = some_queries(many, 83)
    assert (
        (len(some), len(set(some.query_ids.tolist()))) == (80, 20)
        and max(some.query_ids) > 40
        and min(some.query_ids) < 10
    )
    of_first = np.flatnonzero(many.query_ids == some.query_ids[0])
    assert list(some.documents[:4]) == [many.documents[at] for at in of_first]
    assert list(some.instructions[:4]) == [many.instructions[at] for at in of_first]
    assert (np.diff(some.query_ids) >= 0).all() and list(some.documents) == list(some_queries(many, 83).documents)


def test_a_snapshot_without_training_rows_is_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", TrainingData(NO_EXAMPLES, make_examples(1)))
    with pytest.raises(EmptySnapshot):
        load_training_data(tmp_path / "rows.parquet")
    data = make_data(3, dev=1)
    write_rows(tmp_path / "rows.parquet", data)
    read = load_training_data(tmp_path / "rows.parquet")
    assert read.train.documents == data.train.documents
    assert (read.dev.labels == data.dev.labels).all()
