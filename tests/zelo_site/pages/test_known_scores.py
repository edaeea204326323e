"""A document that was compared with nothing has no Elo: pages, REST, exports, snapshots, evaluations."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from labeling.models import Candidate, Document, Membership, Project
from scoring.exports.exporting import export
from scoring.models import Score
from scoring.quality import _elo
from scoring.snapshots.stored_rows import ROWS_FILE
from scoring.storage.files import storage
from tests.factories.frozen import make_frozen, make_scored
from tests.factories.pages import make_judge, page
from tests.factories.rows import judge_pair, make_pair
from tests.factories.scored import scored
from trainer.evaluation.leaderboard import evaluation_queries
from trainer.evaluation.rankers import Elo


def exported(project: Project, exporter: str) -> bytes:
    stream = io.BytesIO()
    export(project, exporter, stream)
    return stream.getvalue()


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


@pytest.mark.django_db(transaction=True)
def test_equal_elo_has_one_order_everywhere(client: Client, project: Project) -> None:
    """Ties go by descending imported id, by code points, as in trec_eval; documents without an Elo come last."""
    (query,) = scored(project, queries=1, documents=6, elo=1500.0)
    names = ["b", "B", "a10", "é", "a9", "zz"]
    candidates = list(Candidate.objects.filter(query=query).order_by("id"))
    for candidate, name in zip(candidates, names, strict=True):
        Document.objects.filter(pk=candidate.document_id).update(external_id=name, text=f"text-of-{name}")
    Score.objects.filter(candidate=candidates[-1]).update(comparisons=0)
    expected = ["é", "b", "a9", "a10", "B"]

    run = exported(project, "trec-run").decode().splitlines()
    assert [line.split()[2] for line in run] == expected
    reply = client.get(f"/api/v1/queries/{query.pk}/scores").json()["scores"]
    assert [each["document"] for each in reply] == [*expected, "zz"]
    html = page(client, "query", project.slug, query.pk)
    assert list(dict.fromkeys(re.findall(r"text-of-(\w+)", html))) == [*expected, "zz"]
    judge_pair(make_pair(query), make_judge(project))
    matrix = page(client, "matrix", project.slug, query.pk)
    assert list(dict.fromkeys(re.findall(r"text-of-(\w+)", matrix))) == [*expected, "zz"]
    printed = io.StringIO()
    call_command("scores", project.slug, query.external_id, stdout=printed)
    assert [line.split()[0] for line in printed.getvalue().splitlines()[-6:]] == [*expected, "zz"]
