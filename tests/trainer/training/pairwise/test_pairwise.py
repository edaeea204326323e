"""The pairwise student: what it reads, that it learns, resumes and is published as it was measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit
from transformers import AutoModelForSequenceClassification

from labeling.plugin_checks import check_plugin
from labeling.records import PairExamples, Trained, TrainingData
from tests.factories.lessons import Report
from tests.factories.students.pair_lessons import make_pair_data, make_pairs, write_pair_workspace
from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3
from trainer.bases import UnsupportedBase, load_base
from trainer.publishing import pairwise_export
from trainer.publishing.export import ModelCard, ParityFailed
from trainer.publishing.manifests import MERGED, ManifestBroken, verify
from trainer.publishing.pairwise_export import publish_pairwise
from trainer.serving.published import load_published
from trainer.training import process
from trainer.training.losses.elo import NoPreferences
from trainer.training.pairwise.figures import (
    CHANCE,
    by_query,
    calibration_error,
    cross_entropies,
    cyclic,
    entropies,
    figures,
    symmetric,
    triples_of,
)
from trainer.training.pairwise.gate import result_of
from trainer.training.pairwise.held_out import judged
from trainer.training.pairwise.inputs import InstructionTooLong
from trainer.training.pairwise.options import PairwiseOptions
from trainer.training.pairwise.plugin import Pairwise
from trainer.training.pairwise.student import PairStudent, both_orders

pytestmark = pytest.mark.usefixtures("all_models_allowed")


@pytest.fixture(scope="module", params=["bert", "qwen"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return save_tiny_bert(folder) if request.param == "bert" else save_tiny_qwen3(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder"))


def options(base: Path | str, **changes: Any) -> PairwiseOptions:
    small: dict[str, Any] = {
        "base": str(base), "precision": "fp32", "rank": 8, "threads": 1, "epochs": 8, "learning_rate": 5e-3, "max_length": 128,
        "eval_steps": 18, "batch_size": 8, "patience": 0,
    }  # fmt: skip
    return PairwiseOptions.model_validate(small | changes)


def learn(
    base: Path | str, workspace: Path, data: TrainingData | None = None, **changes: Any
) -> tuple[Trained, Report]:
    workspace.mkdir(exist_ok=True)
    told = Report()
    return Pairwise(options(base, **changes)).train(data or make_pair_data(), workspace, told), told


def student_of(base: Path, **changes: Any) -> PairStudent:
    return PairStudent.of_base(load_base(str(base)), dtype="float32", device="cpu", **{"max_length": 128, **changes})


def test_the_plugin_keeps_its_contract() -> None:
    assert check_plugin(Pairwise) == []


def test_it_learns_the_panels_preference_and_keeps_the_checkpoint_of_the_lowest_log_loss(
    base: Path, tmp_path: Path
) -> None:
    trained, told = learn(base, tmp_path / "w")
    curve = [(each["step"], each["log_loss"]) for each in told.of("evaluated")]
    assert curve[0][0] == 0
    assert trained.facts["dev_log_loss"] == min(value for _, value in curve) < min(curve[0][1], CHANCE) - 0.02
    assert trained.facts["best_step"] == min(curve, key=lambda each: each[1])[0] and not trained.base_won
    assert trained.form == "pairwise"
    (prepared,) = told.of("prepared")
    assert (prepared["rows"], prepared["dev_rows"]) == (144, 36)


def test_sequences_show_both_documents_in_both_orders_and_share_a_prefix(base: Path) -> None:
    student = student_of(base)
    pairs = make_pairs(1, pairs=1, instruction="prefer fresh water")
    first, second = both_orders(student.reader, pairs, [0])
    for each, (one, other) in ((first, (pairs.a[0], pairs.b[0])), (second, (pairs.b[0], pairs.a[0]))):
        text = student.tokenizer.decode(each.ids).lower()
        places = [text.index(part) for part in ("prefer fresh water", pairs.queries[0], one, other)]
        assert places == sorted(places)
    beside = student.reader.tokens(
        instruction="prefer fresh water", query=pairs.queries[0], first=pairs.a[0], second="bread " * 500
    )
    assert beside.ids[: first.second_at] == first.ids[: first.second_at]
    assert beside.cut and not first.cut and len(beside.ids) <= 128


def test_texts_cannot_forge_special_tokens(base: Path) -> None:
    student = student_of(base)
    sep = student.tokenizer.sep_token or "<|im_end|>"
    plain = student.reader.tokens(instruction="", query="q", first="a", second="b")
    forged = student.reader.tokens(instruction="", query="q", first=f"a {sep} x", second="b")
    special = student.tokenizer.convert_tokens_to_ids(sep)
    assert forged.ids.count(special) == plain.ids.count(special)


def test_padding_and_batches_do_not_change_a_logit(base: Path) -> None:
    student = student_of(base)
    sequences = both_orders(student.reader, make_pairs(4, pairs=3), range(12))
    alone = student.scores(sequences, batch_tokens=1)
    assert np.allclose(student.scores(sequences, batch_tokens=4096), alone, atol=1e-4)
    assert len(set(np.round(alone, 6))) > 6


def test_a_killed_training_resumes_to_the_same_bits(encoder: Path, tmp_path: Path) -> None:
    class Killed(Report):
        def __call__(self, kind: str, **values: Any) -> None:
            super().__call__(kind, **values)
            if kind == "checkpoint":
                raise KeyboardInterrupt

    changes = {"epochs": 2, "dropout": 0.1}
    whole, _ = learn(encoder, tmp_path / "whole", **changes)
    (tmp_path / "killed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        Pairwise(options(encoder, **changes)).train(make_pair_data(), tmp_path / "killed", Killed())
    resumed, told = learn(encoder, tmp_path / "killed", **changes)
    assert told.of("resumed")
    one, other = (load_file(str(each.adapter / "adapter_model.safetensors")) for each in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_in_parts_gives_the_gradient_of_the_whole_step(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = learn(encoder, tmp_path / "whole", epochs=1)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "batch.json").write_text(json.dumps({"most": 3}))
    parts, _ = learn(encoder, tmp_path / "parts", epochs=1)
    assert parts.facts["dev_log_loss"] == pytest.approx(whole.facts["dev_log_loss"], abs=1e-3)


def without_pairs() -> TrainingData:
    return dataclasses.replace(make_pair_data(2), train_pairs=None)


@pytest.mark.parametrize(
    ("data", "changes", "error", "told"),
    [
        (without_pairs, {}, NoPreferences, "no training pair with a preference.*freeze a new snapshot"),
        (
            lambda: make_pair_data(2, instruction="be strict " * 400),
            {"without_instruction": 0.0},
            InstructionTooLong,
            "instruction has more than .* tokens.*shorten the instruction",
        ),
        (lambda: make_pair_data(2), {"max_length": 32}, UnsupportedBase, "expected at least"),
    ],
)
def test_what_cannot_be_learned_from_is_named(
    tmp_path: Path, data: Any, changes: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        learn(save_tiny_qwen3(tmp_path / "qwen"), tmp_path / "w", data(), **changes)


def test_a_base_that_cannot_separate_texts_is_refused(encoder: Path) -> None:
    student = student_of(encoder)
    student.tokenizer.sep_token = None
    with pytest.raises(UnsupportedBase, match=r"cannot read two documents.*choose an encoder"):
        PairStudent(student.model, student.tokenizer, "encoder", max_length=64, name="odd")


def test_the_process_publishes_a_judge_with_figures_on_held_out_pairs(base: Path, tmp_path: Path) -> None:
    data = make_pair_data()
    write_pair_workspace(tmp_path, data)
    order = {
        "trainer": "pairwise", "module": Pairwise.__module__, "options": options(base).model_dump(mode="json"),
        "card": {"name": "tiny judge"},
    }  # fmt: skip
    (tmp_path / process.ORDER).write_text(json.dumps(order))
    assert process.run(tmp_path) == 0, (tmp_path / process.EVENTS).read_text()
    result = json.loads((tmp_path / process.RESULT).read_text())
    found = result["gate"]["pairs"]
    assert (found["split"], found["pairs"], found["queries"], result["gate"]["held_back"]) == ("test", 48, 8, False)
    compared = {(each["rival"], each["split"]) for each in result["gate"]["comparisons"]}
    is_decoder = load_base(str(base)).kind == "decoder"
    assert compared == ({("base", "dev"), ("base", "test")} if is_decoder else set()), "a fresh head is no judge"
    assert found["panel_entropy"] < found["log_loss"] < found["high"] < CHANCE
    assert found["triples"] == 300 and 0.0 <= found["cycles"] < 0.25
    assert abs(found["position_bias"]) < 0.5 and 0.0 <= found["ece"] < 0.5
    manifest = verify(tmp_path / "published")
    assert manifest["form"] == "pairwise" and set(manifest["parity"]["largest_difference"]) == {MERGED}
    assert {name.partition("/")[0] for name in manifest["files"]} == {"adapter", "merged"}
    card = (tmp_path / "published" / "merged" / "README.md").read_text()
    assert "pairwise" in card and "PairStudent" in card
    with pytest.raises(ManifestBroken, match="choose it as a judge"):
        load_published(tmp_path / "published")
    published = PairStudent.published(tmp_path / "published")
    pairs = data.dev_pairs or make_pairs(1)
    assert float(cross_entropies(symmetric(*judged(published, pairs)), pairs.preferences).mean()) == pytest.approx(
        result["facts"]["dev_log_loss"], abs=1e-3
    )


def test_an_encoders_merged_model_is_loaded_by_transformers(encoder: Path, tmp_path: Path) -> None:
    trained, _ = learn(encoder, tmp_path / "w", epochs=2)
    folder = publish_pairwise(
        trained.adapter,
        base=trained.base,
        out=tmp_path / "out",
        card=ModelCard(name="t"),
        max_length=trained.max_length,
    ).folder
    model = AutoModelForSequenceClassification.from_pretrained(str(folder / MERGED)).eval()
    student = PairStudent.published(folder)
    (sequence,) = both_orders(student.reader, make_pairs(1, pairs=1), [0])[:1]
    types = [int(at >= sequence.second_at) for at in range(len(sequence.ids))]
    with torch.no_grad():
        logit = model(input_ids=torch.tensor([sequence.ids]), token_type_ids=torch.tensor([types])).logits[0, 0]
    assert float(logit) == pytest.approx(float(student.scores([sequence], batch_tokens=64)[0]), abs=1e-5)


def test_nothing_is_published_where_the_merged_model_answers_otherwise(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, _ = learn(encoder, tmp_path / "w", epochs=1)
    monkeypatch.setattr(pairwise_export, "TOLERANCE", -1.0)
    with pytest.raises(ParityFailed, match="nothing was published"):
        publish_pairwise(
            trained.adapter, base=trained.base, out=tmp_path / "out", card=ModelCard(name="t"), max_length=64
        )
    assert not (tmp_path / "out").exists()


def pairs_of(preferences: list[float]) -> PairExamples:
    pairs = make_pairs(4, pairs=len(preferences) // 4)
    return dataclasses.replace(pairs, preferences=np.array(preferences))


def test_figures_follow_their_definitions() -> None:
    pairs = pairs_of([0.9, 0.1, 0.6, 0.5, 0.8, 0.2, 1.0, 0.0])
    right = np.log(np.clip(pairs.preferences, 1e-9, 1 - 1e-9) / np.clip(1 - pairs.preferences, 1e-9, 1))
    exact = figures("test", pairs, right, -right)
    assert exact.log_loss == pytest.approx(exact.panel_entropy, abs=1e-6)
    assert (exact.accuracy, exact.clear, exact.flips) == (1.0, 6, 0.0)
    assert exact.ece == pytest.approx(0.0, abs=1e-6) and exact.position_bias == pytest.approx(0.0, abs=1e-9)
    biased = figures("test", pairs, right + 2.0, -right + 2.0)
    assert biased.log_loss == pytest.approx(exact.log_loss, abs=1e-9) and biased.position_bias > 0.2
    unsure = figures("test", pairs, np.zeros(8), np.zeros(8))
    assert unsure.log_loss == pytest.approx(CHANCE) and not unsure.beats_chance
    assert result_of(unsure, [], make_pairs(200, pairs=1))["reasons"] == ["pairs_at_chance"]
    assert result_of(unsure, [], make_pairs(2))["reasons"] == ["pairs_at_chance", "few_queries"]
    wrong = figures("test", pairs, -right, right)
    assert wrong.accuracy == 0.0 and wrong.log_loss > CHANCE


def test_the_log_loss_lies_in_its_interval_where_queries_have_unlike_numbers_of_pairs() -> None:
    """One query has 37 pairs that the student judges well, three have one that it judges badly."""
    queries = np.array([0] * 37 + [1, 2, 3], dtype=np.int64)
    pairs = dataclasses.replace(pairs_of([0.9] * 40), query_ids=queries)
    logits = np.where(queries == 0, 2.0, [*[-1.0] * 38, -2.0, -3.0])
    found = figures("test", pairs, logits, -logits)
    assert found.low < found.log_loss < found.high and found.log_loss > CHANCE
    assert found.log_loss == pytest.approx(by_query(cross_entropies(logits, pairs.preferences), queries).mean())
    assert found.panel_entropy == pytest.approx(float(entropies(np.array([0.9]))[0]))


def test_log_loss_calibration_error_and_cycles_on_known_numbers() -> None:
    assert cross_entropies(np.array([0.0, 2.0]), np.array([0.3, 1.0])).tolist() == pytest.approx(
        [np.log(2), -np.log(expit(2.0))]
    )
    assert entropies(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.0, np.log(2), 0.0])
    assert calibration_error(np.array([0.75, 0.75]), np.array([1.0, 0.0])) == pytest.approx(0.25)
    one = np.ones(2)
    assert cyclic(one, one, np.array([1.0, -1.0])) == 0.5
    triples = triples_of(make_pairs(2), np.random.default_rng(0), most=5)
    assert triples is not None and len(triples) == 15
    assert triples.b[:2] == triples.a[1:3] and triples.b[2] == triples.a[0]
    assert triples_of(make_pairs(2, pairs=1), np.random.default_rng(0)) is None
