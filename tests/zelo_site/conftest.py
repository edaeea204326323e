"""Fixtures of the pages' tests: a signed-in owner with a project; short-lived caches are emptied, so that
no test reads another's figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from labeling.models import Project
from tests.factories.pages import make_project, make_user


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def owner(client: Client) -> Any:
    user = make_user("owner")
    client.force_login(user)
    return user


@pytest.fixture
def project(owner: Any) -> Project:
    return make_project(owner)
