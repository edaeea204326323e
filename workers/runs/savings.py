"""What a project's design saved against the paper's: three judges on each of four pairs a candidate.

Shown on the project's page and in the closing lines of `manage.py run`. Fewer calls say nothing about how good
the scores are, so the certainty of the top ten stands beside them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Sum

from labeling.models import Project
from workers.models import Attempt

PAPER_JUDGES = 3
PAPER_PAIRS = 4  # a candidate; degree 8
KEPT_S = 30


@dataclass(frozen=True, slots=True)
class Saving:
    """Calls made, and those of the paper's design over the same queries; cost in millionths of a dollar."""

    calls: int
    paper_calls: int
    cost_micros: int

    @property
    def saved_calls(self) -> int:
        """Negative where more was asked than in the paper."""
        return self.paper_calls - self.calls

    @property
    def share(self) -> float:
        """The part of the paper's calls that was not needed; negative where more was asked."""
        return self.saved_calls / self.paper_calls

    @property
    def saved_micros(self) -> int:
        """What the calls not made would have cost, at the mean price of those made."""
        return round(self.cost_micros / self.calls * self.saved_calls)


def paper_calls(sizes: Mapping[int, int]) -> int:
    """Calls of the paper's design; `sizes`: how many queries have how many candidates. Where four pairs a candidate
    are more than there are, all pairs.
    """
    pairs = sum(queries * min(PAPER_PAIRS * size, size * (size - 1) // 2) for size, queries in sizes.items())
    return PAPER_JUDGES * pairs


_SIZES = """
SELECT size, count(*) FROM (
    SELECT count(*) AS size FROM labeling_candidate candidate
    JOIN labeling_query query ON query.id = candidate.query_id
    JOIN scoring_queryfit fit ON fit.query_id = query.id
    WHERE query.project_id = %s AND fit.judgments > 0 GROUP BY query.id
) judged GROUP BY size
"""


def read_saving(project: Project) -> Saving | None:
    """The saving over the queries that have been judged; None before a judge was asked about any."""
    with connection.cursor() as cursor:
        cursor.execute(_SIZES, [project.pk])
        expected = paper_calls(dict(cursor.fetchall()))
    spent = Attempt.objects.filter(run__project=project).aggregate(calls=Count("pk"), cost=Sum("cost_micros"))
    if not expected or not spent["calls"]:
        return None
    return Saving(calls=spent["calls"], paper_calls=expected, cost_micros=spent["cost"] or 0)


def recent_saving(project: Project) -> Saving | None:
    """The same, at most half a minute old: the project's page asks each second."""
    found: tuple[Saving | None] | None = cache.get(f"zelo:saving:{project.pk}")
    if found is None:
        found = (read_saving(project),)
        cache.set(f"zelo:saving:{project.pk}", found, KEPT_S)
    return found[0]


def saving_sentence(saving: Saving) -> str:
    """One line for a terminal."""
    design = f"the {saving.paper_calls:,} of three judges on four pairs a candidate"
    if saving.saved_calls < 0:
        return f"{saving.calls:,} calls, {-saving.saved_calls:,} more than {design}"
    money = f", about ${saving.saved_micros / 1e6:,.2f}" if saving.saved_micros else ""
    return f"{saving.calls:,} calls instead of {design}: {saving.share:.0%} saved{money}"
