"""The limits that a run would reach before its end: the project's caps and the operator's limits, known before it starts.

`workers.runs.estimate` says what the run needs; `workers.budgets.limits` enforces the same limits at each call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labeling.models import Project
from workers.budgets.limits import NOT_ALLOWED, THE_CAP, SpendLimit, limits_of, read_caps
from workers.budgets.operator_limits import closed_endpoints, rules_for
from workers.budgets.spend import spend_of_project

UNITS = ("calls", "tokens", "cost_micros")
# Stands for no judge: what is left then does not depend on the price of one judge's calls.
NOBODY = 0


@dataclass(frozen=True, slots=True)
class Needed:
    """Expected and maximum spend of a run's judges at one endpoint; "" for judges without an endpoint."""

    endpoint: str
    calls: int
    tokens: int
    cost_micros: int
    most_calls: int
    most_tokens: int
    most_cost_micros: int


@dataclass(frozen=True, slots=True)
class LimitAhead:
    """A limit that leaves less than the run may need. `unit` is calls, tokens or cost_micros (millionths of a dollar).

    `reason` is the sentence with which the run would stop; `waits`: it would continue automatically the next day (UTC). An endpoint
    that the project may not use has the limit 0.
    """

    reason: str
    unit: str
    limit: int
    left: int
    expected: int
    most: int
    waits: bool

    @property
    def is_expected(self) -> bool:
        """Whether the expected figure reaches the limit, and not only the upper bound."""
        return self.expected > self.left


def limits_ahead(project: Project, needed: Sequence[Needed], runs: Sequence[Needed]) -> list[LimitAhead]:
    """Return the limits that these judges would reach, those first that end the run soonest; none if all is left.

    `runs`: what each run needs over all its judges, which is less than their sum where it has budgets.
    """
    found = []
    for endpoint in sorted(closed_endpoints(project) & {each.endpoint for each in needed}):
        calls, most = (_sum(needed, runs, name, endpoint) for name in ("calls", "most_calls"))
        found.append(LimitAhead(NOT_ALLOWED % {"endpoint": endpoint}, "calls", 0, 0, calls, most, waits=False))
    caps = read_caps(project.pk)
    if caps.bounds_calls:
        found += _reached(SpendLimit(caps, spend_of_project(project.pk), THE_CAP), needed, runs)
    at_endpoints = [each for each in needed if each.endpoint]
    for limit in limits_of(rules_for(project.pk, {each.endpoint for each in at_endpoints})):
        found += _reached(limit, at_endpoints, runs)
    return sorted(found, key=lambda each: (not each.is_expected, each.left / max(each.expected, 1)))


def _reached(limit: SpendLimit, needed: Sequence[Needed], runs: Sequence[Needed]) -> Iterable[LimitAhead]:
    left = limit.left(NOBODY)
    for unit in UNITS:
        most, rest = getattr(limit.budgets, unit), getattr(left, unit)
        if most is None or rest is None:
            continue
        expected, at_most = (_sum(needed, runs, name, limit.endpoint) for name in (unit, f"most_{unit}"))
        if at_most > rest:
            yield LimitAhead(limit.reason(unit), unit, most, max(0, int(rest)), expected, at_most, waits=limit.renews)


def _sum(needed: Sequence[Needed], runs: Sequence[Needed], name: str, endpoint: str) -> int:
    total = sum(getattr(each, name) for each in needed if endpoint in ("", each.endpoint))
    return min(total, sum(getattr(run, name) for run in runs))
