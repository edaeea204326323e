"""The judge that was distilled from a panel: the same answer in both orders, and the same with and without prefix sharing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from scipy.special import expit

from labeling.plugin_checks import check_plugin
from labeling.records import Comparison, Failure, FailureKind, TextRecord, Verdict
from tests.factories.weights.adapters import save_random_adapter
from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3
from trainer.publishing.export import ModelCard
from trainer.publishing.manifests import MANIFEST, ManifestBroken, file_checksum
from trainer.publishing.pairwise_export import publish_pairwise
from trainer.training.pairwise.student import PairStudent
from workers.judges.pairwise_student import PairwiseStudentJudge

QUERY = TextRecord(1, "do goldfish grow")
TEXTS = ["goldfish in a pond", "bread", "flour and yeast in the oven " * 3, "carp water", "pond water carp goldfish"]


pytestmark = pytest.mark.usefixtures("all_models_allowed")


@pytest.fixture(scope="module", params=["bert", "qwen"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELO_MODELS", "*")
        where = tmp_path_factory.mktemp(request.param)
        base = str((save_tiny_bert if request.param == "bert" else save_tiny_qwen3)(where / "base"))
        adapter = save_random_adapter(where / "adapter", base=base)
        card = ModelCard(name="student")
        return publish_pairwise(adapter, base=base, out=where / "student", card=card, max_length=120).folder


def made(folder: Path, **options: Any) -> PairwiseStudentJudge:
    judge = PairwiseStudentJudge.from_dict({"student": str(folder), "device": "cpu", **options})
    assert isinstance(judge, PairwiseStudentJudge)
    judge.prepare(None)  # type: ignore[arg-type]  # it reads no collection
    return judge


def comparisons(*, swapped: bool = False, turned: bool = False) -> list[Comparison]:
    documents = [TextRecord(10 + at, text) for at, text in enumerate(TEXTS)]
    pairs = [(a, b) for a in documents for b in documents if a.id < b.id]
    return [
        Comparison(key=at, query_a=QUERY, query_b=QUERY, a=b if turned else a, b=a if turned else b, swapped=swapped)
        for at, (a, b) in enumerate(pairs)
    ]


def preferences(judge: PairwiseStudentJudge, **order: bool) -> np.ndarray:
    answers = judge.judge(comparisons(**order))
    assert all(isinstance(each, Verdict) for each in answers)
    return np.array([each.preference for each in answers if isinstance(each, Verdict)])


def test_it_keeps_its_contract(folder: Path) -> None:
    assert check_plugin(PairwiseStudentJudge, options={"student": str(folder), "device": "cpu"}) == []


def test_a_pair_turned_round_gets_the_opposite_answer_and_the_order_shown_does_not_matter(folder: Path) -> None:
    judge = made(folder)
    asked = preferences(judge)
    assert np.ptp(asked) > 1e-3
    assert np.allclose(preferences(judge, turned=True), 1.0 - asked, atol=1e-6)
    assert np.allclose(preferences(judge, swapped=True), asked, atol=1e-6)


def test_the_answer_is_the_mean_logit_of_both_orders_with_and_without_shared_prefixes(folder: Path) -> None:
    student = PairStudent.published(folder)
    expected = []
    for each in comparisons():
        read = [
            student.reader.tokens(instruction="", query=QUERY.text, first=first, second=second)
            for first, second in ((each.a.text, each.b.text), (each.b.text, each.a.text))
        ]
        ab, ba = student.scores(read, batch_tokens=1)
        expected.append(expit((ab - ba) / 2.0))
    for options in ({}, {"share_prefix": False}, {"batch_tokens": 150}):
        assert np.allclose(preferences(made(folder, **options)), expected, atol=1e-4), options


def test_its_revision_is_the_checksum_of_its_manifest_and_changed_files_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    judge = made(folder)
    assert judge.model_revision == file_checksum(folder / MANIFEST)
    assert PairwiseStudentJudge.learns_from_panel and not PairwiseStudentJudge.can_drift
    weights = folder / "merged" / "model.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(ManifestBroken, match="SHA-256"):
            made(folder)
    finally:
        weights.write_bytes(kept)


def test_pairs_across_queries_and_long_instructions_are_failures_of_their_own(folder: Path) -> None:
    judge = made(folder)
    own = comparisons()[0]
    across = Comparison(key=1, query_a=QUERY, query_b=TextRecord(2, "bread"), a=own.a, b=own.b)
    long = Comparison(key=2, query_a=QUERY, query_b=QUERY, a=own.a, b=own.b, instruction="be strict " * 200)
    refused, too_long, answered = judge.judge([across, long, own])
    assert isinstance(refused, Failure) and refused.kind is FailureKind.BAD_REQUEST and not refused.retryable
    assert isinstance(too_long, Failure) and too_long.kind is FailureKind.CONTEXT_OVERFLOW
    assert "shorten the instruction" in too_long.message
    assert isinstance(answered, Verdict) and answered.usage.input_tokens > 0


@pytest.mark.django_db
def test_an_unknown_student_is_a_problem_before_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (problem,) = PairwiseStudentJudge.problems({"student": "0" * 64})
    assert "no" in problem and "pairwise student has the checksum 000000000000" in problem
    monkeypatch.setenv("ZELO_MODELS", "")
    with pytest.raises(pydantic.ValidationError, match="not allowed in this installation"):
        PairwiseStudentJudge.from_dict({"student": str(tmp_path)})
