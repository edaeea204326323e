"""Looks up the pairs that a run of the design `named` asks: whether they exist, and how many a query has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labeling.models import Candidate, Project
from labeling.plugins import Sampler

NAMED = "named"
Pairs = Sequence[tuple[int, int]]


class PairsUnknown(ValueError):
    """A named pair is no pair of one query of the project."""


def pairs_of(sampler: Sampler) -> list[tuple[int, int]]:
    """The named pairs with a < b, each once, in their order."""
    given = getattr(sampler.options, "pairs", [])
    return list(dict.fromkeys((min(pair), max(pair)) for pair in given))


def by_query(project: Project, pairs: Pairs, *, skip_unknown: bool = False) -> dict[int, list[tuple[int, int]]]:
    """The pairs by query, in their order; `skip_unknown` leaves out those whose candidates were deleted. Raises PairsUnknown where one is no pair of one query of the project."""
    ids = {each for pair in pairs for each in pair}
    rows = Candidate.objects.filter(query__project=project, pk__in=ids)
    query_of = dict(rows.values_list("pk", "query_id"))
    found: dict[int, list[tuple[int, int]]] = {}
    for a, b in pairs:
        missing = [each for each in (a, b) if each not in query_of]
        if missing and skip_unknown:
            continue
        if missing:
            raise PairsUnknown(
                f"candidate {missing[0]} of a named pair does not belong to project {project.slug!r}; check the ids"
            )
        if a == b or query_of[a] != query_of[b]:
            why = "one candidate twice" if a == b else "candidates of two queries"
            raise PairsUnknown(f"the named pair {a}, {b} holds {why}; name two candidates of one query")
        found.setdefault(query_of[a], []).append((a, b))
    return found


def mean_by_size(project: Project, pairs: Pairs, sizes: Mapping[int, int]) -> dict[int, int]:
    """The mean number of named pairs of a query, rounded up, by the query's number of candidates; `sizes`: queries by size."""
    known = by_query(project, pairs)
    counts = Counter(Candidate.objects.filter(query__in=known).values_list("query_id", flat=True))
    totals: Counter[int] = Counter()
    for query, own in known.items():
        totals[counts[query]] += len(own)
    return {size: -(-totals[size] // number) for size, number in sizes.items()}
