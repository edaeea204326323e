"""Top-10 certainty for pages: cached per fit, and sampled in large projects.

The figure is `scoring.certainty.top_certainty`. The project's figures refresh it; the live part, polled every
second, only reads the last value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.core.cache import cache

from labeling.models import Project
from scoring.certainty import top_certainty
from scoring.models import QueryFit

SAMPLED = 100
MOST_REMEMBERED = 20_000
FRESH_S = 20
LAST_S = 3600

_remembered: dict[tuple[int, float], float] = {}


@dataclass(frozen=True, slots=True)
class ProjectCertainty:
    """Mean expected recall of the true ten over `read` of the `rated` queries; `lowest` is the minimum."""

    mean: float
    lowest: float
    read: int
    rated: int


def certainty_of_fits(fits: Iterable[QueryFit]) -> dict[int, float]:
    """Return the certainty by query id; only refitted queries are recomputed."""
    keys = {fit.query_id: (fit.query_id, fit.fitted_at.timestamp()) for fit in fits if fit.judgments}
    missing = [query for query, key in keys.items() if key not in _remembered]
    if missing:
        if len(_remembered) > MOST_REMEMBERED:
            _remembered.clear()
        _remembered.update({keys[query]: value for query, value in top_certainty(missing).items()})
    return {query: _remembered[key] for query, key in keys.items() if key in _remembered}


def read_certainty(project: Project) -> ProjectCertainty | None:
    """Return the certainty over a hundred evenly spaced rated queries, or None if no query is rated."""
    fits = QueryFit.objects.filter(query__project=project, judgments__gt=0).order_by("query_id")
    ids = list(fits.values_list("query_id", flat=True))
    chosen = ids[:: max(1, -(-len(ids) // SAMPLED))]
    found = list(certainty_of_fits(fits.filter(query_id__in=chosen)).values())
    if not found:
        return None
    return ProjectCertainty(mean=sum(found) / len(found), lowest=min(found), read=len(found), rated=len(ids))


def refresh_certainty(project: Project) -> None:
    """Return the project's certainty, recomputed unless it is recent."""
    if cache.add(f"zelo:certainty-fresh:{project.pk}", True, FRESH_S):
        cache.set(f"zelo:certainty:{project.pk}", read_certainty(project), LAST_S)


def last_certainty(project: Project) -> ProjectCertainty | None:
    """Return the last computed certainty, or None if nobody has opened the project's figures."""
    found: ProjectCertainty | None = cache.get(f"zelo:certainty:{project.pk}")
    return found
