"""The judge `cross-encoder` with a tiny random reranker: scores, options, refusals."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

import pydantic
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from labeling.plugin_checks import assert_plugin
from labeling.records import TextRecord
from tests.factories.weights.tiny_models import save_tiny_bert
from workers.judges import cross_encoder
from workers.judges.cross_encoder import BackendMissing, CrossEncoderJudge, CrossEncoderOptions, NotAReranker


@pytest.fixture(autouse=True)
def any_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_MODELS", "*")


def save_reranker(folder: Path, *, labels: int = 1) -> Path:
    save_tiny_bert(folder)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reranker(tmp_path_factory.mktemp("reranker"))


def test_it_keeps_the_contract_of_judges(reranker: Path) -> None:
    assert_plugin(CrossEncoderJudge, options={"model": str(reranker)})


def test_scores_are_those_of_the_model_one_pair_at_a_time(reranker: Path) -> None:
    judge = CrossEncoderJudge.from_dict({"model": str(reranker), "temperature": 2.0})
    assert isinstance(judge, CrossEncoderJudge)
    query = TextRecord(1, "do goldfish grow")
    documents = [TextRecord(10 + place, f"goldfish grow {'slowly ' * 9 * place}") for place in range(5)]
    tokenizer = AutoTokenizer.from_pretrained(reranker)
    model = AutoModelForSequenceClassification.from_pretrained(reranker).eval()
    plain = []
    for document in documents:
        encoded = tokenizer(query.text, document.text, return_tensors="pt", truncation=True, max_length=128)
        plain.append(float(model(**encoded).logits[0, 0].detach()))
    assert judge.score(query, documents).tolist() == pytest.approx(plain, abs=1e-4)
    assert len({round(score, 6) for score in plain}) > 1 and all(map(math.isfinite, plain))
    assert judge.model_revision.startswith("sha256:") and judge.model_revision.endswith(" torch")


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    folder = save_reranker(tmp_path, labels=3)
    with pytest.raises(NotAReranker, match="3 labels; expected one score"):
        cross_encoder.load_scorer(CrossEncoderOptions(model=str(folder)))


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    folder = save_reranker(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        cross_encoder.load_scorer(CrossEncoderOptions(model=str(folder)))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"model": "org/reranker"}, "revision is missing"),
        ({"model": "org/reranker", "revision": "abc", "onnx_file": "../model.onnx"}, "relative path within the model"),
        ({"model": "org/reranker", "revision": "abc", "onnx_file": "model.bin"}, "ends with .onnx"),
    ],
)
def test_options_that_cannot_be_repeated_are_refused(options: dict[str, str], expected: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=expected):
        CrossEncoderOptions(**options)


def test_onnx_runtime_gives_the_scores_of_torch(reranker: Path) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    import torch

    model = AutoModelForSequenceClassification.from_pretrained(reranker).eval()
    encoded = dict(AutoTokenizer.from_pretrained(reranker)("do goldfish grow", "goldfish grow", return_tensors="pt"))
    names = ["input_ids", "attention_mask", "token_type_ids"]  # in the order of the model's arguments
    (reranker / "onnx").mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(encoded[name] for name in names),
            str(reranker / "onnx/model.onnx"),
            dynamo=False,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in encoded} | {"logits": {0: "batch"}},
        )
    query = TextRecord(1, "do goldfish grow")
    documents = [TextRecord(10 + place, f"goldfish grow {'slowly ' * 9 * place}") for place in range(5)]
    scores = [
        CrossEncoderJudge.from_dict({"model": str(reranker), "backend": backend}).score(query, documents)  # type: ignore[attr-defined]
        for backend in ("torch", "onnx")
    ]
    assert scores[1].tolist() == pytest.approx(scores[0].tolist(), abs=1e-5)
    assert len(set(scores[1].round(6).tolist())) > 1


def test_without_onnx_runtime_the_backend_says_what_to_install(reranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    options = {"model": str(reranker), "backend": "onnx", "max_tokens": 64}
    assert "install onnxruntime" in CrossEncoderJudge.problems(options)[0]
    with pytest.raises(BackendMissing, match="install onnxruntime"):
        cross_encoder.load_scorer(CrossEncoderOptions(**options))
