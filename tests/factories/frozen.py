"""A project whose queries are scored and partly graded, and a snapshot of it."""

from __future__ import annotations

import numpy as np

from labeling.models import Candidate, Document, Project, Query
from scoring.models import QueryFit, Score, Snapshot
from scoring.snapshots.freeze import SnapshotOptions, freeze
from tests.factories.rows import make_project
from trainer.evaluation.leaderboard import evaluation_queries
from trainer.evaluation.metrics import EvaluationQuery

NAN = float("nan")
WORDS = ("river", "metal", "garden", "letter", "winter", "engine", "mirror", "copper", "island", "shadow")


def make_scored(*, queries: int = 12, documents: int = 8, domains: tuple[str, ...] = ("law", "code")) -> Project:
    """Queries whose better documents have more of the query's words, the higher Elo and the higher grade."""
    project = make_project()
    rng = np.random.default_rng(3)
    for number in range(queries):
        asked = [f"{word}{number}" for word in WORDS[:4]]
        query = Query.objects.create(
            project=project,
            external_id=f"q{number}",
            text=" ".join(asked),
            domain=domains[number % len(domains)] if domains else "",
        )
        QueryFit.objects.create(
            query=query, rater="thurstone", prior_precision=0.1, logit_scale=2.41, dispersion=1.0, gradient_norm=0.0,
            iterations=1, islands=1, pairs=documents - 1, judgments=documents - 1, judged_version=0,
        )  # fmt: skip
        for place in rng.permutation(documents).tolist():
            shared = 4 * place // documents
            text = " ".join([*asked[:shared], f"other{number}x{place}", "filler"])
            document = Document.objects.create(project=project, external_id=f"d{number}-{place}", text=text)
            candidate = Candidate.objects.create(
                query=query, document=document, first_stage_rank=documents - place if number % 2 else place + 1,
                grade=3 * place // documents,
            )  # fmt: skip
            Score.objects.create(
                candidate=candidate, theta=0.2 * place, stderr=0.1, elo=1400.0 + 30.0 * place, elo_stderr=20.0,
                relevance=(place + 1) / (documents + 1), comparisons=3, judged_version=0,
            )  # fmt: skip
    return project


def make_frozen(project: Project, **options: float) -> Snapshot:
    """A snapshot with a third of the queries for the proof."""
    return freeze(
        [project], name="frozen", options=SnapshotOptions(**{"test_share": 0.34, "dev_share": 0.1, **options})
    )


def a_run(snapshot: Snapshot) -> bytes:
    """A TREC run that ranks the test split's documents in the snapshot's order."""
    lines = [
        f"{query.id} Q0 {document} 1 {-place} today\n"
        for query in evaluation_queries(snapshot, "test")
        for place, document in enumerate(query.document_ids)
    ]
    return "".join(lines).encode()


def a_query(
    name: str = "q1", *, grades: list[float], elo: list[float] | None = None, domain: str = ""
) -> EvaluationQuery:
    count = len(grades)
    elos = np.array(elo if elo is not None else [NAN] * count, dtype=np.float64)
    return EvaluationQuery(
        id=name,
        text=f"text of {name}",
        domain=domain,
        candidate_ids=np.arange(1, count + 1, dtype=np.int64),
        document_ids=tuple(f"d{i}" for i in range(1, count + 1)),
        documents=tuple(f"text number {i}" for i in range(1, count + 1)),
        grades=np.array(grades, dtype=np.float64),
        relevance=1.0 / (1.0 + np.exp(-(elos - 1500.0) / 174.0)),
        elo=elos,
        first_stage_rank=np.arange(1, count + 1, dtype=np.float64),
    )
