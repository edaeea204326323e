"""The Python of docs/serving.md runs as it stands and scores as the served reranker does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainer.serving.loading import load_reranker, sigmoid

BLOCKS = re.findall(r"```python\n(.*?)```", Path("docs/serving.md").read_text(), re.DOTALL)


def test_there_is_a_block_for_each_form() -> None:
    assert [form in block for form, block in zip(("merged", "sequence_", "adapter"), BLOCKS, strict=True)] == [True] * 3


@pytest.mark.parametrize("block", BLOCKS)
def test_documented_lines_score_as_the_server_does(
    block: str, published_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELO_MODELS", "*")
    found: dict[str, object] = {}
    base = str(published_encoder.parent / "base")
    exec(block.replace("RERANKER", str(published_encoder)).replace("BASE", base), found)
    logit = load_reranker(published_encoder).scores("how do fish breathe", ["Gills take oxygen."])[0]
    assert float(found["scores"][0]) == pytest.approx(sigmoid(logit), abs=1e-4)  # type: ignore[index]
