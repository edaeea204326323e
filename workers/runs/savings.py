"""The calls that a project saved compared with the paper's design: three judges on four pairs per candidate.

The project's page and the summary of `manage.py run` show it. Fewer calls do not show the quality of the
scores, so both also show the top-10 certainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from django.db import connection

from labeling.models import Project
from scoring.annotators.student_weights import student_plugins

PAPER_JUDGES = 3
PAPER_PAIRS = 4  # per candidate; degree 8


@dataclass(frozen=True, slots=True)
class Saving:
    """Actual calls and the paper design's calls over the same queries; cost in millionths of a dollar.

    `student_answers`: answers of the panel's students, which are no calls of the panel.
    """

    calls: int
    paper_calls: int
    cost_micros: int
    student_answers: int = 0

    @property
    def saved_calls(self) -> int:
        """Calls saved; negative if the project made more calls than the paper's design."""
        return self.paper_calls - self.calls

    @property
    def share(self) -> float:
        """The saved share of the paper's calls; negative if the project made more."""
        return self.saved_calls / self.paper_calls

    @property
    def saved_micros(self) -> int:
        """The cost of the saved calls, at the mean price of the actual calls."""
        return round(self.cost_micros / self.calls * self.saved_calls)


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls of a panel in some runs, answers of its students there, and the calls of the paper's design over the project."""

    calls: int
    student_answers: int
    paper_calls: int
    cost_micros: int

    @property
    def share(self) -> float | None:
        """The saved share of the paper's calls; None without queries."""
        return (self.paper_calls - self.calls) / self.paper_calls if self.paper_calls else None


def panel_spend(project_id: int, run_ids: Sequence[int]) -> Spent:
    """The spend of these runs; the answers of students cost no panel calls."""
    spent = _spent("spend.run_id = ANY(%s)", list(run_ids))
    with connection.cursor() as cursor:
        cursor.execute(_ALL_SIZES, [project_id])
        sizes = dict(cursor.fetchall())
    return replace(spent, paper_calls=paper_calls(sizes))


_SPENT = """
SELECT COALESCE(sum(spend.calls) FILTER (WHERE annotator.plugin <> ALL(%s)), 0)::bigint,
       COALESCE(sum(spend.calls) FILTER (WHERE annotator.plugin = ANY(%s)), 0)::bigint,
       COALESCE(sum(spend.cost_micros) FILTER (WHERE annotator.plugin <> ALL(%s)), 0)::bigint
FROM workers_spend spend JOIN labeling_annotator annotator ON annotator.id = spend.annotator_id WHERE {which}
"""


def _spent(which: str, key: int | list[int]) -> Spent:
    """Calls and cost of the panel, and answers of its students, from running totals: attempts are as many as judgments."""
    students = list(student_plugins())
    with connection.cursor() as cursor:
        cursor.execute(_SPENT.format(which=which), [students, students, students, key])
        calls, answers, cost = cursor.fetchone()
    return Spent(calls=calls, student_answers=answers, paper_calls=0, cost_micros=cost)


def paper_calls(sizes: Mapping[int, int]) -> int:
    """Return the calls of the paper's design; `sizes` gives the number of queries per number of candidates. A query with
    fewer pairs than four per candidate counts all pairs.
    """
    pairs = sum(queries * min(PAPER_PAIRS * size, size * (size - 1) // 2) for size, queries in sizes.items())
    return PAPER_JUDGES * pairs


_ALL_SIZES = """
SELECT size, count(*) FROM (
    SELECT count(*) AS size FROM labeling_candidate candidate
    JOIN labeling_query query ON query.id = candidate.query_id
    WHERE query.project_id = %s GROUP BY query.id HAVING count(*) > 1
) comparable GROUP BY size
"""


def read_saving(project: Project, sizes: Mapping[int, int]) -> Saving | None:
    """Return the saving, or None before the first call. `sizes`: the number of judged queries by number of candidates."""
    spent = _spent("spend.run_id IN (SELECT id FROM workers_run WHERE project_id = %s)", project.pk)
    expected = paper_calls(sizes)
    if not expected or not spent.calls:
        return None
    return Saving(spent.calls, expected, spent.cost_micros, student_answers=spent.student_answers)


def saving_sentence(saving: Saving) -> str:
    """Return the saving as one line for the terminal."""
    design = f"{saving.paper_calls:,} (three judges on four pairs per candidate)"
    design += f"; students gave {saving.student_answers:,} answers" if saving.student_answers else ""
    if saving.saved_calls < 0:
        return f"{saving.calls:,} calls, {-saving.saved_calls:,} more than {design}"
    money = f", about ${saving.saved_micros / 1e6:,.2f}" if saving.saved_micros else ""
    return f"{saving.calls:,} calls instead of {design}: {saving.share:.0%} saved{money}"
