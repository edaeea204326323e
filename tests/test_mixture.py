"""Proof on real input: a mixture of two domains, from import to a student that is measured in each of them.

Passages of the web (TREC DL 2019) and abstracts of science (SciFact) are two projects of one snapshot; a second snapshot
holds science out. Whether a student wins is printed, not asserted: what is asserted is that the proof is an honest one.
"""

from __future__ import annotations

import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from pytest_django import Settings

from labeling.access.annotators import get_judge
from labeling.importing.dataset import import_dataset
from labeling.models import Project
from labeling.projects import create_project
from labeling.retrieval.candidates import rank_candidates
from scoring.models import Snapshot
from scoring.rating import rate_stale
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.snapshots.splits import fingerprint
from scoring.snapshots.stored_rows import ROWS_FILE
from scoring.storage.files import storage
from trainer.evaluation.leaderboard import Leaderboard, evaluation_queries, leaderboard
from trainer.evaluation.metrics import METRICS
from trainer.examples import load_training_data
from trainer.models import Reranker
from workers.jobs.training import start_training, train, waiting_training_ids
from workers.judging import batches
from workers.models import Run
from workers.runs import advancing
from workers.runs.ordering import start_run

DATA = Path(os.environ.get("ZELO_DATA", ""))
WEB, SCIENCE = "web", "science"
CANDIDATES = {
    WEB: ("trec_dl19", "candidates_judged100.jsonl"),
    SCIENCE: ("scifact", "candidates_bm25_top100.jsonl"),
}
QUERIES, DOCUMENTS = 40, 25
WEIGHTS = {WEB: 2.0, SCIENCE: 1.0}
LESSON = {
    "base": "minilm",
    "max_length": 128,
    "epochs": 20,
    "max_steps": 240,
    "eval_steps": 40,
    "patience": 3,
    "seed": 1,
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        not all((DATA / folder).is_dir() for folder, _ in CANDIDATES.values()),
        reason="ZELO_DATA has no trec_dl19 and scifact",
    ),
]


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"


# --- from files to scores ----------------------------------------------------------------


def grades_of(folder: Path) -> dict[str, dict[str, int]]:
    """Human grades by query and document."""
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels.txt").read_text().splitlines():
        query, _, document, grade = line.split()
        grades[query][document] = int(grade)
    return grades


def some_queries(domain: str) -> Iterator[dict[str, Any]]:
    """Lines of zbench's form with the domain in the metadata: queries that the grades say something about."""
    folder, name = CANDIDATES[domain]
    grades = grades_of(DATA / folder)
    rng = np.random.default_rng(1)
    found = 0
    for line in (DATA / folder / name).open():
        row = json.loads(line)
        # The first of BM25's list; where the documents are a sample without an order, a sample of them.
        places = range(DOCUMENTS) if domain == SCIENCE else np.sort(rng.permutation(len(row["documents"]))[:DOCUMENTS])
        documents = [row["documents"][place] for place in places if place < len(row["documents"])]
        if len(documents) < DOCUMENTS or not any(grades[row["query"]["id"]].get(each["id"], 0) for each in documents):
            continue
        yield {"query": {**row["query"], "metadata": {"domain": domain}}, "documents": documents}
        found += 1
        if found == QUERIES:
            return


def make_scored(domain: str) -> Project:
    """A project whose documents are ranked by what one local judge says of pairs of them, with human grades beside."""
    project = create_project(domain)
    content = "\n".join(json.dumps(row) for row in some_queries(domain)).encode()
    import_dataset(project, io.BytesIO(content), importer="zbench-jsonl", filename=f"{domain}.jsonl")
    known = set(project.queries.values_list("external_id", "candidates__document__external_id"))
    graded = grades_of(DATA / CANDIDATES[domain][0])
    lines = [f"{query} 0 {document} {graded[query].get(document, 0)}" for query, document in sorted(known)]
    import_dataset(project, io.BytesIO("\n".join(lines).encode()), importer="trec-qrels", filename="qrels.txt")
    rank_candidates(project)
    run = start_run(project, judges=[get_judge(project, "embedding", {})], seed=1)
    while run.state in Run.ACTIVE:
        advancing.advance(run.pk)
        for judge in run.judges.all():
            batches.judge_open(judge.pk, worker="test@here:1")
        rate_stale(project.pk)
        run.refresh_from_db()
    return project


def trained(project: Project, snapshot: Snapshot) -> Reranker:
    run = start_training(project, snapshot, trainer="pointwise", options=LESSON)
    for job in waiting_training_ids():
        train(job)
    run.refresh_from_db()
    assert run.error == ""
    return run.rerankers.get()


def proof(project: Project, snapshot: Snapshot, split: str) -> Leaderboard:
    """Everything measured on a split, printed as the command prints it."""
    told = io.StringIO()
    call_command("evaluate", project.slug, "--snapshot", str(snapshot.pk), "--split", split, stdout=told)
    print(f"\nsnapshot {snapshot.name!r}\n{told.getvalue()}")
    return leaderboard(project, snapshot, split, "grades")


