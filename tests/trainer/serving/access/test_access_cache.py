"""Keys and rerankers are asked of the database at most every 1.5 s; what is revoked stops working within that time."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.access.api_keys import make_token, revoke_all_tokens
from labeling.models import ApiToken
from tests.factories.rows import make_project, make_user
from trainer.models import Reranker
from trainer.serving.access.access_cache import FRESH_S, AccessCache
from trainer.serving.protocols import RerankRefused
from trainer.serving.registry import TRAINED

pytestmark = pytest.mark.django_db


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_known_key_asks_nothing_and_a_revoked_one_ends_within_two_seconds(
    django_assert_num_queries: Any,
) -> None:
    clock, owner = Clock(), make_user("owner")
    project = make_project(owner=owner)
    reranker = Reranker.objects.create(project=project, name="fish", kind=TRAINED, location="there", checksum="c" * 64)
    token = make_token(owner, name="k", scopes=["rerank"])
    cache, header = AccessCache(clock=clock), f"Bearer {token}"
    assert not cache.has_seen(header)
    key = cache.key_of(header)
    assert cache.has_seen(header) and cache.admit(key, "/v1/rerank", "").artefact.checksum == reranker.checksum
    with django_assert_num_queries(0):
        assert cache.admit(cache.key_of(header), "/v1/rerank", "").key_id == key.pk
    revoke_all_tokens(owner)
    assert FRESH_S < 2.0
    clock.now += FRESH_S
    with pytest.raises(RerankRefused, match="no valid key"):
        cache.key_of(header)
    assert not cache.has_seen(header)


def test_a_withdrawn_reranker_and_a_wrong_scope_are_refused() -> None:
    clock, owner = Clock(), make_user("owner")
    project = make_project(owner=owner)
    Reranker.objects.create(project=project, name="fish", kind=TRAINED, location="there", checksum="c" * 64)
    cache = AccessCache(clock=clock)
    key = cache.key_of(f"Bearer {make_token(owner, name='k', scopes=['rerank'])}")
    cache.admit(key, "/v1/rerank", "fish")
    Reranker.objects.update(release=Reranker.Release.HELD_BACK)
    cache.admit(key, "/v1/rerank", "fish")
    with pytest.raises(RerankRefused, match="fish is held back"):
        cache.admit(key, "/v1/rerank", "fish", fresh=True)
    with pytest.raises(RerankRefused, match="fish is held back"):
        cache.admit(key, "/v1/rerank", "fish")
    with pytest.raises(RerankRefused, match="can use none: owners and viewers"):
        cache.admit(key, "/v1/rerank", "carp")
    for header in ("", "Basic x", "Bearer ", "Bearer zelo_wrong"):
        with pytest.raises(RerankRefused) as refused:
            cache.key_of(header)
        assert refused.value.status == 401 and not cache.has_seen(header)
    with pytest.raises(RerankRefused) as refused:
        cache.key_of(f"Bearer {make_token(owner, name='r', scopes=['read'])}")
    assert refused.value.status == 403 and ApiToken.objects.count() == 2
