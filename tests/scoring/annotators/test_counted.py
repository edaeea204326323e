"""The judges that count: the rater's option names them, and scores leave out all others."""

from __future__ import annotations

import itertools

import pytest
from django.test import Client

from labeling.access.annotators import get_person
from labeling.models import Annotator, Membership, Project
from labeling.projects import change_project
from scoring.annotators.counted import UnknownJudge, counted_judges
from scoring.annotators.replacing_people import replacing_people
from scoring.elo_orders import elo_of, judge_aware_elo
from scoring.models import QueryFit, Score
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_stale
from tests.factories.pages import page
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_user
from workers.runs.ordering import RunRefused, start_run

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


def test_figures_of_an_unknown_panel_say_why_there_are_none(client: Client) -> None:
    project = make_split_panel()
    judges, owner = list(project.annotators.order_by("id")), make_user()
    Membership.objects.create(project=project, user=owner, role="owner")
    person = get_person(project, owner)
    judge_pair(make_pair(project.queries.get(), 0, 1), person, 0.9)
    assert [each.annotator_id for each in replacing_people(project).judges] == [None, *(each.pk for each in judges)]
    project = change_project(project, rater_options={"judges": f"{judges[0].pk}, nobody"})
    assert [each.annotator_id for each in replacing_people(project).judges] == [each.pk for each in judges]
    with pytest.raises(RunRefused, match="'nobody', which is not a judge"):
        start_run(project, judges=judges, sampler="conflicts", orders="both")
    client.force_login(owner)
    found = client.get(f"/api/v1/projects/{project.slug}/cycles").json()
    assert (found["triples"], found["share"]) == (0, None) and "nobody" in found["problem"]
    assert "names &#x27;nobody&#x27;, which is not a judge of the project" in page(client, "agreement", project.slug)
    change_project(project, rater_options={"judges": f"{judges[0].pk}"})
    found = client.get(f"/api/v1/projects/{project.slug}/cycles").json()
    assert found["problem"] == "" and found["triples"] > 0


def test_the_panel_that_may_replace_people_is_that_of_the_scores() -> None:
    project = make_project(queries=1, documents=9)
    query, judges = project.queries.get(), make_judges(project, 3)
    people = [get_person(project, make_user()) for _ in range(3)]
    for a, b in itertools.combinations(range(9), 2):
        for annotator in (*people, *judges):
            judge_pair(make_pair(query, a, b), annotator, 0.1 if annotator == judges[2] else 0.9)

    def advantage(*panel: Annotator) -> float | None:
        changed = change_project(project, rater_options={"judges": ", ".join(str(each.pk) for each in panel)})
        first, *others = replacing_people(changed).judges
        assert first.annotator_id is None and len(others) == 3
        return first.result.advantage

    assert advantage() == advantage(*judges[:2]) == 1.0
    assert advantage(*judges[1:]) == 0.0, "the two judges' mean is a tie, which no person answered"


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
