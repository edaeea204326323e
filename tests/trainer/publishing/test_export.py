"""What is published scores as base + adapter do, in all its forms, and is published whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.factories.weights.adapters import publish_random, save_random_adapter
from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3
from trainer.bases import MINILM, MINILM_ON_HUB, cross_encoder, hub_reference, load_base
from trainer.publishing import export
from trainer.publishing.export import AdapterBroken, ModelCard, NotEnoughDisk, ParityFailed, publish
from trainer.publishing.manifests import MANIFEST, ManifestBroken, verify

PAIRS = [
    ("goldfish", "pond"),
    ("bread", "flour and yeast in an oven, " * 5),
    ("carp", "a carp is no goldfish but it swims in the same water"),
]


pytestmark = pytest.mark.usefixtures("all_models_allowed")


@pytest.fixture(scope="module", params=["qwen", "bert"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp(request.param)
    return str(save_tiny_qwen3(folder) if request.param == "qwen" else save_tiny_bert(folder))


def raw(model: Any, pairs: list[tuple[str, str]] = PAIRS) -> list[float]:
    return model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()


def adapted_base(base: str, adapter: Path) -> Any:
    model = cross_encoder(load_base(base))
    PeftModel.from_pretrained(model.model, str(adapter))
    model.eval()
    return model


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_every_artefact_scores_as_base_and_adapter_do(base: str, temperature: float, tmp_path: Path) -> None:
    published = publish_random(tmp_path, base=base, temperature=temperature, probe=PAIRS)
    expected = [logit / temperature for logit in raw(adapted_base(base, published.folder / "adapter"))]
    untrained = raw(cross_encoder(load_base(base)))
    assert max(abs(a - b) for a, b in zip(expected, untrained, strict=True)) > 1e-2
    for artefact in ("merged", "sequence_classification"):
        model = CrossEncoder(str(published.folder / artefact))
        assert raw(model) == pytest.approx(expected, abs=1e-4)
        served = model.predict(PAIRS, show_progress_bar=False)
        assert served.tolist() == pytest.approx(torch.tensor(expected).sigmoid().tolist(), abs=1e-4)
    assert published.largest_difference <= 1e-4


def test_the_classifier_form_loads_in_plain_transformers_padded_on_either_side(base: str, tmp_path: Path) -> None:
    folder = publish_random(tmp_path, base=base).folder / "sequence_classification"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast", "a name that transformers 4 knows too"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.num_labels == 1
    assert model.config.sentence_transformers["activation_fn"].endswith("Sigmoid")
    expected = raw(adapted_base(base, tmp_path / "workspace"))
    for side in ("left", "right") if tokenizer.chat_template else ("right",):  # BERT counts positions from the left
        tokenizer.padding_side = side
        if tokenizer.chat_template:
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "query", "content": query}, {"role": "document", "content": document}], tokenize=False
                )
                for query, document in PAIRS
            ]
            features = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        else:
            features = tokenizer(*zip(*PAIRS, strict=True), padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**features).logits[:, 0]
        assert logits.tolist() == pytest.approx(expected, abs=1e-4)


def test_the_manifest_names_every_file_and_the_cards_say_where_it_comes_from(base: str, tmp_path: Path) -> None:
    published = publish_random(tmp_path, base=base, max_length=96)
    manifest = verify(published.folder)
    assert manifest == json.loads((published.folder / MANIFEST).read_text())
    assert manifest["card"]["lineage"] == {"run": 7}
    assert manifest["max_length"] == 96
    assert not [name for name in manifest["files"] if name.endswith((".bin", ".pt"))]
    for artefact in ("adapter", "merged", "sequence_classification"):
        assert (published.folder / artefact / "tokenizer.json").is_file()
        card = (published.folder / artefact / "README.md").read_text()
        assert "snapshot: fish" in card and "ndcg@10: 0.5" in card
    assert CrossEncoder(str(published.folder / "merged")).max_seq_length == 96
    if load_base(base).kind == "decoder":
        assert list(published.folder.glob("*/chat_template.jinja")) != []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reranker", "workspace"]


def test_the_adapter_names_its_base_as_the_hub_does(tmp_path: Path) -> None:
    bundled = hub_reference(load_base(MINILM))
    assert bundled == MINILM_ON_HUB, "the bundled weights are those of this commit"
    snapshot = tmp_path / "models--org--small--bert" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    published = publish_random(tmp_path, base=str(save_tiny_bert(snapshot)))
    config = json.loads((published.folder / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/small--bert", "abc123")
    assert published.manifest["base"]["hub"] == "org/small--bert@abc123"
    assert 'base_model: "org/small--bert"' in (published.folder / "adapter" / "README.md").read_text()


def test_publishing_again_replaces_the_folder(base: str, tmp_path: Path) -> None:
    first = publish_random(tmp_path, base=base)
    adapter = save_random_adapter(tmp_path / "other", base=base, seed=1)
    second = publish(adapter, base=base, out=first.folder, card=ModelCard(name="second"))
    assert verify(second.folder)["card"]["name"] == "second"
    assert first.checksum != second.checksum


def test_an_artefact_that_differs_is_not_published(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = export._write_classifier

    def spoiled(folder: Path, *rest: Any, **options: Any) -> None:
        written(folder, *rest, **options)
        weights = load_file(folder / "model.safetensors")
        head = next(name for name in weights if name.endswith(("score.weight", "classifier.weight")))
        save_file(weights | {head: weights[head] * 1.01}, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(export, "_write_classifier", spoiled)
    with pytest.raises(ParityFailed, match="nothing was published"):
        publish_random(tmp_path, base=base)
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


@pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning")
def test_a_broken_adapter_is_not_published(base: str, tmp_path: Path) -> None:
    adapter = save_random_adapter(tmp_path / "adapter", base=base)
    weights = load_file(adapter / "adapter_model.safetensors")
    first, *others = sorted(weights)
    out, card = tmp_path / "out", ModelCard(name="broken")

    save_file({name: weights[name] for name in others}, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterBroken, match="has no"):
        publish(adapter, base=base, out=out, card=card)
    save_file(weights | {first: weights[first] * float("nan")}, adapter / "adapter_model.safetensors")
    with pytest.raises((AdapterBroken, ParityFailed)):
        publish(adapter, base=base, out=out, card=card)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(AdapterBroken, match="safetensors"):
        publish(adapter, base=base, out=out, card=card)
    assert not out.exists()


def test_an_encoders_adapter_must_bring_its_head(tmp_path: Path) -> None:
    base = str(save_tiny_bert(tmp_path / "base"))
    adapter = save_random_adapter(tmp_path / "adapter", base=base, modules_to_save=None)
    with pytest.raises(AdapterBroken, match="classifier"):
        publish(adapter, base=base, out=tmp_path / "out", card=ModelCard(name="headless"))


def test_a_full_disk_is_told_before_anything_is_written(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(NotEnoughDisk, match="adapter is kept"):
        publish_random(tmp_path, base=base)
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


def test_a_folder_that_is_not_what_was_published_is_refused(base: str, tmp_path: Path) -> None:
    folder = publish_random(tmp_path, base=base).folder
    weights = folder / "merged" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ManifestBroken, match="SHA-256"):
        verify(folder, artefact="merged")
    verify(folder, artefact="adapter")
    (folder / "adapter" / "extra.bin").write_bytes(b"\x80")
    with pytest.raises(ManifestBroken, match=r"extra\.bin"):
        verify(folder, artefact="adapter")
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ManifestBroken, match="is not JSON"):
        verify(folder)
    for content in ("[]", '{"format": 1, "files": {"a": 3}}', '{"format": 1, "files": {}, "card": 7}'):
        (folder / MANIFEST).write_text(content)
        with pytest.raises(ManifestBroken, match="does not have format"):
            verify(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(ManifestBroken, match="publish"):
        verify(folder)