def rows_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    table = pq.read_table(io.BytesIO(storage().read_bytes(f"{snapshot.location}/{ROWS_FILE}")))
    return table.to_pylist()


# --- what an honest proof rests on -------------------------------------------------------


def check_no_text_in_two_splits(rows: Iterable[Mapping[str, Any]]) -> None:
    for column in ("query", "document"):
        splits: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            splits[fingerprint(row[column])].add(row["split"])
        assert all(len(found) == 1 for found in splits.values()), f"a {column} stands in two splits"


def check_weights(snapshot: Snapshot, rows: Iterable[Mapping[str, Any]]) -> None:
    """A row of the web counts twice a row of science, and a row of training 1 on average."""
    learned = [row for row in rows if row["split"] == "train"]
    by_domain = {domain: {row["weight"] for row in learned if row["domain"] == domain} for domain in WEIGHTS}
    (web,), (science,) = by_domain[WEB], by_domain[SCIENCE]
    assert web == pytest.approx(science * WEIGHTS[WEB] / WEIGHTS[SCIENCE])
    assert np.mean([row["weight"] for row in learned]) == pytest.approx(1.0)
    shares = {
        each["domain"]: each["share_of_training"] for each in snapshot.manifest["domains"] if each["split"] == "train"
    }
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[WEB] == pytest.approx(web * sum(row["domain"] == WEB for row in learned) / len(learned))


def check_board(board: Leaderboard, queries: int, domains: set[str]) -> None:
    """Everybody stands there, measured on all queries and in every domain; a judge judged its own project alone."""
    assert {"bm25", "elo", "base", "judge", "first_stage", "trained"} <= {row.kind for row in board.rows}
    assert set(board.domains) == domains
    assert board.queries == queries
    for row in board.rows:
        assert tuple(row.metrics) == METRICS
        assert all(0.0 <= each.low <= each.estimate <= each.high <= 1.0 for each in row.metrics.values())
        if row.kind != "judge":
            assert row.evaluation.metrics["queries"] == queries
            assert set(row.domains) == domains
            assert sum(own["ndcg@10"].count for own in row.domains.values()) == queries
        assert row.kind == "bm25" or row.against["bm25"].test.difference.count == row.evaluation.metrics["queries"]


def test_two_domains_are_mixed_learned_and_proved(tmp_path: Path) -> None:
    web, science = make_scored(WEB), make_scored(SCIENCE)
    mixture = freeze(
        [web, science],
        name="web and science",
        options=SnapshotOptions(seed=1, dev_share=0.1, test_share=0.3, weights=WEIGHTS),
    )
    rows = rows_of(mixture)
    check_no_text_in_two_splits(rows)
    check_weights(mixture, rows)
    assert mixture.manifest["removed"]["document text also in a stricter split"] > 0  # there was something to remove
    student = trained(web, mixture)
    tested = evaluation_queries(mixture, "test")
    board = proof(web, mixture, "test")
    check_board(board, len(tested), {WEB, SCIENCE})
    assert student.pk in {row.evaluation.reranker_id for row in board.rows}

    alone = freeze(
        [web, science],
        name="web alone",
        options=SnapshotOptions(seed=1, dev_share=0.1, test_share=0.3, heldout_domains=[SCIENCE]),
    )
    rows = rows_of(alone)
    check_no_text_in_two_splits(rows)
    assert {row["domain"] for row in rows if row["split"] in ("train", "dev", "test")} == {WEB}
    assert {row["domain"] for row in rows if row["split"] == "heldout"} == {SCIENCE}
    (tmp_path / ROWS_FILE).write_bytes(storage().read_bytes(f"{alone.location}/{ROWS_FILE}"))
    data = load_training_data(tmp_path / ROWS_FILE)
    unknown = {row["query"] for row in rows if row["domain"] == SCIENCE}
    assert not unknown & {*data.train.queries, *data.dev.queries}
    specialist = trained(web, alone)
    check_board(proof(web, alone, "test"), len(evaluation_queries(alone, "test")), {WEB})
    held_out = proof(web, alone, "heldout")
    check_held_out(
        held_out, specialist=specialist, student=student, unseen=evaluation_queries(alone, "heldout"), tested=tested
    )


def check_held_out(
    board: Leaderboard, *, specialist: Reranker, student: Reranker, unseen: Iterable[Any], tested: Iterable[Any]
) -> None:
    """The student of the mixture is measured on the queries of science alone that it has not learned from."""
    asked = {query.id for query in unseen}
    new = {query.id for query in tested if query.domain == SCIENCE}
    assert set(board.domains) == {SCIENCE}
    by_reranker = {row.evaluation.reranker_id: set(row.evaluation.metrics["values"]["query_ids"]) for row in board.rows}
    assert by_reranker[specialist.pk] == asked
    assert by_reranker[student.pk] == new
    assert new < asked
