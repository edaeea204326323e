"""Pages about people: inviting, changing members, planning, rules, gold by hand, verdicts, one's own page."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_person
from labeling.access.links import find_link
from labeling.access.members import invite, open_invitations
from labeling.models import (
    Annotator,
    ApiToken,
    AuditEntry,
    GoldAnswer,
    Judgment,
    Membership,
    Pair,
    Project,
    SpotCheck,
)
from scoring.annotators.adjudication import adjudicate
from scoring.models import Adjudication, SpotCheckPlan
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_user,
    page,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair(project: Project) -> Pair:
    """Two judges differ on it; Grace is for b, with a reason that would be markup."""
    pair = make_pair(*candidates_of(make_query(project, size=4))[:2])
    for name, preference in (("MiniLM", 0.9), ("BM25", 0.6)):
        judge(pair, make_judge(project, name=name), preference, rationale="names the <b>dose</b>")
    judge(pair, get_person(project, member(project, "grace")), 0.05, rationale="two <script> days")
    return pair


def member(project: Project, name: str, role: str = "annotator") -> Any:
    user = make_user(name, first_name=name.capitalize())
    Membership.objects.create(project=project, user=user, role=role)
    return user


def act(client: Client, project: Project, action: str, **fields: Any) -> Any:
    return client.post(reverse("people", args=[project.slug]), {"action": action, **fields}, follow=True)


# --- members and invitations -------------------------------------------------------------


def test_an_invitation_is_shown_once_and_leads_in(client: Client, project: Project) -> None:
    said = act(client, project, "invite", role="annotator", days="7").content.decode()
    path = said.split("/enter/")[1].split("/")[0]
    assert find_link(path) is not None
    assert path not in page(client, "people", project.slug)
    newcomer = Client()
    arrived = newcomer.post(reverse("enter", args=[path]), {"name": "Emmy"}, follow=True)
    assert arrived.redirect_chain[-1][0].startswith(f"/p/{project.slug}/compare/")
    assert Membership.objects.get(project=project, role="annotator").user.first_name == "Emmy"


def test_an_invitation_is_revoked(client: Client, project: Project) -> None:
    token = invite(project, role="viewer").token
    assert "No open invitations" not in page(client, "people", project.slug)
    act(client, project, "revoke", link=open_invitations(project).get().pk)
    assert find_link(token) is None
    assert "No open invitations" in page(client, "people", project.slug)


def test_roles_quotas_and_leaving(client: Client, project: Project) -> None:
    grace = member(project, "grace")
    assert (
        "Grace now has the role viewer" in act(client, project, "role", user=grace.pk, role="viewer").content.decode()
    )
    assert "has a quota of 40 answers" in act(client, project, "quota", user=grace.pk, quota="40").content.decode()
    assert Membership.objects.get(user=grace).quota == 40
    assert "has no quota" in act(client, project, "quota", user=grace.pk, quota="").content.decode()
    assert "their answers stay" in act(client, project, "remove", user=grace.pk).content.decode()
    assert not Membership.objects.filter(user=grace).exists()
    actions = set(AuditEntry.objects.filter(project=project).values_list("action", flat=True))
    assert actions == {"member.role", "member.quota", "member.removed"}


def test_a_wrong_quota_stands_at_its_member(client: Client, project: Project) -> None:
    grace = member(project, "grace")
    refused = act(client, project, "quota", user=grace.pk, quota="many")
    assert refused.status_code == 422
    assert refused.content.decode().count(f'quota-{grace.pk}-error"') == 2
    assert 'value="many"' in refused.content.decode()
    assert act(client, project, "role", user=grace.pk, role="king").status_code == 422


def test_the_last_owner_is_told_why_they_stay(client: Client, project: Project, owner: Any) -> None:
    answer = act(client, project, "remove", user=owner.pk)
    assert answer.status_code == 422
    assert "make another member an owner first" in answer.content.decode()
    assert not AuditEntry.objects.filter(project=project).exists()


def test_members_of_other_projects_cannot_be_changed(client: Client, project: Project) -> None:
    stranger = member(make_project(make_user()), "stranger")
    assert act(client, project, "remove", user=stranger.pk).status_code == 404


def test_a_paused_person_is_let_go_on(client: Client, project: Project) -> None:
    grace = member(project, "grace")
    person = get_person(project, grace)
    Annotator.objects.filter(pk=person.pk).update(paused_at="2026-01-02T03:04:05Z", pause_reason="2 of 5 right")
    assert "Grace is paused" in page(client, "people", project.slug)
    assert "earlier gold results reset" in act(client, project, "resume", user=grace.pk).content.decode()
    assert "2 of 5 right" not in page(client, "people", project.slug)


def test_people_who_left_keep_their_answers_in_the_table(client: Client, project: Project, pair: Pair) -> None:
    Membership.objects.filter(user__username="grace").delete()
    said = page(client, "people", project.slug)
    assert "Grace" in said and "former member" in said


def test_viewers_see_the_people_and_change_nothing(client: Client, project: Project, pair: Pair) -> None:
    viewer = Client()
    viewer.force_login(member(project, "vera", "viewer"))
    said = page(viewer, "people", project.slug)
    assert "Grace" in said
    assert "Create link" not in said and "Plan spot checks" not in said


def test_an_unknown_action_changes_nothing(client: Client, project: Project) -> None:
    assert act(client, project, "crown").status_code == 422


# --- plans and rules ---------------------------------------------------------------------


def test_a_plan_is_made_shown_and_withdrawn(client: Client, project: Project, pair: Pair) -> None:
    said = act(client, project, "plan", reason="disagreement", pairs="5", overlap="2").content.decode()
    assert "Planned 1 pair. No more pairs of this kind exist." in said
    assert SpotCheck.objects.filter(pair=pair).count() == 2
    act(client, project, "withdraw", plan=SpotCheckPlan.objects.get().pk)
    assert not SpotCheck.objects.exists()
    assert "withdrawn" in page(client, "people", project.slug)


def test_nothing_to_plan_says_what_would_help_and_keeps_the_form(client: Client, project: Project) -> None:
    answer = act(client, project, "plan", reason="uncertain", pairs="7", overlap="1")
    assert answer.status_code == 422
    assert "start a run first" in answer.content.decode()
    assert 'value="7"' in answer.content.decode()


def test_the_preview_counts_pairs_and_time(client: Client, project: Project, pair: Pair) -> None:
    said = page(client, "plan-preview", project.slug, reason="random", pairs="4", overlap="2")
    assert "4 pairs, 8 answers" in said and "assuming 15 s per pair" in said
    assert "Enter a whole number" in page(client, "plan-preview", project.slug, reason="random", pairs="many")
    assert not SpotCheck.objects.exists()


def test_rules_are_stored_whole_or_not_at_all(client: Client, project: Project) -> None:
    rules = {
        "gold_every": "4", "gold_answers": "3", "gold_accuracy": "80", "gold_tolerance": "0.2", "lease_s": "120",
        "gold_feedback": "open", "hidden_metadata": "grade, source",
    }  # fmt: skip
    act(client, project, "rules", **rules)
    project.refresh_from_db()
    assert (project.gold_every, project.gold_accuracy, project.gold_feedback) == (4, 0.8, "open")
    assert (project.hidden_metadata, project.show_others_after) == (["grade", "source"], False)
    refused = act(client, project, "rules", **{**rules, "gold_every": "9", "gold_accuracy": "120"})
    assert (refused.status_code, "less than or equal to 100" in refused.content.decode()) == (422, True)
    assert 'id="gold_accuracy-error"' in refused.content.decode() and 'value="9"' in refused.content.decode()
    project.refresh_from_db()
    assert project.gold_every == 4


# --- agreement, disagreements, verdicts --------------------------------------------------


def test_agreement_says_why_there_is_none(client: Client, project: Project, pair: Pair) -> None:
    said = page(client, "people-agreement", project.slug)
    assert "no common pairs" in said
    assert "Only one person has answered" in said
    assert "one common pair is too few" in said


def test_a_disagreement_is_listed_and_shows_every_reason(client: Client, project: Project, pair: Pair) -> None:
    assert "0.70" in page(client, "disagreements", project.slug)
    said = page(client, "adjudicate", project.slug, pair.pk)
    assert "two &lt;script&gt; days" in said and "names the &lt;b&gt;dose&lt;/b&gt;" in said


def test_a_verdict_moves_on_and_is_taken_back(client: Client, project: Project, owner: Any, pair: Pair) -> None:
    address = reverse("adjudicate", args=[project.slug, pair.pk])
    answer = client.post(address, {"verdict": "2", "gold": "1"}, follow=True)
    assert answer.redirect_chain[-1][0].startswith(reverse("disagreements", args=[project.slug]))
    assert "Decided: A, slightly." in answer.content.decode()
    assert Adjudication.objects.get().judgment.preference == 0.75
    assert GoldAnswer.objects.get().preference == 0.75
    assert "A, slightly" in page(client, "disagreements", project.slug, show="decided")
    client.post(address, {"action": "undo"})
    assert not Adjudication.objects.exists()
    assert not Judgment.objects.live().filter(annotator__user=owner).exists()


def test_after_a_verdict_comes_the_next_of_the_list(client: Client, project: Project, pair: Pair) -> None:
    others = candidates_of(pair.a.query)
    grace = Annotator.objects.get(user__username="grace")
    minilm = Annotator.objects.get(name="MiniLM")
    second, third = make_pair(others[0], others[2]), make_pair(others[1], others[2])
    for other, preference in ((second, 0.3), (third, 0.5)):
        judge(other, minilm, preference)
        judge(other, grace, 0.05)
    address = reverse("adjudicate", args=[project.slug, third.pk])
    answer = client.post(address, {"verdict": "1"})
    assert (
        answer.url
        == f"{reverse('adjudicate', args=[project.slug, second.pk])}?between=anybody&last={third.pk}&verdict={Adjudication.objects.get().pk}"
    )  # type: ignore[attr-defined]


def test_two_owners_at_once_do_not_overrule_each_other_unseen(
    client: Client, project: Project, owner: Any, pair: Pair
) -> None:
    """Both opened the undecided pair; the second one is told, sees the verdict, and may decide again."""
    adjudicate(pair, member(project, "emmy", "owner"), "1")
    address = reverse("adjudicate", args=[project.slug, pair.pk])
    said = client.post(address, {"verdict": "5", "seen": "0"}, follow=True).content.decode()
    assert "Emmy decided this pair in the meantime. Nothing was changed." in said
    assert "Decided by Emmy: A, clearly." in said
    standing = Adjudication.objects.get()
    assert f'name="seen" value="{standing.pk}"' in said
    assert standing.judgment.preference == 0.95
    said = client.post(f"{address}?seen=0", {"action": "undo"}, follow=True).content.decode()
    assert "in the meantime" in said and Adjudication.objects.exists()
    client.post(address, {"verdict": "5", "seen": standing.pk})
    assert Adjudication.objects.get().by == owner


def test_a_bad_verdict_is_refused_in_words(client: Client, project: Project, pair: Pair) -> None:
    answer = client.post(reverse("adjudicate", args=[project.slug, pair.pk]), {"verdict": "9"}, follow=True)
    assert "Choose one of the answers on this page." in answer.content.decode()


def test_gold_is_set_by_hand_on_the_pair_page(client: Client, project: Project, pair: Pair) -> None:
    address = reverse("mark-gold", args=[project.slug, pair.pk])
    client.post(address, {"answer": "right_clearly", "explanation": "Only one names the dose."})
    assert GoldAnswer.objects.get().preference == 0.05
    assert "Only one names the dose." in page(client, "pair", project.slug, pair.pk)
    client.post(address, {"answer": ""})
    assert not GoldAnswer.objects.exists()


# --- one's own page ----------------------------------------------------------------------


def test_ones_own_page_shows_ones_own_work(project: Project, pair: Pair) -> None:
    grace = Client()
    grace.force_login(Annotator.objects.get(user__username="grace").user)
    said = page(grace, "profile")
    assert project.name in said and "gold accuracy" in said
    other = Client()
    other.force_login(member(project, "emmy"))
    assert "gold accuracy" not in page(other, "profile")


def test_a_key_without_a_scope_says_so_at_the_field(client: Client, owner: Any) -> None:
    answer = client.post(reverse("tokens"), {"name": "notebook", "scope": ["everything"]})
    assert answer.status_code == 422 and 'value="notebook"' in answer.content.decode()
    assert (
        "Choose at least one permission for the key."
        in client.post(reverse("tokens"), {"name": "notebook"}).content.decode()
    )
    assert not ApiToken.objects.exists()


def test_an_answer_that_is_none_leaves_gold_as_it_is(client: Client, project: Project, pair: Pair) -> None:
    address = reverse("mark-gold", args=[project.slug, pair.pk])
    client.post(address, {"answer": "right_clearly", "explanation": "Only one names the dose."})
    refused = client.post(address, {"answer": "right_clearly", "explanation": "x" * 1001})
    assert refused.status_code == 422 and 'id="explanation-error"' in refused.content.decode()
    assert client.post(address, {"answer": "odd"}).status_code == 422
    assert "Only one names the dose." in page(client, "pair", project.slug, pair.pk)


def test_a_key_is_shown_once_and_revoked(client: Client, owner: Any) -> None:
    said = client.post(reverse("tokens"), {"name": "notebook", "scope": ["read"]}).content.decode()
    key = said.split('id="new-token">')[1].split("<")[0]
    assert key.startswith("zelo_")
    asked = {"Authorization": f"Bearer {key}"}
    assert Client().get("/api/v1/projects", headers=asked).status_code == 200
    assert key not in page(client, "profile")
    theirs = Client()
    theirs.force_login(make_user())
    theirs.post(reverse("tokens"), {"action": "revoke", "token": ApiToken.objects.get().pk})
    assert ApiToken.objects.count() == 1, "a key of others is not theirs to revoke"
    client.post(reverse("tokens"), {"action": "revoke", "token": ApiToken.objects.get().pk})
    assert Client().get("/api/v1/projects", headers=asked).status_code == 401
