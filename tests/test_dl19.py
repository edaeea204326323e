"""Proof on real input: TREC DL 2019, three local judges, through the program as it is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from labeling.plugins import Importer, Judge, get_plugin
from labeling.records import Comparison, ImportedQuery, TextRecord, Verdict
from scoring.numerics.design.static import all_pairs
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.measures.rankings import ndcg
from tests.processes.installation import last_line, manage

DATA = Path(os.environ.get("ZELO_DATA", "")) / "trec_dl19"
JUDGES = ("bm25", "query-likelihood", "embedding")
TABLE_ROW = re.compile(r"^ *(\S.*?)\s{2,}(0\.\d{3})\b", re.MULTILINE)


@dataclass(frozen=True)
class MemoryCollection:
    """A dataset as judges see a project, without a database; ids are places."""

    texts: Sequence[TextRecord]
    queries: Sequence[TextRecord]
    of_query: Sequence[Sequence[int]]

    def documents(self) -> Iterator[TextRecord]:
        return iter(self.texts)

    def candidates(self, query_id: int) -> Sequence[TextRecord]:
        return [self.texts[place] for place in self.of_query[query_id]]

    def query(self, query_id: int) -> TextRecord:
        return self.queries[query_id]


def read(importer: str, path: Path) -> list[Any]:
    with path.open("rb") as stream:
        return list(cast(Importer, get_plugin("importer", importer).from_dict({})).read(stream))


def collection_of(rows: Sequence[ImportedQuery]) -> MemoryCollection:
    places: dict[str, int] = {}
    texts: list[TextRecord] = []
    for document in (document for row in rows for document in row.documents):
        if document.id not in places:
            places[document.id] = len(places)
            texts.append(TextRecord(places[document.id], document.text))
    return MemoryCollection(
        texts=texts,
        queries=[TextRecord(place, row.text) for place, row in enumerate(rows)],
        of_query=[[places[document.id] for document in row.documents] for row in rows],
    )


def preferences(judge: Judge, collection: MemoryCollection, query: int) -> np.ndarray:
    """One judge's preferences on every pair of the query's candidates, float64[m]."""
    asked, documents = collection.query(query), collection.candidates(query)
    answers = judge.judge(
        [Comparison(0, asked, asked, documents[a], documents[b]) for a, b in all_pairs(len(documents)).tolist()]
    )
    return np.array([cast(Verdict, answer).preference for answer in answers], dtype=np.float64)


def ndcg_of_all_pairs(candidates: Path, qrels: Path) -> float:
    """Mean NDCG@10 of the strengths that every pair of every query gives, by the judges of the run."""
    rows = read("zbench-jsonl", candidates)
    grades = {(row.query_id, row.document_id): row.grade for row in read("trec-qrels", qrels)}
    collection = collection_of(rows)
    judges = [cast(Judge, get_plugin("judge", name).from_dict({})) for name in JUDGES]
    for judge in judges:
        judge.prepare(collection)
    values = []
    for place, row in enumerate(rows):
        pairs = all_pairs(len(row.documents))
        mean = np.mean([preferences(judge, collection, place) for judge in judges], axis=0)
        fit = fit_queries(votes_of_query(pairs[:, 0], pairs[:, 1], mean, size=len(row.documents)))
        graded = [grades.get((row.id, document.id), 0) for document in row.documents]
        # Graded documents that are not candidates are not retrieved: they come last.
        known = {document.id for document in row.documents}
        others = [grade for (query, document), grade in grades.items() if query == row.id and document not in known]
        if max(graded) > 0:
            strengths = np.append(fit.theta, np.full(len(others), fit.theta.min() - 1.0))
            values.append(ndcg(strengths, graded + others, 10))
    return float(np.mean(values))


@pytest.mark.long
@pytest.mark.skipif(not DATA.is_dir(), reason="ZELO_DATA has no trec_dl19")
def test_sparse_pairs_rank_as_all_pairs_do_and_better_than_bm25(environment: dict[str, str]) -> None:
    """About 400 of 4,950 pairs a query."""
    candidates, qrels = DATA / "candidates_judged100.jsonl", DATA / "qrels.txt"
    output = last_line(manage(environment, "run", str(candidates), "--qrels", str(qrels), "--seed", "1"), 600.0)
    found = {name: float(value) for name, value in TABLE_ROW.findall(output)}
    every = ndcg_of_all_pairs(candidates, qrels)
    print(output, f"all pairs: {every:.4f}", sep="\n")
    assert abs(found["Elo"] - every) <= 0.02
    assert found["Elo"] >= found["first stage"] + 0.08
