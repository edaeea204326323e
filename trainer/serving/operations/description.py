"""TEI's description of a model and of the limits of the serving process. Imports no Django."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from trainer.serving.embedding import LoadedEmbedder
from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import MOST_DOCUMENTS
from trainer.serving.published import LoadedModel


def info(model: LoadedModel, artefact: Artefact, *, most_requests: int) -> dict[str, Any]:
    """TEI's description of a model and of the limits of this process."""
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {
        "model_id": artefact.name,
        "model_sha": artefact.checksum or model.checksum or None,
        "model_dtype": model.dtype,
        "form": None if isinstance(model, LoadedEmbedder) else model.form,
        "forms": None if isinstance(model, LoadedEmbedder) or model.choice is None else model.choice.as_dict(),
        "model_type": {"embedding": {"pooling": model.pooling}}
        if isinstance(model, LoadedEmbedder)
        else {"reranker": labels},
        "max_concurrent_requests": most_requests,
        "max_input_length": model.max_length,
        "max_batch_tokens": model.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": MOST_DOCUMENTS,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version("zelo"),
        "sha": None,
        "docker_label": None,
    }
