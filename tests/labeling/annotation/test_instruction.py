"""The instruction: read once as it stands, and once more when it changes."""

from __future__ import annotations

import pytest

from labeling.access.annotators import get_person
from labeling.annotation.instruction import confirm_read, has_read, instruction_hash
from tests.factories.rows import make_project, make_user

pytestmark = pytest.mark.django_db


def test_instruction_is_read_once_as_it_stands() -> None:
    project, user = make_project(), make_user()
    assert not has_read(get_person(project, user), project)
    assert confirm_read(project, user, seen=instruction_hash(project))
    assert has_read(get_person(project, user), project)


def test_changed_instruction_has_to_be_read_again() -> None:
    project, user = make_project(), make_user()
    confirm_read(project, user, seen=instruction_hash(project))
    project.instruction = "Prefer the newer document."
    assert not has_read(get_person(project, user), project)


def test_what_was_not_seen_is_not_confirmed() -> None:
    project, user = make_project(), make_user()
    before = instruction_hash(project)
    project.instruction = "Changed while the page was open."
    assert not confirm_read(project, user, seen=before)
    assert not has_read(get_person(project, user), project)
