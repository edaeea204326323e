"""May a judge replace people: read from a project, shown on the page, over REST."""

from __future__ import annotations

import io

import numpy as np
import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_person
from labeling.judgments import record_judgments
from labeling.models import Membership
from labeling.pairs import store_pairs
from labeling.records import AnswerKind, NewJudgment
from scoring.annotators.replacing_people import replacing_people
from scoring.numerics.judges.replacement import replacement_test
from tests.factories.pages import page
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_user,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def test_judge_and_panel_are_tested_on_peoples_pairs(client: Client) -> None:
    project = make_project()
    owner = make_user()
    Membership.objects.create(project=project, user=owner, role="owner")
    client.force_login(owner)
    ids = candidate_ids(make_query_with_documents(project, 10))
    query = project.queries.get()
    ends = [(a, b) for a in ids for b in ids if a < b]
    pairs = store_pairs([a for a, _ in ends], [b for _, b in ends], [query.pk] * len(ends))
    people = [get_person(project, make_user()) for _ in range(3)]
    good, bad = make_judges(project, 2)
    rng = np.random.default_rng(0)
    rows = []
    for place, pair in enumerate(pairs):
        truth = 0.95 if place % 2 else 0.05
        for person in people:
            own = truth if rng.random() < 0.85 else 1.0 - truth
            rows.append(NewJudgment(pair_id=pair, annotator_id=person.pk, swapped=False, preference=own))
        rows.append(NewJudgment(pair_id=pair, annotator_id=good.pk, swapped=False, preference=truth))
        rows.append(
            NewJudgment(
                pair_id=pair, annotator_id=bad.pk, swapped=False, preference=None, kind=AnswerKind.BOTH_IRRELEVANT
            )
        )
    record_judgments(rows)
    panel, *judges = replacing_people(project).judges
    assert panel.annotator_id is None and panel.result.passes, (
        "a judge without a preference leaves the panel's as it is"
    )
    assert {each.annotator_id: each.result.passes for each in judges} == {good.pk: True, bad.pk: False}
    assert all(test.items == 45 for test in panel.result.people)
    html = page(client, "people-agreement", project.slug)
    assert "May a judge replace people?" in html and "passes" in html and "fails" in html
    out = io.StringIO()
    call_command("report", project.slug, stdout=out)
    (test,) = [part for part in out.getvalue().split("\n\n") if "winning rate" in part]
    results = [line.split("|")[1:3] for line in test.splitlines()[2:]]
    names = ["panel (mean of the judges that count)", *(each.name for each in judges)]
    verdicts = ["passes" if each.result.passes else "fails" for each in (panel, *judges)]
    assert [[cell.strip().replace("\\", "") for cell in row] for row in results] == [
        *map(list, zip(names, verdicts, strict=True))
    ]
    body = client.get(f"/api/v1/projects/{project.slug}/judges/replacement?epsilon=0.1").json()
    assert body[0]["name"] == "panel" and body[0]["epsilon"] == 0.1
    assert len(body[0]["people"]) == 3
    assert client.get(f"/api/v1/projects/{project.slug}/judges/replacement?epsilon=2").status_code == 422


def test_the_report_says_how_many_answers_the_test_needs(client: Client) -> None:
    project = make_project(queries=1, documents=4)
    owner = make_user()
    Membership.objects.create(project=project, user=owner, role="owner")
    client.force_login(owner)
    needed = replacement_test(np.zeros(0), np.zeros((0, 0))).items_needed
    assert needed is not None and needed > 30
    assert f"needs 3 people with about {needed} shared pairs each: plan spot checks" in page(
        client, "report", project.slug
    )
    judge, person = make_judges(project)[0], get_person(project, owner)
    pair = make_pair(project.queries.get())
    judge_pair(pair, judge, 0.9)
    judge_pair(pair, person, 0.9)
    cache.clear()
    html = page(client, "report", project.slug)
    assert "too few people or answers" in html and "plan spot checks" not in html
    german = client.get(reverse("report", args=[project.slug]), headers={"Accept-Language": "de"}).content.decode()
    assert "Darf ein Juror Menschen ersetzen?" in german and "ε = 0,2" in german
