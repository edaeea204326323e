"""Files in our format, made of ids, and their import."""

from __future__ import annotations

import io
import json
from typing import Any

from labeling.importing.dataset import ImportSummary, import_dataset
from labeling.models import Project


def row(query_id: str, *documents: str, **fields: Any) -> dict[str, Any]:
    """A line whose documents have texts made of their ids."""
    return {
        "query": {"id": query_id, "query": f"about {query_id}"},
        "documents": [{"id": name, "content": f"text of {name}", **fields} for name in documents],
    }


def jsonl(*rows: Any) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(item).encode() + b"\n" for item in rows))


def load(project: Project, *rows: Any, **options: Any) -> ImportSummary:
    return import_dataset(project, jsonl(*rows), filename="file.jsonl", **options)
