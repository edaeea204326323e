"""REST and command line of people: the same verbs as the pages, with their refusals in words."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from labeling.access.annotators import get_person
from labeling.access.links import find_link
from labeling.models import AuditEntry, GoldAnswer, Membership, Pair, Project, Role, SpotCheck
from tests.factories.api import Api
from tests.factories.rows import judge_pair, make_judges, make_member, make_pair, make_project

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    return make_project(queries=2, documents=5)


@pytest.fixture
def owner(project: Project) -> Any:
    return make_member(project, Role.OWNER)


@pytest.fixture
def pair(project: Project) -> Pair:
    """Two judges and an annotator, who sees it the other way round."""
    pair = make_pair(project.queries.order_by("id").first())
    for judge, preference in zip(make_judges(project, 2), (0.9, 0.6), strict=True):
        judge_pair(pair, judge, preference)
    judge_pair(pair, get_person(project, make_member(project, Role.ANNOTATOR)), 0.05)
    return pair


def send(user: Any, method: str, path: str, body: Any = None) -> Any:
    """Any method, as the helper of the other tests sends GET and POST."""
    client = Client()
    client.force_login(user)
    return client.generic(method, f"/api/v1{path}", json.dumps(body or {}), content_type="application/json")


def test_members_are_listed_changed_and_removed(project: Project, owner: Any, pair: Pair) -> None:
    base = f"/projects/{project.slug}/members"
    annotator = Membership.objects.get(project=project, role=Role.ANNOTATOR).user
    mine = next(row for row in Api(owner).get(base).json() if row["user_id"] == annotator.pk)
    assert (mine["answers"], mine["role"], mine["with_judges"]["count"], mine["paused"]) == (1, "annotator", 1, False)
    changed = send(owner, "PATCH", f"{base}/{annotator.pk}", {"role": "viewer", "quota": 5}).json()
    assert (changed["role"], changed["quota"]) == ("viewer", 5)
    assert send(owner, "PATCH", f"{base}/{annotator.pk}", {"quota": None}).json()["quota"] is None
    assert send(owner, "DELETE", f"{base}/{annotator.pk}").status_code == 204
    refused = send(owner, "DELETE", f"{base}/{owner.pk}")
    assert (refused.status_code, "last owner" in refused.json()["detail"]) == (422, True)
    actions = list(
        AuditEntry.objects.filter(action__startswith="member.").order_by("id").values_list("action", flat=True)
    )
    assert actions == ["member.role", "member.quota", "member.quota", "member.removed"]


def test_an_invitation_is_made_listed_and_revoked(project: Project, owner: Any) -> None:
    base = f"/projects/{project.slug}/invitations"
    made = send(owner, "POST", base, {"role": "annotator", "days": 3}).json()
    token = made["path"].split("/")[2]
    assert find_link(token) is not None
    (listed,) = Api(owner).get(base).json()
    assert "path" not in listed and "token" not in listed
    assert send(owner, "DELETE", f"{base}/{listed['id']}").status_code == 204
    assert find_link(token) is None
    assert send(owner, "POST", base, {"role": "king"}).status_code == 422


def test_plans_are_previewed_made_and_withdrawn(project: Project, owner: Any, pair: Pair) -> None:
    base = f"/projects/{project.slug}/spot-checks"
    order = {"reason": "random", "pairs": 4, "overlap": 2}
    preview = send(owner, "POST", f"{base}/preview", order).json()
    assert (preview["pairs"], preview["slots"], preview["measured"]) == (4, 8, False)
    assert not SpotCheck.objects.exists()
    planned = send(owner, "POST", base, order).json()
    assert (planned["pairs"], planned["slots"]) == (4, 8)
    (listed,) = Api(owner).get(base).json()
    assert (listed["asked"], listed["left"], listed["withdrawn"]) == (8, 8, False)
    assert send(owner, "DELETE", f"{base}/{planned['plan_id']}").status_code == 204
    assert Api(owner).get(base).json()[0]["withdrawn"]
    refused = send(owner, "POST", base, {"reason": "whim"})
    assert (refused.status_code, "expected one of" in refused.json()["detail"]) == (422, True)


def test_rules_change_by_what_is_sent(project: Project, owner: Any) -> None:
    path = f"/projects/{project.slug}/rules"
    before = Api(owner).get(path).json()
    after = send(owner, "PATCH", path, {"gold_every": 3, "hidden_metadata": ["source"]}).json()
    assert after == {**before, "gold_every": 3, "hidden_metadata": ["source"]}
    assert send(owner, "PATCH", path, {"gold_accuracy": 7}).status_code == 422


def test_a_disagreement_is_decided_once_and_taken_back(project: Project, owner: Any, pair: Pair) -> None:
    base = f"/projects/{project.slug}"
    (found,) = Api(owner).get(f"{base}/disagreements").json()
    assert (found["pair_id"], found["people"]["mean"], found["judges"]["count"]) == (pair.pk, 0.05, 2)
    path = f"{base}/pairs/{pair.pk}/verdict"
    verdicts = [send(owner, "PUT", path, {"answer": "2", "gold": True}).json() for _ in range(2)]
    assert [(each["preference"], each["changed"]) for each in verdicts] == [(0.75, True), (0.75, False)]
    assert GoldAnswer.objects.get().preference == 0.75
    assert Api(owner).get(f"{base}/disagreements").json() == []
    assert send(owner, "PUT", path, {"answer": "5", "seen": 0}).status_code == 409
    assert send(owner, "PUT", path, {"answer": "5", "seen": verdicts[0]["verdict_id"]}).json()["changed"]
    assert [send(owner, "DELETE", path).status_code for _ in range(2)] == [204, 404]
    assert send(owner, "PUT", path, {"answer": "9"}).status_code == 422


def test_agreement_over_rest_says_why_there_is_none(project: Project, owner: Any, pair: Pair) -> None:
    found = Api(owner).get(f"/projects/{project.slug}/people/agreement").json()
    assert (found["people"], found["judges"]) == (1, 2)
    assert {couple["kappa"]["undefined"] for couple in found["couples"]} == {"few"}


def test_the_command_plans_previews_and_reports(project: Project, pair: Pair) -> None:
    def said(*arguments: Any) -> str:
        out = StringIO()
        call_command("spot_checks", project.slug, *arguments, stdout=out)
        return out.getvalue()

    assert "no plans yet" in said()
    assert "2 of 2 pairs, 4 answers" in said("--reason", "random", "--pairs", "2", "--overlap", "2", "--preview")
    assert "1 of 9 pairs, 1 slots" in said("--reason", "disagreement", "--pairs", "9")
    assert "disagreement" in said()
    with pytest.raises(CommandError, match="start a run first"):
        said("--reason", "uncertain")
