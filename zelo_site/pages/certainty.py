"""Top-10 certainty in the list of queries."""

from __future__ import annotations

from collections.abc import Iterable

from labeling.models import Query
from scoring.models import QueryFit
from zelo_site.certainty import certainty_of_fits


def mark_certainty(queries: Iterable[Query]) -> None:
    """Set `certainty` on each query: the expected recall of its true top 10, None without scores."""
    shown = list(queries)
    fits = [fit for query in shown if isinstance(fit := getattr(query, "fit", None), QueryFit)]
    found = certainty_of_fits(fits)
    for query in shown:
        query.certainty = found.get(query.pk)  # type: ignore[attr-defined]
