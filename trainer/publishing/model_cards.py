"""Builds the README.md of each published artefact: description, usage, training data and metrics.

`trainer.publishing.export` writes it from the facts of the training run. Imports no Django.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainer.publishing.manifests import (
    ADAPTER,
    EVALUATION,
    MERGED,
    SENTENCE_TRANSFORMERS,
    SEQUENCE_CLASSIFICATION,
    is_embedding,
    is_pairwise,
)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Facts for the card, each a mapping of label to value (values may be nested mappings or lists)."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The facts as the manifest stores them."""
        parts = {"data": self.data, "metrics": self.metrics, "lineage": self.lineage, "training": self.training}
        return {"name": self.name, **{name: dict(facts) for name, facts in parts.items()}}


_TITLES = {
    ADAPTER: "LoRA adapter",
    MERGED: "merged model",
    SEQUENCE_CLASSIFICATION: "sequence-classification form",
    SENTENCE_TRANSFORMERS: "sentence-transformers model",
}
_LOADING = {
    ADAPTER: (
        "A PEFT adapter; it needs its base. sentence-transformers cannot load this folder by itself: build the base's "
        "cross-encoder, then attach it.\n\n"
        "```python\nmodel = CrossEncoder(BASE)  # with this folder's chat template, where there is one\n"
        'model.model.load_adapter("PATH/adapter")\n```'
    ),
    MERGED: (
        "```python\nfrom sentence_transformers import CrossEncoder\n\n"
        'model = CrossEncoder("PATH/merged")\n'
        'scores = model.predict([("a query", "a document")])  # in [0, 1], larger is more relevant\n```'
    ),
    SEQUENCE_CLASSIFICATION: (
        "For servers that expect one label, such as vLLM. The logit is what `predict` gives before its sigmoid; texts go "
        "through this folder's tokenizer, and through its chat template where there is one (roles `query` and "
        "`document`).\n\n"
        "```python\nfrom transformers import AutoModelForSequenceClassification\n\n"
        'model = AutoModelForSequenceClassification.from_pretrained("PATH/sequence_classification")\n```'
    ),
}

_LOADING_EMBEDDER = {
    ADAPTER: (
        "A PEFT adapter of an embedder; it needs its base. The scale that the held-out queries chose is part of its weights.\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        "model = SentenceTransformer(BASE)\n"
        'model.load_adapter("PATH/adapter")\n```'
    ),
    MERGED: (
        "The merged encoder without pooling, for servers that load safetensors with transformers; pool its last hidden state "
        "as the form for sentence-transformers does, then normalise.\n\n"
        "```python\nfrom transformers import AutoModel\n\n"
        'model = AutoModel.from_pretrained("PATH/merged")\n```'
    ),
    SENTENCE_TRANSFORMERS: (
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("PATH/sentence_transformers")\n'
        'query = model.encode_query("a query", normalize_embeddings=True)\n'
        'documents = model.encode_document(["a document"], normalize_embeddings=True)\n'
        "scores = documents @ query  # cosines, larger is more relevant\n```"
    ),
}

_LOADING_PAIRWISE = {
    SENTENCE_TRANSFORMERS: (
        "Embeds query and documents apart; the logit of the first document is the difference of the cosines over the temperature "
        "above.\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("PATH/sentence_transformers")\n```'
    ),
    ADAPTER: (
        "A PEFT adapter; it needs its base. Encoders get a head of one label; decoders answer A or B.\n\n"
        "```python\nfrom peft import PeftModel\n\n"
        'model = PeftModel.from_pretrained(BASE, "PATH/adapter")\n```'
    ),
    MERGED: (
        "The merged model. An encoder reads `[CLS] query [SEP] first [SEP] second [SEP]`, with token type 1 for the second "
        "document, and its logit is that of the first being the more relevant; a decoder reads the prompt of "
        "`trainer.training.pairwise.inputs`, and the logit is that of A minus that of B. Ask in both orders and take half the "
        "difference of the logits.\n\n"
        "```python\nfrom trainer.training.pairwise.student import PairStudent\n\n"
        'student = PairStudent.published(Path("PATH"))\n```'
    ),
}

_PROOF = (
    f"`{EVALUATION}` in the parent folder holds the evaluation on held-out queries, with intervals and next to BM25, the "
    f"base and the judges, once the model has been evaluated; this card was written before."
)


def render_card(card: ModelCard, *, artefact: str, base: str, facts: Mapping[str, Any]) -> str:
    """The README.md of one artefact; `facts` come from publishing (checksum of the base, parity, length)."""
    embeds, judges = is_embedding(facts), is_pairwise(facts)
    library = "transformers" if judges else "sentence-transformers"
    kind = (
        ["judge", "pairwise"] if judges else ["embeddings", "bi-encoder"] if embeds else ["reranker", "cross-encoder"]
    )
    header = {
        "library_name": "peft" if artefact == ADAPTER else library,
        "pipeline_tag": "sentence-similarity" if embeds else "text-ranking",
        "tags": [*kind, "zelo"],
        "base_model": base,
    }
    loading = (_LOADING_PAIRWISE if judges else _LOADING_EMBEDDER if embeds else _LOADING)[artefact]
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()), "---", ""]
    lines += [f"# {_one_line(card.name)}: {_TITLES[artefact]}", "", loading, ""]
    sections = {
        "Model": facts,
        "Data": card.data,
        "Training": card.training,
        "How well it ranks": card.metrics,
        "Lineage": card.lineage,
    }
    for title, section in sections.items():
        lines += [f"## {title}", "", *(_bullets(section) or ["Not recorded."]), ""]
        lines += [_PROOF, ""] if section is card.metrics and not judges else []
    return "\n".join(lines)


def _bullets(facts: Mapping[str, Any], depth: int = 0) -> list[str]:
    lines = []
    for key, value in facts.items():
        label = f"{'  ' * depth}- {_one_line(str(key)).replace('_', ' ')}:"
        if isinstance(value, Mapping):
            lines += [label, *_bullets(value, depth + 1)]
        elif isinstance(value, list | tuple):
            lines.append(f"{label} {', '.join(_one_line(str(each)) for each in value) or '–'}")
        else:
            lines.append(f"{label} {_shown(value)}")
    return lines


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _one_line(str(value))


def _one_line(text: str) -> str:
    return " ".join(text.split())
