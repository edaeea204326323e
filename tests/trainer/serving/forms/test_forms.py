"""Every form gives the logits of `CrossEncoder`; the fastest that keeps the order is chosen, stated and served."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from labeling.records import Examples
from tests.factories.weights.adapters import publish_random
from trainer.publishing.manifests import MANIFEST, SEQUENCE_CLASSIFICATION, ManifestBroken
from trainer.serving.forms.catalogue import (
    BF16,
    FP32,
    ONNX,
    ONNX_INT8,
    OPENVINO,
    PACKED,
    REFINED,
    Form,
    form_called,
    forms,
)
from trainer.serving.forms.choice import ENOUGH_LISTS, FEW_LISTS, choice_from, choose, exact_lists, logits_of, set_close
from trainer.serving.forms.lists import FOLDER, MOST_DOCUMENTS, read_lists, texts_of
from trainer.serving.forms.pairs import MOST_PADDING
from trainer.serving.forms.publication import check_forms
from trainer.serving.forms.unpadded import UnpaddedEncoder, more_rows, supports
from trainer.serving.loading import FormMissing, LoadedReranker, classifier, load_reranker

WORDS = "goldfish pond carp bread oven water relevant document query".split()  # noqa: SIM905


def texts(number: int, *, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(number)]


LISTS = [(f"goldfish {row}", texts(12, seed=row)) for row in range(4)]


@pytest.fixture(scope="module")
def checked(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reranker published again, with its forms checked on lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELO_MODELS", "*")
        folder = tmp_path_factory.mktemp("checked")
        check = lambda draft: check_forms(draft, LISTS)  # noqa: E731
        return publish_random(folder, base=str(published.parent / "base"), check=check).folder


@pytest.mark.parametrize("name", [FP32, PACKED, BF16, REFINED, ONNX, ONNX_INT8, OPENVINO])
def test_each_form_gives_the_logits_of_predict(checked: Path, tmp_path: Path, name: str) -> None:
    if missing := form_called(name).missing():
        pytest.skip(missing)
    exact = load_reranker(checked, device="cpu")
    if name in (REFINED, ONNX, ONNX_INT8, OPENVINO) and exact.pads:
        pytest.skip("this form computes the BERT family only")
    loaded = load_reranker(checked, device="cpu", form=name, cache=tmp_path)
    assert loaded.form == name and loaded.dtype == {BF16: "bfloat16", ONNX_INT8: "int8"}.get(name, "float32")
    query, documents = LISTS[0]
    near = {BF16: 0.05, REFINED: 0.05, ONNX_INT8: 0.5}.get(name, 1e-4)
    assert loaded.scores(query, documents) == pytest.approx(exact.scores(query, documents), abs=near)
    alone = [loaded.scores(query, [each])[0] for each in documents]
    # A document without neighbours is never too close to one, so it is not computed again.
    assert alone == pytest.approx(loaded.scores(query, documents), abs=0.1 if name == REFINED else near)


def test_a_form_that_is_not_here_is_refused_with_the_reason(checked: Path) -> None:
    with pytest.raises(ValueError, match="expected one of fp32, packed"):
        load_reranker(checked, device="cpu", form="fp8")
    if missing := form_called("openvino").missing():
        with pytest.raises(FormMissing, match="openvino is not installed"):
            load_reranker(checked, device="cpu", form="openvino")
        assert "install" in missing


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_without_padding_texts_of_all_lengths_are_scored_as_alone(family: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 128, "num_labels": 1, "max_position_embeddings": 40,
    }  # fmt: skip
    model: Any = (
        BertForSequenceClassification(BertConfig(**sizes))
        if family == "bert"
        else XLMRobertaForSequenceClassification(XLMRobertaConfig(**sizes, type_vocab_size=1))
    ).eval()
    assert supports(model)
    rng = random.Random(1)
    ids = [[rng.randrange(2, 50) for _ in range(length)] for length in (30, 30, 18, 5, 5, 1)]
    types = [[row % 2 if family == "bert" else 0 for row in range(len(each))] for each in ids]
    with torch.inference_mode():
        expected = [
            float(model(input_ids=torch.tensor([own]), token_type_ids=torch.tensor([kind])).logits)
            for own, kind in zip(ids, types, strict=True)
        ]
    assert UnpaddedEncoder(model, "fp32")(ids, types) == pytest.approx(expected, abs=1e-5)
    assert UnpaddedEncoder(model, "packed")(ids[::-1], types[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert more_rows(sum(map(len, ids))) > 0, "some rows belong to no text"
    model.config.hidden_act = "relu"
    assert not supports(model)


def test_passes_of_all_sizes_have_few_shapes_and_little_padding() -> None:
    added = {tokens: more_rows(tokens) for tokens in range(1, 1025)}
    assert all(0 <= more <= MOST_PADDING * tokens for tokens, more in added.items())
    assert len({tokens + more for tokens, more in added.items()}) < 140


def test_the_manifest_states_the_choice_with_the_figures_of_every_form(checked: Path) -> None:
    manifest = json.loads((checked / MANIFEST).read_text())
    choice = choice_from(manifest["forms"])
    assert choice is not None and choice.is_from_here and choice.lists == len(LISTS)
    assert [each.form for each in choice.measured] == [each.name for each in forms()]
    exact = choice.measured[0]
    assert (exact.form, exact.kendall_tau, exact.problem) == (FP32, 1.0, "") and exact.ms > 0
    chosen = next(each for each in choice.measured if each.form == choice.form)
    assert not chosen.problem
    assert all(each.problem for each in choice.measured if not each.ms), "a form without figures says why"
    served = load_reranker(checked, device="cpu", form="auto")
    assert served.form == choice.form and served.choice == choice


def test_another_processor_measures_again_and_remembers(checked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checked, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["forms"]["processor"] = "another processor"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    served = load_reranker(folder, device="cpu", form="auto", cache=tmp_path / "cache")
    assert served.choice is not None and served.choice.is_from_here and served.choice.lists == len(LISTS)
    (kept,) = (tmp_path / "cache").rglob("choice.json")
    kept.write_text(kept.read_text().replace(f'"form": "{served.choice.form}"', '"form": "fp32"', 1))
    assert load_reranker(folder, device="cpu", form="auto", cache=tmp_path / "cache").form == FP32
    (folder / FOLDER / "lists.json").write_text("[]")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(ManifestBroken, match="differs"):
        load_reranker(folder, device="cpu", form="auto", cache=tmp_path / "cache")


def test_without_lists_nothing_is_chosen_and_float32_is_served(published: Path, tmp_path: Path) -> None:
    served = load_reranker(published, device="cpu", form="auto", cache=tmp_path)
    assert served.choice is None and served.form in (FP32, PACKED) and not list(tmp_path.iterdir())


class _Shuffled:
    """A scorer that is fast and wrong."""

    pads, form, dtype = False, "wrong", "float32"

    def __call__(self, pairs: Any) -> list[float]:
        return [float(hash(pair.ids) % 1000) for pair in pairs]


def test_a_fast_form_that_changes_the_order_is_listed_and_not_chosen(
    checked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Form("wrong", lambda: "", lambda model, folder: _Shuffled())
    broken = Form("broken", lambda: "", lambda model, folder: 1 / 0)  # type: ignore[arg-type, return-value]
    exact = form_called(FP32)
    slow = Form("file", lambda: "", lambda model, folder: 1 / 0, exports=True)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr("trainer.serving.forms.choice.forms", lambda: (exact, fast, broken, slow))
    choice = choose(classifier(checked / SEQUENCE_CLASSIFICATION, device="cpu"), read_lists(checked), tmp_path)
    assert choice.form == FP32
    assert "Kendall's tau" in choice.measured[1].problem and choice.measured[1].ms > 0
    assert "division by zero" in choice.measured[2].problem
    assert "too few to time" in choice.measured[3].problem


def test_close_documents_are_computed_again_and_only_to_the_place_that_counts(checked: Path) -> None:
    model = classifier(checked / SEQUENCE_CLASSIFICATION, device="cpu")
    if not supports(model.model) or form_called(REFINED).missing():
        pytest.skip("this form needs the BERT family and bfloat16")
    scorer: Any = form_called(REFINED).make(model, checked)
    scorer.close = 0.1
    assert scorer.unsure([3.0, 1.0, 2.0, 1.05, 2.05]) == [1, 2, 3, 4]
    assert scorer.unsure([3.0, 1.0, 2.0, 1.05, 2.05], top_n=1) == []
    assert scorer.unsure([3.0, 1.0, 2.0, 1.05, 2.05], top_n=2) == [2, 4]
    lists = read_lists(checked)
    assert set_close(scorer, lists).kendall_tau == 1
    for each in lists:
        assert np.argsort(-logits_of(scorer, each.pairs)).tolist() == np.argsort(-each.exact).tolist()
    shortest = min(lists, key=lambda each: len(each.pairs))
    distances = []
    for count in (1, FEW_LISTS, ENOUGH_LISTS):
        set_close(scorer, [shortest] * count)
        distances.append(scorer.close)
    assert distances[0] > distances[1] > distances[2], "the fewer lists, the larger the distance"


def test_lists_are_whole_queries_of_the_rows() -> None:
    count = MOST_DOCUMENTS + 10
    rows = Examples(
        queries=["a"] * count + ["b"] + ["c"] * 2,
        documents=[str(row) for row in range(count + 3)],
        labels=np.zeros(count + 3),
        weights=np.ones(count + 3),
        query_ids=np.array([1] * count + [2] + [3] * 2),
        instructions=["told"] * (count + 3),
    )
    first, second = texts_of(rows)
    assert (first[0], len(first[1])) == ("a", MOST_DOCUMENTS) and second == ("c", [str(count + 1), str(count + 2)])
    assert texts_of(rows, told=True)[1][0] == "told\nc"


def test_lists_stop_when_the_time_is_over(checked: Path) -> None:
    loaded = LoadedReranker(classifier(checked / SEQUENCE_CLASSIFICATION, device="cpu"), name="x")
    encoded = [loaded.encode(query, documents).pairs for query, documents in LISTS]
    scorer = loaded._scorer
    assert len(exact_lists(scorer, encoded, most_s=0.0)) == 1
    assert len(exact_lists(scorer, encoded, most_s=60.0)) == len(LISTS)
    assert logits_of(scorer, encoded[0]) == pytest.approx(read_lists(checked)[0].exact, abs=1e-4)
    kept = json.loads((checked / MANIFEST).read_text())["forms"]
    older = kept | {"measured": [each | {"close_below": 0.1} for each in kept["measured"]]}
    assert choice_from(older) == choice_from(kept) is not None, (
        "figures that are no longer used do not spoil the others"
    )
    assert choice_from(None) is None and choice_from({"form": "fp32"}) is None
