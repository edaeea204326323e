"""Claim: 100,000 candidates of up to 1 kB are imported in under 30 s and 300 MB.

Writes a zbench JSONL file of random words, imports it twice into a project of its own (the second
time nothing may change) and deletes both. Peak memory is the importing process's, from start to end. Uses
the database of the settings, and starts it where none runs. `--quick` takes a tenth of the candidates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages

if TYPE_CHECKING:
    from labeling.models import Project

CANDIDATES = 100_000
DOCUMENTS_A_QUERY = 100
LONGEST_TEXT = 1_000


def write_dataset(path: Path, candidates: int, seed: int = 7) -> None:
    """One line per query; every tenth document is shared with an earlier query, texts of 100 to 1,000 characters."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzäé", k=rng.randint(2, 11))) for _ in range(20_000)]
    shared = [(f"shared-{number}", _text(rng, vocabulary)) for number in range(500)]
    with path.open("w", encoding="utf-8") as file:
        for query in range(candidates // DOCUMENTS_A_QUERY):
            documents: list[dict[str, Any]] = []
            picks = rng.sample(shared, DOCUMENTS_A_QUERY // 10)
            for number in range(DOCUMENTS_A_QUERY):
                identifier, text = (
                    picks[number // 10] if number % 10 == 0 else (f"d{query}-{number}", _text(rng, vocabulary))
                )
                documents.append({"id": identifier, "content": text, "metadata": {"position": number}})
            row = {"query": {"id": f"q{query}", "query": _text(rng, vocabulary)[:80]}, "documents": documents}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _text(rng: random.Random, vocabulary: list[str]) -> str:
    return " ".join(rng.choices(vocabulary, k=150))[: rng.randint(100, LONGEST_TEXT)]


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(path: Path, candidates: int) -> dict[str, float]:
    """Import twice, check that the second changes nothing, delete the project."""
    from labeling.importing.dataset import import_dataset
    from labeling.models import Candidate, Project

    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    project = Project.objects.create(name=name, slug=name)
    try:
        started = time.perf_counter()
        summary = import_dataset(project, path)
        seconds = time.perf_counter() - started
        assert summary.candidates_created == candidates, summary
        assert Candidate.objects.filter(query__project=project).count() == candidates
        peak = peak_mb()
        started = time.perf_counter()
        assert import_dataset(project, path).changed_nothing
        again = time.perf_counter() - started
    finally:
        delete(project)
    return {
        "seconds": round(seconds, 2),
        "again_seconds": round(again, 2),
        "peak_mb": round(peak, 1),
        "candidates": candidates,
        "file_mb": round(path.stat().st_size / 1e6, 1),
    }


def delete(project: Project) -> None:
    """Delete the throw-away project in SQL: Django's collector would read every row first."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM labeling_candidate WHERE query_id IN (SELECT id FROM labeling_query WHERE project_id = %s)",
            [project.pk],
        )
        for table in ("labeling_query", "labeling_document"):
            cursor.execute(f"DELETE FROM {table} WHERE project_id = %s", [project.pk])
    project.delete()  # keeps the audit entries without their reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the candidates")
    candidates = CANDIDATES // 10 if parser.parse_args().quick else CANDIDATES
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")
    import django

    django.setup()
    from labeling.plugins import load_plugins

    load_plugins(enabled=["formats"])
    from labeling.importing import formats  # noqa: F401  where the product is not installed, its entry points are not either
    from zelo_site.processes.stack import database

    with tempfile.TemporaryDirectory() as folder, database():
        path = Path(folder) / "dataset.jsonl"
        write_dataset(path, candidates)
        figures = measure(path, candidates)
    print(f"{'':24}{'measured':>12}{'target':>12}")
    print(f"{'import, s':24}{figures['seconds']:>12}{'30':>12}")
    print(f"{'the same again, s':24}{figures['again_seconds']:>12}")
    print(f"{'peak memory, MB':24}{figures['peak_mb']:>12}{'300':>12}")
    print(f"{'candidates':24}{figures['candidates']:>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
