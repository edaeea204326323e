"""Recent spend by day, project and endpoint, and the storage of each project. Read by the admin's own pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from labeling.models import Project
from scoring.models import Snapshot
from scoring.storage.files import storage
from trainer.models import Reranker
from workers.monitoring.result_cache import costly

DAYS = 14

# Calls are found by the index of their run: first the runs that can have calls in these days, then their calls.
_RECENT = """
SELECT date(call.finished_at AT TIME ZONE 'UTC') AS day, project.name, coalesce(judge.options ->> 'endpoint', ''),
       count(*), sum(call.input_tokens::bigint + call.output_tokens), sum(call.cost_micros)
FROM workers_run run
JOIN workers_attempt call ON call.run_id = run.id AND call.finished_at > %(since)s
JOIN labeling_project project ON project.id = run.project_id
JOIN labeling_annotator judge ON judge.id = call.annotator_id
WHERE (run.finished_at IS NULL OR run.finished_at > %(since)s) AND call.outcome NOT IN ('', 'reserved')
GROUP BY 1, 2, 3
UNION ALL
SELECT date(tested.created_at AT TIME ZONE 'UTC'), project.name, coalesce(judge.options ->> 'endpoint', ''),
       sum(tested.calls), sum(tested.input_tokens + tested.output_tokens), sum(tested.cost_micros)
FROM (
    SELECT created_at, project_id, annotator_id, calls, input_tokens, output_tokens, cost_micros FROM workers_injectionprobe
    UNION ALL
    SELECT created_at, project_id, annotator_id, calls, input_tokens, output_tokens, cost_micros FROM workers_judgetrial
    UNION ALL
    SELECT created_at, project_id, annotator_id, calls, input_tokens, output_tokens, cost_micros FROM workers_judgeteaching
) tested
JOIN labeling_project project ON project.id = tested.project_id
JOIN labeling_annotator judge ON judge.id = tested.annotator_id
WHERE tested.created_at > %(since)s AND tested.calls > 0
GROUP BY 1, 2, 3
"""

_TEXTS = """
SELECT project_id, count(*), coalesce(sum(pg_column_size(text)), 0)::bigint FROM labeling_document GROUP BY project_id
"""
_ANSWERS = """
SELECT judge.project_id, sum(given.answers)::bigint
FROM (SELECT annotator_id, count(*) AS answers FROM labeling_judgment GROUP BY annotator_id) given
JOIN labeling_annotator judge ON judge.id = given.annotator_id GROUP BY judge.project_id
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls, tokens and cost (millionths of a dollar) under one name; `share` of the largest cost, or of calls without cost."""

    name: Any
    calls: int
    tokens: int
    cost_micros: int
    share: float


@dataclass(frozen=True, slots=True)
class RecentSpend:
    """The spend of the last `DAYS` days three times: by day, by project, by endpoint ("" for judges without one)."""

    days: list[Spent]
    projects: list[Spent]
    endpoints: list[Spent]


@dataclass(frozen=True, slots=True)
class StoredProject:
    """The storage of one project; `slug` is "" for a deleted project. Sizes in bytes.

    A snapshot of several projects counts for each of them.
    """

    name: str
    slug: str
    documents: int
    text_bytes: int
    answers: int
    snapshot_bytes: int
    reranker_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.text_bytes + self.snapshot_bytes + self.reranker_bytes


def recent_spend() -> RecentSpend:
    """The spend of the last `DAYS` days; days without a call are left out."""
    return costly("zelo:admin:spend", _recent_spend)


def _recent_spend() -> RecentSpend:
    since = timezone.now() - timedelta(days=DAYS)
    rows = _rows(_RECENT, {"since": since})
    return RecentSpend(
        days=sorted(_summed(rows, 0), key=lambda each: each.name, reverse=True),
        projects=sorted(_summed(rows, 1), key=_by_cost),
        endpoints=sorted(_summed(rows, 2), key=_by_cost),
    )


def _by_cost(spent: Spent) -> tuple[int, int]:
    return -spent.cost_micros, -spent.calls


def _summed(rows: Iterable[tuple[Any, ...]], column: int) -> list[Spent]:
    sums: dict[date | str, list[int]] = {}
    for row in rows:
        known = sums.setdefault(row[column], [0, 0, 0])
        for at, value in enumerate(row[3:]):
            known[at] += int(value or 0)
    measure = 2 if any(each[2] for each in sums.values()) else 0
    largest = max((each[measure] for each in sums.values()), default=0) or 1
    return [Spent(name, each[0], each[1], each[2], share=each[measure] / largest) for name, each in sums.items()]


def stored_projects() -> list[StoredProject]:
    """The storage of every project, the largest first, with deleted ones that wait for their purge."""
    return costly("zelo:admin:storage", _stored_projects)


def _stored_projects() -> list[StoredProject]:
    texts = {row[0]: row[1:] for row in _rows(_TEXTS)}
    answers = dict(_rows(_ANSWERS))
    sizes = storage().sizes()
    snapshots = _bytes_of(Snapshot.objects.values_list("projects", "location"), sizes)
    rerankers = _bytes_of(Reranker.objects.exclude(location="").values_list("project", "location"), sizes)
    found = [
        StoredProject(
            project.name,
            "" if project.archived_at else project.slug,
            texts.get(project.pk, (0, 0))[0],
            texts.get(project.pk, (0, 0))[1],
            answers.get(project.pk, 0),
            snapshots.get(project.pk, 0),
            rerankers.get(project.pk, 0),
        )
        for project in Project.with_archived.order_by("name")
    ]
    return sorted(found, key=lambda each: -each.total_bytes)


def _bytes_of(rows: Iterable[tuple[int, str]], sizes: dict[str, int]) -> dict[int, int]:
    """Bytes by project of the files in these folders."""
    folders: dict[str, int] = {}
    for path, size in sizes.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            folders[folder] = folders.get(folder, 0) + size
    found: dict[int, int] = {}
    for project_id, location in rows:
        found[project_id] = found.get(project_id, 0) + folders.get(location, 0)
    return found


def _rows(statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
