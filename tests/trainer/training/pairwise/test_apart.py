"""The student of an embedder base: it starts from the base's order, and is published as it was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from labeling.records import Comparison, TextRecord, Verdict
from tests.factories.lessons import Report
from tests.factories.students.pair_lessons import make_pair_data, make_pairs, write_pair_workspace, write_pairs
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.bases import load_base
from trainer.publishing.manifests import verify
from trainer.training import process
from trainer.training.embedding.bi_encoder import NotAnEmbedder
from trainer.training.pairwise.apart import ApartStudent, calibrated_temperature
from trainer.training.pairwise.figures import CHANCE, cross_entropies, symmetric
from trainer.training.pairwise.held_out import judged
from trainer.training.pairwise.inputs import InstructionTooLong
from trainer.training.pairwise.options import PairwiseOptions
from trainer.training.pairwise.plugin import Pairwise
from trainer.training.pairwise.student import PairStudent, both_orders
from workers.judges.pairwise_student import PairwiseStudentJudge

pytestmark = pytest.mark.usefixtures("all_models_allowed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_embedder(tmp_path_factory.mktemp("embedder"))


def options(base: Path, **changes: object) -> PairwiseOptions:
    small = {
        "base": str(base), "precision": "fp32", "rank": 8, "threads": 1, "epochs": 8, "learning_rate": 5e-3, "max_length": 64, "eval_steps": 18,
        "batch_size": 8, "patience": 0,
    }  # fmt: skip
    return PairwiseOptions.model_validate(small | changes)


def untrained(base: Path) -> ApartStudent:
    return ApartStudent.of_base(load_base(str(base)), max_length=64, device="cpu", dtype="float32")


def test_the_logit_is_the_difference_of_the_cosines_over_the_temperature(base: Path) -> None:
    student = untrained(base)
    pairs = make_pairs(3, pairs=4)
    sequences = both_orders(student.reader, pairs, range(len(pairs)))
    found = student.scores(sequences, batch_tokens=100)
    model = SentenceTransformer(str(base), device="cpu")
    query, first, second = (
        model.encode(list(texts), normalize_embeddings=True) for texts in (pairs.queries, pairs.a, pairs.b)
    )
    expected = ((query * (first - second)).sum(axis=1)) / student.temperature
    assert np.allclose(found[0::2], expected, atol=1e-4) and np.allclose(found[1::2], -expected, atol=1e-4)
    assert np.allclose(student.logits(sequences).detach().numpy(), found, atol=1e-4)


def test_it_learns_and_its_judge_answers_as_it_was_measured(base: Path, tmp_path: Path) -> None:
    data = make_pair_data()
    write_pair_workspace(tmp_path, data)
    chosen = options(base).model_dump(mode="json")
    order = {"trainer": "pairwise", "module": Pairwise.__module__, "options": chosen, "card": {"name": "tiny"}}
    (tmp_path / process.ORDER).write_text(json.dumps(order))
    assert process.run(tmp_path) == 0, (tmp_path / process.EVENTS).read_text()
    result = json.loads((tmp_path / process.RESULT).read_text())
    assert result["facts"]["reads"] == "apart" and result["gate"]["pairs"]["log_loss"] < CHANCE
    assert result["gate"]["pairs"]["cycles"] == result["gate"]["pairs"]["flips"] == 0.0
    manifest = verify(tmp_path / "published")
    assert (manifest["form"], manifest["reads"]) == ("pairwise", "apart")
    assert manifest["temperature"] == result["facts"]["temperature"] > 0.0

    student = PairStudent.published(tmp_path / "published")
    pairs = data.dev_pairs or make_pairs(1)
    logits = symmetric(*judged(student, pairs))
    loss = float(cross_entropies(logits, pairs.preferences).mean())
    assert loss == pytest.approx(result["facts"]["dev_log_loss"], abs=2e-3), (
        "the checkpoint is chosen as it is published"
    )
    events = [json.loads(line) for line in (tmp_path / process.EVENTS).read_text().splitlines()]
    base_loss = next(each["log_loss"] for each in events if each["kind"] == "evaluated")
    assert base_loss <= CHANCE + 0.02, "the base has its best temperature too, not one that makes every student win"
    judge = PairwiseStudentJudge.from_dict({"student": str(tmp_path / "published"), "device": "cpu"})
    assert isinstance(judge, PairwiseStudentJudge)
    judge.prepare(None)  # type: ignore[arg-type]  # it reads no collection
    query = TextRecord(1, pairs.queries[0])
    (answer,) = judge.judge([Comparison(0, query, query, TextRecord(2, pairs.a[0]), TextRecord(3, pairs.b[0]))])
    assert isinstance(answer, Verdict)
    assert answer.preference == pytest.approx(1.0 / (1.0 + np.exp(-logits[0])), abs=1e-4)


def test_an_embedder_can_read_jointly_and_only_an_embedder_apart(base: Path, tmp_path: Path) -> None:
    for folder in ("jointly", "apart"):
        (tmp_path / folder).mkdir()
    data = make_pair_data(4)
    jointly = Pairwise(options(base, reads="jointly", epochs=1)).train(data, tmp_path / "jointly", Report())
    assert jointly.facts["reads"] == "jointly" and "temperature" not in jointly.facts
    bert = save_tiny_bert(tmp_path / "bert")
    with pytest.raises(NotAnEmbedder, match="is not an embedder"):
        Pairwise(options(bert, reads="apart")).train(data, tmp_path / "apart", Report())


def test_a_long_instruction_is_named_and_a_short_one_is_read(base: Path) -> None:
    reader = untrained(base).reader
    texts = {"query": "about pond", "first": "carp", "second": "bread"}
    told = reader.tokens(instruction="prefer water", **texts)
    assert len(told.query) > len(reader.tokens(instruction="", **texts).query)
    assert reader.tokens(instruction="", **{**texts, "second": "bread " * 200}).cut and not told.cut
    with pytest.raises(InstructionTooLong, match="shorten the instruction"):
        reader.tokens(instruction="be strict " * 60, **texts)


@pytest.mark.parametrize("reads", ["apart", "jointly"])
def test_a_student_without_instructions_neither_learns_nor_reads_them(base: Path, tmp_path: Path, reads: str) -> None:
    told = "be strict " * 60
    train, test = make_pairs(12, instruction=told), make_pairs(4, first=500, instruction=told)
    write_pair_workspace(tmp_path, make_pair_data(2))
    write_pairs(tmp_path / process.PAIRS, train=train, test=test)  # without dev pairs the base cannot win
    chosen = options(base, reads=reads, epochs=1, instructions="never").model_dump(mode="json")
    order = {"trainer": "pairwise", "module": Pairwise.__module__, "options": chosen, "card": {"name": "tiny"}}
    (tmp_path / process.ORDER).write_text(json.dumps(order))
    ended = process.run(tmp_path)
    assert ended == 0, (tmp_path / process.EVENTS).read_text()
    assert verify(tmp_path / "published")["reads_instruction"] is False
    reader = PairStudent.published(tmp_path / "published").reader
    texts = {"query": "about pond", "first": "carp", "second": "bread"}
    assert reader.tokens(instruction=told, **texts) == reader.tokens(instruction="", **texts)


def test_the_temperature_of_least_log_loss_is_found() -> None:
    logits = np.linspace(-2.0, 2.0, 200)
    preferences = 1.0 / (1.0 + np.exp(-logits / 0.4))
    assert calibrated_temperature(0.05, logits, preferences) == pytest.approx(0.05 * 0.4, rel=0.03)
