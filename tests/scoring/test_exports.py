"""What leaves with the scores: a strict order, and no Elo for what was never compared."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from django.test import Client
from pytest_django import Settings

from labeling.models import Membership, Project
from scoring.exports import export_scores, strictly_falling
from scoring.models import Score
from scoring.quality import _elo
from scoring.snapshots.freeze import ROWS_FILE
from scoring.storage.files import storage
from tests.factories.frozen import make_frozen, make_scored
from tests.factories.pages import page
from trainer.evaluation.leaderboard import evaluation_queries
from trainer.evaluation.rankers import Elo
from trainer.evaluation.run_files import read_run


def exported(project: Project, exporter: str) -> bytes:
    stream = io.BytesIO()
    export_scores(project, exporter, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "scores",
    [
        [1500.00002, 1500.00001],
        [1500.0] * 300,
        [1e-45, 0.0, 0.0, -1e-45],
        [2000.0, 1500.00002, 1500.00001, 1500.0, 1499.9999, -3.5],
    ],
)
def test_exported_scores_fall_strictly_as_32_bit_and_as_64_bit_floats(scores: list[float]) -> None:
    written = strictly_falling(scores)
    assert all(np.diff([np.float32(each) for each in written]) < 0)
    assert all(np.diff([float(each) for each in written]) < 0)
    assert [float(each) for each in written] == pytest.approx(scores, abs=0.05)


@pytest.mark.django_db
def test_trec_eval_reads_an_exported_run_in_our_order() -> None:
    """Near ties are equal as 32-bit floats, where trec_eval would order them by id in descending order."""
    project = make_scored(queries=1, documents=8)
    for place, score in enumerate(Score.objects.order_by("candidate__document__external_id")):
        Score.objects.filter(pk=score.pk).update(elo=1500.0 - place * 1e-6)
    content = exported(project, "trec-run")
    lines = [line.split() for line in content.decode().splitlines()]
    ranked = [words[2] for words in lines]
    assert ranked == sorted(ranked)
    run = read_run(io.BytesIO(content))
    for place, document in enumerate(ranked, start=1):
        found = pytrec_eval.RelevanceEvaluator({"q0": {document: 1}}, {"recip_rank"}).evaluate(run)
        assert found["q0"]["recip_rank"] == pytest.approx(1 / place)


@pytest.mark.django_db(transaction=True)
def test_without_a_comparison_there_is_no_elo(
    client: Client, owner: object, settings: Settings, tmp_path: Path
) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    project = make_scored()
    Membership.objects.create(project=project, user=owner, role="owner")
    snapshot_queries = {query.external_id: query for query in project.queries.all()}
    for query in snapshot_queries.values():
        lonely = Score.objects.filter(candidate__query=query).order_by("-elo").first()
        assert lonely is not None
        Score.objects.filter(pk=lonely.pk).update(comparisons=0, elo=9999.0)
    # One query in which nothing at all was compared.
    silent = snapshot_queries["q3"]
    Score.objects.filter(candidate__query=silent).update(comparisons=0)

    assert b"9999" not in exported(project, "trec-run")
    for line in exported(project, "zbench-annotated-jsonl").splitlines():
        row = json.loads(line)
        for document in row["documents"]:
            known = document["comparisons"] > 0
            assert {document[name] is not None for name in ("elo", "relevance", "theta", "stderr", "score")} == {known}
        assert row["documents"][-1]["elo"] is None, "unrated last"
    reply = client.get(f"/api/v1/queries/{snapshot_queries['q1'].pk}/scores").json()["scores"]
    assert [each["elo"] is None for each in reply] == [False] * (len(reply) - 1) + [True]
    html = page(client, "query", project.slug, snapshot_queries["q1"].pk)
    assert "9999" not in html and "not compared yet" in html
    for name in ("matrix", "graph"):
        assert "9999" not in page(client, name, project.slug, snapshot_queries["q1"].pk)
    snapshot = make_frozen(project)
    with storage().opened(f"{snapshot.location}/{ROWS_FILE}") as stream:
        table = pq.read_table(stream).to_pylist()
    assert all((row["elo"] is None) == (row["comparisons"] == 0) for row in table)
    assert all((row["relevance"] is None) == (row["comparisons"] == 0) for row in table)
    assert any(row["comparisons"] == 0 for row in table)
    queries = evaluation_queries(snapshot, "test")
    for query, scores in zip(queries, Elo().scores(queries, lambda done, total: None), strict=True):
        assert np.isnan(scores).any(), query.id
    assert 9999.0 not in _elo(project).values()
