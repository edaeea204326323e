"""The judges that count in a project's scores: the rater's option `judges` names them, and the fits leave out all others.

`scoring.rating` and `scoring.project_fits` fit only counted votes; pages still show and measure every judge.
"""

from __future__ import annotations

import numpy as np

from labeling.models import Annotator, Project
from scoring.annotators.student_weights import student_plugins
from scoring.columns import ProjectColumns, only_votes


class UnknownJudge(LookupError):
    """The rater's option names a judge that the project does not have."""


def counted_judges(project: Project) -> set[int] | None:
    """Ids of the judges that count; None for all. Raises UnknownJudge."""
    wanted = [each.strip() for each in str(project.rater_options.get("judges", "")).split(",") if each.strip()]
    if not wanted:
        return None
    judges = list(Annotator.objects.judges().filter(project=project).values_list("id", "name"))
    found: set[int] = set()
    for name in wanted:
        named = {pk for pk, own in judges if name in (own, str(pk))}
        if not named:
            known = ", ".join(own for _, own in judges) or "none"
            raise UnknownJudge(
                f"the rater's option judges names {name[:80]!r}, which is not a judge of the project; expected some of: {known}"
            )
        found |= named
    return found


def panel_judges(project: Project) -> list[int]:
    """Ids of the judges that count, without students of the panel, ascending. Raises UnknownJudge."""
    found = Annotator.objects.judges().filter(project=project).exclude(plugin__in=student_plugins())
    counted = counted_judges(project)
    return [pk for pk in found.order_by("id").values_list("id", flat=True) if counted is None or pk in counted]


def counted_annotators(project: Project) -> set[int] | None:
    """Ids of people and of the judges that count; None for all. Raises UnknownJudge."""
    judges = counted_judges(project)
    if judges is None:
        return None
    return judges | set(Annotator.objects.people().filter(project=project).values_list("id", flat=True))


def counted_votes(project: Project, read: ProjectColumns) -> ProjectColumns:
    """The votes of people and of the judges that count. Raises UnknownJudge."""
    annotators = counted_annotators(project)
    if annotators is None:
        return read
    counts = np.isin(read.annotator_ids, sorted(annotators))
    return only_votes(read, counts[read.columns.judge])
