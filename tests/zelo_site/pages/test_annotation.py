"""The pages of people who compare: who sees them, what the instruction shows, whose answers are listed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_person
from labeling.annotation.instruction import has_read
from labeling.models import GoldAnswer, Project, Role
from labeling.records import AnswerKind
from tests.factories.rows import judge_pair, make_member, make_pair, make_project, make_query_with_documents, make_user
from zelo_site.models import Preferences

pytestmark = pytest.mark.django_db
PAGES = ("compare", "instruction", "my-answers")


@pytest.fixture
def project() -> Project:
    return make_project()


@pytest.fixture
def person(project: Project, client: Client) -> Any:
    user = make_member(project, Role.ANNOTATOR)
    client.force_login(user)
    return user


def read(client: Client, name: str, project: Project, **data: str) -> str:
    answer = client.get(reverse(name, args=[project.slug]), data)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("role", [Role.OWNER, Role.ANNOTATOR])
def test_owners_and_annotators_compare(name: str, role: str, client: Client, project: Project) -> None:
    client.force_login(make_member(project, role))
    assert client.get(reverse(name, args=[project.slug])).status_code == 200


@pytest.mark.parametrize("name", PAGES)
def test_viewers_are_told_that_they_only_look(name: str, client: Client, project: Project) -> None:
    client.force_login(make_member(project, Role.VIEWER))
    answer = client.get(reverse(name, args=[project.slug]))
    assert answer.status_code == 403
    assert "View access only" in answer.content.decode()


@pytest.mark.parametrize("name", PAGES)
def test_strangers_find_nothing(name: str, client: Client, project: Project) -> None:
    client.force_login(make_user())
    assert client.get(reverse(name, args=[project.slug])).status_code == 404


@pytest.mark.parametrize("name", PAGES)
def test_visitors_are_sent_to_sign_in_and_back(name: str, client: Client, project: Project) -> None:
    address = reverse(name, args=[project.slug])
    answer = client.get(address)
    assert answer["Location"] == f"{reverse('sign-in')}?next={address}"


def test_instruction_is_confirmed_and_leads_to_the_pairs(client: Client, person: Any, project: Project) -> None:
    seen = re.search(r'name="seen" value="(\w+)"', read(client, "instruction", project))
    assert seen
    answer = client.post(reverse("instruction", args=[project.slug]), {"seen": seen[1]})
    assert answer["Location"] == reverse("compare", args=[project.slug])
    assert has_read(get_person(project, person), project)
    assert "Confirm and start" not in read(client, "instruction", project)


def test_changed_instruction_is_shown_again_instead_of_confirmed(client: Client, person: Any, project: Project) -> None:
    seen = re.search(r'name="seen" value="(\w+)"', read(client, "instruction", project))
    assert seen
    Project.objects.filter(pk=project.pk).update(instruction="Prefer the newer document.")
    answer = client.post(reverse("instruction", args=[project.slug]), {"seen": seen[1]}, follow=True)
    assert "was changed while you read" in answer.content.decode()
    assert "Prefer the newer document." in answer.content.decode()
    project.refresh_from_db()
    assert not has_read(get_person(project, person), project)


def test_known_pairs_with_an_explanation_are_the_worked_examples(client: Client, person: Any, project: Project) -> None:
    query = make_query_with_documents(project)
    assert "cooked rice" in read(client, "instruction", project)
    for b, explanation in ((1, "<b>B</b> is the shorter one."), (2, "")):  # of two known pairs one is still asked
        GoldAnswer.objects.create(pair=make_pair(query, 0, b), preference=0.3, explanation=explanation)
    page = read(client, "instruction", project)
    assert "cooked rice" not in page
    assert "&lt;b&gt;B&lt;/b&gt; is the shorter one." in page
    assert "B, slightly" in page


def test_own_answers_are_listed_as_they_were_seen(client: Client, person: Any, project: Project) -> None:
    query = make_query_with_documents(project)
    me = get_person(project, person)
    judge_pair(make_pair(query, 0, 1), me, 0.95, rationale="clear enough")
    judge_pair(make_pair(query, 0, 2), me, 0.75, swapped=True)
    judge_pair(make_pair(query, 1, 2), me, None, kind=AnswerKind.CANNOT_JUDGE)
    page = read(client, "my-answers", project)
    verdicts = re.findall(r'class="verdict"><span class="badge[^"]*">([^<]+)<', page)
    assert verdicts == ["cannot judge", "B, slightly", "A, clearly"]
    assert "clear enough" in page


def test_answers_of_others_are_not_listed(client: Client, person: Any, project: Project) -> None:
    pair = make_pair(make_query_with_documents(project))
    judge_pair(pair, get_person(project, make_member(project, Role.ANNOTATOR)), 0.95, rationale="of somebody else")
    page = read(client, "my-answers", project)
    assert "of somebody else" not in page
    assert "No answers yet" in page


def test_pages_speak_the_language_of_the_browser(client: Client, person: Any, project: Project) -> None:
    answer = client.get(reverse("compare", args=[project.slug]), headers={"Accept-Language": "de"})
    page = answer.content.decode()
    assert '<html lang="de">' in page
    assert "A, deutlich" in page
    assert "A, clearly" not in page


def test_chosen_language_is_kept_with_the_person(client: Client, person: Any, project: Project) -> None:
    here = reverse("compare", args=[project.slug])
    answer = client.post(reverse("set-language"), {"language": "de", "next": here})
    assert answer["Location"] == here
    assert Preferences.objects.get(user=person).language == "de"
    other_device = Client(headers={"Accept-Language": "en"})
    other_device.force_login(person)
    assert '<html lang="de">' in other_device.get(here).content.decode()


def test_unknown_language_and_foreign_address_change_nothing(client: Client, person: Any) -> None:
    answer = client.post(reverse("set-language"), {"language": "xx", "next": "https://elsewhere.example/"})
    assert answer["Location"] == "/"
    assert not Preferences.objects.exists()


def test_the_language_of_a_visitor_is_a_cookie_and_fills_no_table() -> None:
    visitor = Client()
    visitor.post(reverse("set-language"), {"language": "de"})
    assert '<html lang="de">' in visitor.get(reverse("sign-in")).content.decode()
    assert not Session.objects.exists()


def test_whoever_signs_in_next_reads_their_own_language(client: Client, project: Project) -> None:
    german, english = make_member(project, Role.ANNOTATOR), make_member(project, Role.ANNOTATOR)
    Preferences.objects.create(user=german, language="de")
    Preferences.objects.create(user=english, language="en")
    for user, language in ((german, "de"), (english, "en")):
        client.force_login(user)
        assert f'<html lang="{language}">' in read(client, "compare", project)
        client.post(reverse("sign-out"))
