"""The judges that count: the rater's option names them, and scores leave out all others."""

from __future__ import annotations

import pytest

from labeling.access.annotators import get_person
from labeling.models import Project
from labeling.projects import change_project
from scoring.annotators.counted import UnknownJudge, counted_judges
from scoring.elo_orders import elo_of, judge_aware_elo
from scoring.models import QueryFit, Score
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_stale
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def order_of(project: Project) -> list[int]:
    rows = Score.objects.filter(candidate__query__project=project).order_by("-elo")
    return list(rows.values_list("candidate__first_stage_rank", flat=True))


def make_split_panel() -> Project:
    """Two judges say that earlier documents are better, one says the opposite."""
    project = make_project(queries=1, documents=4)
    query = project.queries.get()
    for number, judge in enumerate(make_judges(project, 3)):
        for a in range(4):
            for b in range(a + 1, 4):
                judge_pair(make_pair(query, a, b), judge, 0.9 if number < 2 else 0.1)
    rate_stale(project.pk)
    return project


def test_only_named_judges_and_people_enter_the_scores() -> None:
    project = make_split_panel()
    assert order_of(project) == [1, 2, 3, 4]
    last = project.annotators.order_by("-id")[0]
    project = change_project(project, rater_options={**project.rater_options, "judges": f" {last.pk} "})
    assert counted_judges(project) == {last.pk}
    rate_stale(project.pk)
    assert order_of(project) == [4, 3, 2, 1]
    assert QueryFit.objects.get().judgments == 6
    assert choose_project_fit(project.pk).version >= 1
    person = get_person(project, make_user())
    for a, b in ((0, 1), (0, 2), (0, 3)):
        judge_pair(make_pair(project.queries.get(), a, b), person, 1.0)
    rate_stale(project.pk)
    assert QueryFit.objects.get().judgments == 9
    project = change_project(project, rater_options={**project.rater_options, "judges": ""})
    rate_stale(project.pk)
    assert order_of(project) == [1, 2, 3, 4]


def test_a_name_that_no_judge_has_is_the_reason_why_nothing_is_fitted() -> None:
    project = make_split_panel()
    project = change_project(project, rater_options={**project.rater_options, "judges": "nobody"})
    with pytest.raises(UnknownJudge, match="'nobody', which is not a judge of the project; expected some of"):
        counted_judges(project)
    rate_stale(project.pk)
    assert "nobody" in QueryFit.objects.get().error


def test_orders_of_some_judges_and_of_all() -> None:
    project = make_split_panel()
    queries = list(project.queries.values_list("id", flat=True))
    first, second, third = project.annotators.order_by("id").values_list("id", flat=True)
    candidates = list(project.queries.get().candidates.order_by("id").values_list("id", flat=True))

    def best(scores: dict[int, float]) -> int:
        return candidates.index(max(scores, key=lambda each: scores[each]))

    assert best(elo_of(project, queries)) == best(elo_of(project, queries, [first, second])) == 0
    assert best(elo_of(project, queries, [third])) == 3
    assert best(judge_aware_elo(project, queries)) == 0
