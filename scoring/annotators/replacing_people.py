"""May each judge, and the panel, replace people in a project? The test is `scoring.numerics.judges.replacement`.

Labels are the sides taken and "neither is relevant", on the pairs that people answered last. For pages and REST.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from labeling.models import Project
from labeling.records import FloatArray
from scoring.annotators.counted import UnknownJudge, panel_judges
from scoring.annotators.people_agreement import NEITHER, AnswerTable, read_answers
from scoring.numerics.judges.replacement import EPSILON, Replacement, replacement_test
from scoring.numerics.measures.sides import side


@dataclass(frozen=True, slots=True)
class JudgeReplacement:
    """One judge's result; `annotator_id` and `name` are None for the panel, the mean preference of its judges."""

    annotator_id: int | None
    name: str | None
    result: Replacement


@dataclass(frozen=True, slots=True)
class ReplacingPeople:
    """Results of the panel, if two of its judges or more answered, and of each judge; `people` are the names by place."""

    people: tuple[str, ...]
    judges: tuple[JudgeReplacement, ...]


def replacing_people(project: Project, *, epsilon: float = EPSILON) -> ReplacingPeople:
    """Return the test of the panel and of every judge that answered pairs of people.

    The panel are the judges that count in the scores, without its students; it is left out where the rater's options
    name a judge that the project does not have.
    """
    table = read_answers(project)
    people = table.label[table.is_person]
    judges = np.flatnonzero(~table.is_person).tolist()
    found = [
        JudgeReplacement(table.ids[row], table.names[row], replacement_test(table.label[row], people, epsilon=epsilon))
        for row in judges
    ]
    counted = _panel_ids(project)
    panel = [row for row in judges if table.ids[row] in counted]
    if len(panel) > 1:
        found.insert(0, JudgeReplacement(None, None, replacement_test(_panel(table, panel), people, epsilon=epsilon)))
    names = tuple(name for name, person in zip(table.names, table.is_person.tolist(), strict=True) if person)
    return ReplacingPeople(names, tuple(found))


def _panel_ids(project: Project) -> set[int]:
    try:
        return set(panel_judges(project))
    except UnknownJudge:
        return set()


def _panel(table: AnswerTable, rows: list[int]) -> FloatArray:
    """The side of these judges' mean preference; "neither" where none preferred a document, NaN without answers."""
    preference, label = table.preference[rows], table.label[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pairs without an answer
        mean = np.nanmean(preference, axis=0)
    neither = np.isnan(mean) & (label == NEITHER).any(axis=0)
    return np.where(neither, NEITHER, np.where(np.isnan(mean), np.nan, side(np.nan_to_num(mean, nan=0.5))))
