"""Whether a run's judges should be weighted: by what they can be measured against, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from django.db import connection

from labeling.models import Project
from labeling.plugins import get_plugin
from labeling.projects import change_project
from labeling.stored_texts import StoredText, stored_text

Weights = Literal["equal", "anchored"]
OPTION = "judge_weights"
EQUAL: Weights = "equal"
ANCHORED: Weights = "anchored"

NO_OPTION = stored_text("the rater %(rater)s does not support weights of judges")
NO_ANCHORS = stored_text("no gold answers, people’s answers or grades measure the judges yet, so each counts the same")
HAS_ANCHORS = stored_text(
    "%(gold)s gold pairs, %(people)s answers of people and %(grades)s graded documents measure the judges, so each counts "
    "by its agreement with them"
)
HAS_GRADES = stored_text(
    "%(gold)s gold pairs, %(people)s answers of people and %(grades)s graded documents measure the judges, so each counts "
    "by its agreement with them; figures against the same grades become slightly optimistic"
)
CHOSEN = stored_text("the project’s settings say so")


@dataclass(frozen=True, slots=True)
class Advice:
    """The recommended weights for a run, with the reason. `can_choose`: the project's rater has the option."""

    weights: Weights
    reason: StoredText
    can_choose: bool = True


_ANCHORS = """
SELECT (SELECT count(*) FROM labeling_goldanswer WHERE project_id = %(project)s),
       (SELECT count(*) FROM labeling_annotator person JOIN labeling_live_judgment answer ON answer.annotator_id = person.id
        WHERE person.project_id = %(project)s AND person.is_person AND answer.kind = 'preference'),
       (SELECT count(*) FROM labeling_candidate candidate JOIN labeling_query query ON query.id = candidate.query_id
        WHERE query.project_id = %(project)s AND candidate.grade IS NOT NULL)
"""


def advise_weights(project: Project) -> Advice:
    """Return what the project's settings say; without a choice there, anchored weights as soon as something anchors them."""
    plugin = get_plugin("rater", project.rater)
    if OPTION not in plugin.Options.model_fields:
        return Advice(EQUAL, NO_OPTION % {"rater": project.rater}, can_choose=False)
    if OPTION in project.rater_options:
        return Advice(project.rater_options[OPTION], CHOSEN % {})
    with connection.cursor() as cursor:
        cursor.execute(_ANCHORS, {"project": project.pk})
        gold, people, grades = cursor.fetchone()
    if not gold + people + grades:
        return Advice(EQUAL, NO_ANCHORS % {})
    sentence = HAS_GRADES if grades else HAS_ANCHORS
    return Advice(ANCHORED, sentence % {"gold": f"{gold:,}", "people": f"{people:,}", "grades": f"{grades:,}"})


def set_weights(project: Project, weights: Weights, *, by: Any = None) -> None:
    """Let the project's fits weight judges so, unless they do already; another choice refits all queries. Raises BadProject."""
    advice = advise_weights(project)
    if not advice.can_choose or project.rater_options.get(OPTION, EQUAL) == weights:
        return
    change_project(project, rater_options={**project.rater_options, OPTION: weights}, by=by)
