"""Preferences without the position biases that the scores leave out, for all that reads the answers beside the scores.

Rounds of pairs and frozen pairs read them. The biases are `ProjectFit.judge_terms`, measured by `scoring.numerics.judges.position_bias`.
"""

from __future__ import annotations

from collections.abc import Collection

from scoring.models import ProjectFit
from scoring.raters import odds_of_first


def preference_without_bias(query_ids: Collection[int]) -> tuple[str, list[float]]:
    """An answer's preference as SQL with its parameters: without the position biases that the scores of these queries leave out.

    A bias multiplies the odds of the document that was shown first. The row of the answer is named `answer`.
    """
    fits = ProjectFit.objects.filter(project__queries__in=query_ids).exclude(judge_terms={}).distinct()
    cases, parameters = "", list[float]()
    for rater, terms in fits.values_list("rater", "judge_terms"):
        for judge, odds in odds_of_first(rater, terms).items():
            cases += " WHEN %s THEN CASE WHEN answer.swapped THEN %s::float8 ELSE %s::float8 END"
            parameters += [judge, 1.0 / odds, odds]
    if not cases:
        return "answer.preference", []
    first = f"CASE answer.annotator_id{cases} ELSE 1.0::float8 END"
    return f"answer.preference / (answer.preference + (1.0 - answer.preference) * {first})", parameters
