"""Claim: 100,000 candidates of up to 1 kB are imported in under 30 s and 300 MB, as zbench JSONL, a BEIR zip or Parquet.

Writes the same random words in each format and imports each file twice into a project of its own (the second time nothing may
change), in a process of its own; the Parquet file has a text and a grade in each row, the zip texts and grades without candidates.
`seconds`, `again_seconds` and `peak_mb` are those of JSONL. Peak memory is the importing process's, from start to end. Uses the
database of the settings, and starts it where none runs. `--quick` takes a tenth of the candidates.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages

if TYPE_CHECKING:
    from labeling.models import Project

CANDIDATES = 100_000
DOCUMENTS_A_QUERY = 100
LONGEST_TEXT = 1_000


Query = dict[str, Any]


def dataset(candidates: int, seed: int = 7) -> Iterator[Query]:
    """Rows of zbench; every tenth document is shared with an earlier query, texts of 100 to 1,000 characters."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyzäé", k=rng.randint(2, 11))) for _ in range(20_000)]
    shared = [(f"shared-{number}", _text(rng, vocabulary)) for number in range(500)]
    for query in range(candidates // DOCUMENTS_A_QUERY):
        documents: list[dict[str, Any]] = []
        picks = rng.sample(shared, DOCUMENTS_A_QUERY // 10)
        for number in range(DOCUMENTS_A_QUERY):
            identifier, text = (
                picks[number // 10] if number % 10 == 0 else (f"d{query}-{number}", _text(rng, vocabulary))
            )
            documents.append({"id": identifier, "content": text, "metadata": {"position": number}})
        yield {"query": {"id": f"q{query}", "query": _text(rng, vocabulary)[:80]}, "documents": documents}


def write_jsonl(path: Path, candidates: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in dataset(candidates):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_beir(path: Path, candidates: int) -> None:
    """A BEIR archive of the same texts, each document once, with a grade for each candidate."""
    known: set[str] = set()
    corpus, queries, grades = (io.StringIO() for _ in range(3))
    grades.write("query-id\tcorpus-id\tscore\n")
    for row in dataset(candidates):
        queries.write(json.dumps({"_id": row["query"]["id"], "text": row["query"]["query"]}) + "\n")
        for place, each in enumerate(row["documents"]):
            grades.write(f"{row['query']['id']}\t{each['id']}\t{place % 3}\n")
            if each["id"] not in known:
                known.add(each["id"])
                corpus.write(json.dumps({"_id": each["id"], "title": "", "text": each["content"]}) + "\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", grades)):
            archive.writestr(f"set/{name}", text.getvalue())


def write_parquet(path: Path, candidates: int) -> None:
    """A table with a candidate a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [*((name, pa.string()) for name in ("query_id", "query", "doc_id", "text")), ("grade", pa.int8())]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in dataset(candidates):
            texts = [each["content"] for each in row["documents"]]
            columns = {
                "query_id": [row["query"]["id"]] * len(texts),
                "query": [row["query"]["query"]] * len(texts),
                "doc_id": [each["id"] for each in row["documents"]],
                "text": texts,
                "grade": [place % 3 for place in range(len(texts))],
            }
            writer.write_table(pa.table(columns, schema))


def _text(rng: random.Random, vocabulary: list[str]) -> str:
    return " ".join(rng.choices(vocabulary, k=150))[: rng.randint(100, LONGEST_TEXT)]


def peak_mb() -> float:
    """Peak resident memory of this program so far, in MB.

    From /proc where there is one: `ru_maxrss` of a started process begins with what its parent held when it started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measured(importer: str, path: str, candidates: int, answers: Any) -> None:
    """Measure in this process, and send the figures."""
    _set_up()
    answers.put(measure(Path(path), candidates, importer))


def measure(path: Path, candidates: int, importer: str = "zbench-jsonl") -> dict[str, float]:
    """Import twice, check that the second changes nothing, delete the project. A BEIR archive has grades in place of candidates."""
    from labeling.importing.dataset import import_dataset
    from labeling.models import Candidate, Project, UnmatchedGrade

    name = f"benchmark-{uuid.uuid4().hex[:12]}"
    project = Project.objects.create(name=name, slug=name)
    try:
        started = time.perf_counter()
        summary = import_dataset(project, path, importer=importer)
        seconds = time.perf_counter() - started
        if importer == "beir":
            assert summary.queries_created == candidates // DOCUMENTS_A_QUERY, summary
            assert UnmatchedGrade.objects.filter(project=project).count() == candidates
        else:
            assert summary.candidates_created == candidates, summary
            assert Candidate.objects.filter(query__project=project).count() == candidates
        peak = peak_mb()
        started = time.perf_counter()
        assert import_dataset(project, path, importer=importer).changed_nothing
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
        for table in ("labeling_query", "labeling_document", "labeling_unmatchedgrade"):
            cursor.execute(f"DELETE FROM {table} WHERE project_id = %s", [project.pk])
    project.delete()  # keeps the audit entries without their reference


FORMATS = (("zbench-jsonl", "", write_jsonl), ("beir", "beir_", write_beir), ("table", "parquet_", write_parquet))


def measure_all(folder: Path, candidates: int) -> dict[str, float]:
    """The figures of each format, whose import runs in a process of its own; those of BEIR and Parquet have a prefix."""
    context, figures = multiprocessing.get_context("spawn"), dict[str, float]()
    for importer, prefix, write in FORMATS:
        path = folder / importer
        write(path, candidates)
        answers = context.Queue()
        process = context.Process(target=measured, args=(importer, str(path), candidates, answers))
        process.start()
        figures |= {f"{prefix}{name}": value for name, value in answers.get().items()}
        process.join()
    return figures


def _set_up() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")
    import django

    django.setup()
    from labeling.plugins import load_plugins

    load_plugins(enabled=["formats"])
    from labeling.importing import formats  # noqa: F401  where the product is not installed, its entry points are not either


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the candidates")
    candidates = CANDIDATES // 10 if parser.parse_args().quick else CANDIDATES
    _set_up()
    from zelo_site.processes.stack import database

    with tempfile.TemporaryDirectory() as folder, database():
        figures = measure_all(Path(folder), candidates)
    targets = {"seconds": 30, "peak_mb": 300}
    print(f"{'':24}{'measured':>12}{'target':>12}")
    for name, value in figures.items():
        target = next((most for each, most in targets.items() if name in (each, f"beir_{each}", f"parquet_{each}")), "")
        print(f"{name:24}{value:>12}{target:>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
