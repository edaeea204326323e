"""The demo's table: NDCG@10 on the test questions of BM25, first stage, embedding, each panel judge, and three kinds of Elo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labeling.collection import ProjectCollection
from labeling.models import Candidate, Project
from labeling.records import TextRecord
from labeling.retrieval.bm25 import BM25Index
from scoring.elo_orders import elo_of, judge_aware_elo
from scoring.quality import GradedQuery, graded_queries, judge_strengths, measure
from zelo_site.cli.terminal import table
from zelo_site.demo.announcing import StoryRow
from zelo_site.demo.steps import DemoRuns, panel_judges, weak_judges

Order = Mapping[int, float]
# Orders by the answers of one weak judge. The judge BM25 has the order of BM25 itself.
WEAK_NAMES = {"query-likelihood": "query likelihood", "embedding": "embedding (MiniLM)"}
BASELINE, PANEL, ELO, STUDENT = "baseline", "panel", "elo", "student"


def weak_rows(project: Project) -> list[StoryRow]:
    """Return the rows known before the panel has answered."""
    return _measured(
        project, [*_baselines(project), ("Elo of the weak judges", ELO, _elo(project, _weak_ids(project)))]
    )


def comparison_rows(project: Project) -> list[StoryRow]:
    """Return all rows of the table."""
    return _measured(project, comparison_orders(project))


def comparison_orders(project: Project) -> list[tuple[str, str, Order]]:
    """Return name, kind and scores by candidate id of all orders of the table."""
    graded = DemoRuns(project).graded
    panel = panel_judges(project)
    alone = judge_strengths(project, graded)
    return [
        *_baselines(project),
        *((f"panel judge {judge.name}", PANEL, alone.get(judge.pk, {})) for judge in panel),
        ("Elo of the weak judges", ELO, _elo(project, _weak_ids(project))),
        ("Elo of all judges", ELO, _elo(project, None)),
        ("Elo of the panel", ELO, _elo(project, [judge.pk for judge in panel])),
        ("judge-aware Elo of all", ELO, judge_aware_elo(project, graded)),
    ]


def _baselines(project: Project) -> list[tuple[str, str, Order]]:
    """BM25, the order by the answers of each other weak judge, and the first stage."""
    alone = judge_strengths(project, DemoRuns(project).graded)
    judged = [
        (WEAK_NAMES[judge.plugin], BASELINE, alone.get(judge.pk, {}))
        for judge in weak_judges(project)
        if judge.plugin in WEAK_NAMES
    ]
    return [("BM25", BASELINE, bm25_order(project)), *judged, ("first stage", BASELINE, _first_stage(project))]


def _weak_ids(project: Project) -> list[int]:
    return [judge.pk for judge in weak_judges(project)]


def _elo(project: Project, judges: Sequence[int] | None) -> Order:
    return elo_of(project, DemoRuns(project).graded, judges)


def _measured(project: Project, orders: Sequence[tuple[str, str, Order]]) -> list[StoryRow]:
    graded: list[GradedQuery] = graded_queries(project.pk)
    rows = []
    for name, kind, scores in orders:
        if graded and scores:
            found = measure(name, scores, graded).ndcg
            rows.append(StoryRow(name, kind, found.estimate, found.low, found.high))
    return rows


def comparison_table(rows: Sequence[StoryRow], queries: int) -> str:
    """Return the rows as a table for the terminal."""
    cells = [[each.name, f"{each.value:.3f}", f"{each.low:.3f} – {each.high:.3f}"] for each in rows]
    text = table(["order", "NDCG@10", "95 % interval"], cells)
    return f"{text}\n{queries} graded test questions, linear gain, bootstrap over questions"


def bm25_order(project: Project) -> dict[int, float]:
    """Return the BM25 score by id of the test questions' candidates; word statistics of the whole collection."""
    collection = ProjectCollection(project.pk)
    index = BM25Index(list(collection.documents()))
    graded = DemoRuns(project).graded
    texts = dict(project.queries.filter(pk__in=graded).values_list("id", "text"))
    scores: dict[int, float] = {}
    for query in (TextRecord(pk, text) for pk, text in texts.items()):
        rows = list(Candidate.objects.filter(query_id=query.id).order_by("id").values_list("id", "document_id"))
        values = index.scores(query.text, [document for _, document in rows])
        scores |= {pk: value for (pk, _), value in zip(rows, values.tolist(), strict=True)}
    return scores


def _first_stage(project: Project) -> dict[int, float]:
    rows = Candidate.objects.filter(query__in=DemoRuns(project).graded, first_stage_rank__isnull=False)
    return {pk: -float(rank or 0) for pk, rank in rows.values_list("id", "first_stage_rank")}
