"""Chooses the queries of a run: all, those with a text, a sample, those of low certainty, or those of an earlier run.

The page, the REST interface and the command pass the same `QueryChoice` to `workers.runs.ordering.start_run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labeling.models import Project, Query
from scoring.models import QueryFit
from scoring.sampling.certainty import certainty_of_fits
from scoring.sampling.draw import comparable_query_ids, sampled_queries
from workers.models import Run

# Certainty takes milliseconds a query: of more rated queries so many are looked at, drawn by their texts.
MOST_READ = 1_000


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """A choice of queries; all conditions hold together, and without one all queries are chosen.

    `text`: the query contains it, in any case. `certainty_below`: the expected recall of its true top ten is lower; a query
    without scores counts as 0, and of more than a thousand rated queries a thousand are looked at. `as_in_run`: the queries
    of this earlier run. `sample`: the largest number of them, drawn by their texts, so that the same choice gives the same.
    """

    text: str = ""
    sample: int | None = None
    certainty_below: float | None = None
    as_in_run: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether no condition is set."""
        return not self.text.strip() and (self.sample, self.certainty_below, self.as_in_run) == (None, None, None)


class NoQueryChosen(ValueError):
    """No query fits the choice; the message says what to change."""


def choose_queries(
    project: Project, choice: QueryChoice, *, among: Sequence[int] | None = None
) -> Sequence[int] | None:
    """Return the chosen queries that have two candidates or more; `among` as it is where the choice is all, None for all
    queries of the project. Raises NoQueryChosen.
    """
    if choice.is_all:
        return among
    found = set(comparable_query_ids(project.pk, among))
    rows = Query.objects.filter(project=project)
    if choice.as_in_run is not None:
        run = Run.objects.filter(project=project, pk=choice.as_in_run).first()
        if run is None:
            raise NoQueryChosen(f"the project has no run {choice.as_in_run}; choose the queries in another way")
        found &= found if run.query_ids is None else set(run.query_ids)
    if text := choice.text.strip():
        found &= set(rows.filter(text__icontains=text).values_list("pk", flat=True))
    if choice.certainty_below is not None:
        found = _uncertain(found, choice.certainty_below)
    if not found:
        raise NoQueryChosen(
            "no query with two candidates or more fits the choice; choose another text, a higher certainty or all queries"
        )
    return sampled_queries(found, choice.sample) if choice.sample is not None else sorted(found)


def _uncertain(query_ids: set[int], below: float) -> set[int]:
    """Those without scores, and of the rated ones those below this certainty."""
    fits = QueryFit.objects.filter(query__in=query_ids, judgments__gt=0)
    rated = set(fits.values_list("query_id", flat=True))
    looked_at = rated if len(rated) <= MOST_READ else set(sampled_queries(rated, MOST_READ))
    certainty = certainty_of_fits(fits.filter(query__in=looked_at))
    return (query_ids - rated) | {query for query, value in certainty.items() if value < below}
