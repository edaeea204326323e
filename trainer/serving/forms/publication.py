"""Measures the forms of a reranker that is being published, on real lists of its dev split. Imports no Django."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.publishing.manifests import SEQUENCE_CLASSIFICATION
from trainer.serving.forms.catalogue import FP32, torch_scorer
from trainer.serving.forms.choice import choose, exact_lists
from trainer.serving.forms.lists import write_lists
from trainer.serving.loading import LoadedReranker, classifier

# Seconds for the float32 logits of the lists; each other form then takes a part of it.
MOST_S = 5.0


def check_forms(draft: Path, texts: Sequence[tuple[str, Sequence[str]]], *, most_s: float = MOST_S) -> dict[str, Any]:
    """The fact `forms` of the manifest: the chosen form and the figures of all; writes the lists into the draft."""
    if not texts:
        return {}
    model = classifier(draft / SEQUENCE_CLASSIFICATION, device="cpu")
    scorer = torch_scorer(model, FP32, "fp32")
    encoder = LoadedReranker(model, name="draft", scorer=scorer)
    encoded = [encoder.encode(query, documents).pairs for query, documents in texts]
    lists = exact_lists(scorer, encoded, most_s=most_s)
    with tempfile.TemporaryDirectory() as files:
        choice = choose(model, lists, Path(files))
    write_lists(draft, lists)
    return {"forms": choice.as_dict()}
