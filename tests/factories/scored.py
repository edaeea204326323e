"""Projects whose scores are there without any judging, for tests of what is done with scores."""

from __future__ import annotations

import secrets
from typing import Any

from labeling.models import Candidate, Document, Project, Query
from scoring.models import QueryFit, Score, Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.storage.files import storage


def scored(
    project: Project, *, queries: int = 10, documents: int = 4, domain: str = "", prefix: str = "q", **score: Any
) -> list[Query]:
    """Queries with scored candidates whose texts stand nowhere else; relevance rises with the place."""
    made = []
    for number in range(queries):
        query = Query.objects.create(
            project=project, external_id=f"{prefix}{number}", text=f"{domain} question {prefix} {number}", domain=domain
        )
        QueryFit.objects.create(
            query=query, rater="thurstone", prior_precision=0.1, logit_scale=2.41, dispersion=1.0, gradient_norm=0.0,
            iterations=1, islands=1, pairs=3, judgments=3, judged_version=0,
        )  # fmt: skip
        for place in range(documents):
            document = Document.objects.create(
                project=project,
                external_id=f"{prefix}{number}-{place}",
                text=f"{domain} {prefix} {number} text {place}",
            )
            candidate = Candidate.objects.create(query=query, document=document, first_stage_rank=place + 1)
            values = {"theta": 0.1 * place, "stderr": 0.1, "elo": 1500.0 + place, "elo_stderr": 40.0 + place}
            values |= {"relevance": 0.1 + place / 10, "comparisons": 3, "judged_version": 0}
            Score.objects.create(candidate=candidate, **{**values, **score})
        made.append(query)
    return made


def make_snapshot(project: Project, **options: Any) -> Snapshot:
    """A snapshot of twelve queries scored here."""
    scored(project, queries=12, prefix=f"p{project.pk}-")
    chosen = SnapshotOptions.model_validate({"dev_share": 0.2, "test_share": 0.1, **options})
    return freeze([project], name="Frozen", options=chosen)


def stored_snapshot(project: Project, name: str = "stored") -> Snapshot:
    """A snapshot with one small file in the storage, for tests that do not read its rows and run in a transaction."""
    location = f"snapshots/{project.slug}/{secrets.token_hex(6)}"
    checksum = storage().write_bytes(f"{location}/rows.parquet", b"rows")
    snapshot = Snapshot.objects.create(name=name, location=location, checksum=checksum, rows=1)
    snapshot.projects.add(project)
    return snapshot
