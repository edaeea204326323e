"""Another rater, or other options of it: every query is fitted anew, and the prior chosen again."""

from __future__ import annotations

import pytest

from labeling.projects import BadProject, change_project, create_project
from scoring.models import ProjectFit, QueryFit
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_stale, stale_query_ids
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project
from workers.jobs.calibration import whats_due

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def rated_project(*, chosen: bool = True):  # type: ignore[no-untyped-def]
    project = make_project(queries=2)
    judge = make_judges(project)[0]
    for query in project.queries.all():
        for a, b in ((0, 1), (1, 2), (2, 3)):
            judge_pair(make_pair(query, a, b), judge, 0.2)
    if chosen:
        choose_project_fit(project.pk)
    rate_stale(project.pk)
    assert stale_query_ids(project.pk) == []
    return project


@pytest.mark.parametrize("chosen", [False, True])
def test_another_rater_fits_every_query_anew(chosen: bool) -> None:
    project = rated_project(chosen=chosen)
    change_project(project, rater="bradley-terry")
    assert len(stale_query_ids(project.pk)) == 2
    rate_stale(project.pk)
    assert set(QueryFit.objects.values_list("rater", flat=True)) == {"bradley-terry"}
    assert stale_query_ids(project.pk) == []


def test_options_of_the_rater_change_the_fits_and_forget_the_prior() -> None:
    project = rated_project()
    ProjectFit.objects.filter(project=project).update(prior_precision=0.4, judge_terms={"1": [1, 0, 1]})
    change_project(project, rater_options={"prior_precision": 7.0})
    shared = ProjectFit.objects.get(project=project)
    assert (shared.prior_precision, shared.judge_terms, shared.judgments) == (None, {}, 0)
    assert [due.fit for due in whats_due(project.pk)] == [True]
    rate_stale(project.pk)
    assert set(QueryFit.objects.values_list("prior_precision", flat=True)) == {7.0}


@pytest.mark.parametrize(
    "same", [{"name": "Other"}, {"instruction": "new"}, {"rater": "thurstone", "rater_options": {}}]
)
def test_what_leaves_the_rater_as_it_was_refits_nothing(same: dict) -> None:
    project = rated_project()
    change_project(project, **same)
    assert stale_query_ids(project.pk) == []


def test_a_choice_worked_out_before_the_change_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    from scoring import project_fits

    project = rated_project()
    measured = project_fits.measure_judges

    def meanwhile(*args, **options):  # type: ignore[no-untyped-def]
        change_project(project, rater="bradley-terry")
        return measured(*args, **options)

    monkeypatch.setattr(project_fits, "measure_judges", meanwhile)
    assert not choose_project_fit(project.pk).changed
    assert ProjectFit.objects.get(project=project).rater == "bradley-terry"


@pytest.mark.parametrize("text", ["nul\x00", "half \ud800"])
def test_instruction_that_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(BadProject, match="instruction"):
        create_project("Good", instruction=text)
    with pytest.raises(BadProject, match="instruction"):
        change_project(make_project(), instruction=text)
