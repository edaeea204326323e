"""Looking up a key notes its use, and writes at most once a minute."""

from __future__ import annotations

import pytest
from django.utils import timezone

from labeling.access.api_keys import USED_EVERY, find_token, make_token
from labeling.models import ApiToken
from tests.factories.rows import make_user

pytestmark = pytest.mark.django_db


def test_the_last_use_of_a_key_is_noted_once_a_minute() -> None:
    token = make_token(make_user("owner"), name="k")
    assert find_token(token) is not None
    key = ApiToken.objects.get()
    first = key.used_at
    assert first is not None
    find_token(token)
    key.refresh_from_db()
    assert key.used_at == first
    ApiToken.objects.update(used_at=timezone.now() - 2 * USED_EVERY)
    find_token(token)
    key.refresh_from_db()
    assert key.used_at is not None and key.used_at >= first
