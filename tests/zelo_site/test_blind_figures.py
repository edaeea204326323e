"""People who judge blind see no figure from which a judge's answer to one pair could be read: none below 30 pairs, then rounded."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from labeling.access.annotators import get_person
from labeling.judgments import record_judgments
from labeling.models import Annotator, Pair, Project, Role
from labeling.records import NewJudgment
from tests.factories.rows import make_judges, make_member, make_pair, make_project

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def pairs() -> list[Pair]:
    query = make_project(queries=1, documents=9).queries.get()
    return [make_pair(query, a, b) for a in range(9) for b in range(a + 1, 9)]


def answer(annotator: Annotator, pairs: list[Pair], *, agrees: int) -> None:
    """The first `agrees` pairs as the judge answers them, the others the other way round."""
    record_judgments(
        [NewJudgment(pair.pk, annotator.pk, False, 0.9 if place < agrees else 0.1) for place, pair in enumerate(pairs)]
    )


def shown(user: object) -> str:
    """The cell "agrees with judges" of the profile."""
    client = Client()
    client.force_login(user)  # type: ignore[arg-type]
    page = client.get("/profile/").content.decode()
    cells = re.findall(r'<td class="number">(.*?)</td>', page, re.DOTALL)
    return re.sub(r"<[^>]*>|\s+", " ", cells[3]).strip()


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.VIEWER])
def test_agreement_with_judges_is_withheld_until_30_pairs_and_then_rounded(pairs: list[Pair], role: Role) -> None:
    project = Project.objects.get()
    person = get_person(project, make_member(project, role))
    (judge,) = make_judges(project)
    answer(judge, pairs, agrees=len(pairs))
    answer(person, pairs[:29], agrees=20)
    assert not re.search(r"\d", shown(person.user))
    answer(person, pairs[29:30], agrees=1)
    assert shown(person.user).startswith("70 %")  # 21 of 30
    for count, pair in enumerate(pairs[30:], 31):
        answer(person, [pair], agrees=count % 2)
        *shares, seen = map(int, re.findall(r"\d+", shown(person.user)))
        assert (len(shares), seen) == (3, 30)
        assert all(share % 5 == 0 for share in shares)


def test_an_owner_sees_the_exact_figure(pairs: list[Pair]) -> None:
    project = Project.objects.get()
    owner = get_person(project, make_member(project, Role.OWNER))
    (judge,) = make_judges(project)
    answer(judge, pairs, agrees=len(pairs))
    answer(owner, pairs[:17], agrees=11)
    assert "65" in shown(owner.user)  # 11 of 17 are 64.7 %
