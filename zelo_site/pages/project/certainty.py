"""Top-10 certainty for pages: cached per fit, and sampled in large projects.

The figure is `scoring.sampling.certainty.top_certainty`. The project's figures refresh it; the live part, polled every
second, only reads the last value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.core.cache import cache
from django.utils import timezone

from labeling.models import Project
from scoring.models import QueryFit
from scoring.sampling.certainty import certainty_of_fits

__all__ = ["certainty_of_fits", "last_certainty", "read_certainty", "refresh_certainty"]

SAMPLED = 100
FRESH_S = 4
LAST_S = 3600


@dataclass(frozen=True, slots=True)
class ProjectCertainty:
    """Mean expected recall of the true ten over `read` of the `rated` queries, read `read_at`; `lowest` is the minimum."""

    mean: float
    lowest: float
    read: int
    rated: int
    read_at: datetime | None = field(default=None, compare=False)


def read_certainty(project: Project) -> ProjectCertainty | None:
    """Return the certainty over a hundred evenly spaced rated queries, or None if no query is rated."""
    fits = QueryFit.objects.filter(query__project=project, judgments__gt=0).order_by("query_id")
    ids = list(fits.values_list("query_id", flat=True))
    chosen = ids[:: max(1, -(-len(ids) // SAMPLED))]
    found = list(certainty_of_fits(fits.filter(query_id__in=chosen)).values())
    if not found:
        return None
    mean = sum(found) / len(found)
    return ProjectCertainty(mean=mean, lowest=min(found), read=len(found), rated=len(ids), read_at=timezone.now())


def refresh_certainty(project: Project) -> None:
    """Return the project's certainty, recomputed unless it is recent."""
    if cache.add(f"zelo:certainty-fresh:{project.pk}", True, FRESH_S):
        cache.set(f"zelo:certainty:{project.pk}", read_certainty(project), LAST_S)


def last_certainty(project: Project) -> ProjectCertainty | None:
    """Return the last computed certainty, or None if nobody has opened the project's figures."""
    found: ProjectCertainty | None = cache.get(f"zelo:certainty:{project.pk}")
    return found
