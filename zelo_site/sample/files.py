"""Writes the sample to files for `import`: corpus and queries as JSONL, grades as TREC qrels.

It uses `docstrings` and `questions`, and imports no Django.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelo_site.sample.docstrings import sample_documents
from zelo_site.sample.questions import sample_questions


@dataclass(frozen=True, slots=True)
class SamplePaths:
    """The paths of the written files."""

    documents: Path
    queries: Path
    qrels: Path


def write_sample(folder: Path) -> SamplePaths:
    """Write `corpus.jsonl`, `queries.jsonl` and `qrels.txt` into `folder`, creating it if needed.

    The grades include only written documents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents = sample_documents()
    questions = sample_questions({document.id for document in documents})
    paths = SamplePaths(folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels.txt")
    _write_jsonl(
        paths.documents,
        ({"id": document.id, "content": document.text, "metadata": document.metadata} for document in documents),
    )
    _write_jsonl(
        paths.queries,
        (
            {"id": question.id, "query": question.text, "metadata": {"domain": question.domain}}
            for question in questions
        ),
    )
    paths.qrels.write_text(
        "".join(
            f"{question.id} 0 {name} {grade}\n" for question in questions for name, grade in question.grades.items()
        ),
        encoding="utf-8",
    )
    return paths


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
