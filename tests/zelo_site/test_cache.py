"""The cache of the pages: one for all web processes, and a miss, never a failure, where Valkey is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache

from zelo_site.cache import ForgivingCache
from zelo_site.pages.project.certainty import ProjectCertainty
from zelo_site.settings import CACHES


def shared(prefix: str = "zelo-test") -> ForgivingCache:
    """As another process has it: with connections of its own."""
    return ForgivingCache(settings.ZELO_REDIS_URL, {"KEY_PREFIX": prefix})


def test_what_one_process_finds_another_reads() -> None:
    found = ProjectCertainty(mean=0.9, lowest=0.4, read=3, rated=3)
    shared().set("certainty", found, 30)
    assert shared().get("certainty") == found
    assert shared().add("certainty", 1, 30) is False


def test_clearing_takes_nothing_else_from_the_broker() -> None:
    shared("other").set("kept", "queue", 30)
    shared().set("gone", 1, 30)
    shared().clear()
    assert (shared().get("gone"), shared("other").get("kept")) == (None, "queue")


def test_a_broker_that_is_down_is_a_miss(tmp_path: Path) -> None:
    cache = ForgivingCache(f"unix://{tmp_path}/nobody.sock", {})
    cache.set("key", 1)
    assert cache.get("key", "missed") == "missed"
    assert cache.get_or_set("key", lambda: 7) == 7
    assert cache.add("key", 1)
    assert (cache.get_many(["key"]), cache.has_key("key"), cache.delete("key")) == ({}, False, False)


class Vanished:
    """A class that the next version of the program no longer has."""


def test_what_an_older_version_left_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    shared().set("old", Vanished(), 30)
    monkeypatch.delattr(f"{__name__}.Vanished")
    assert shared().get("old", "missed") == "missed"


def test_pages_use_it_and_tests_one_of_their_own() -> None:
    assert CACHES["default"]["BACKEND"] == "zelo_site.cache.ForgivingCache"
    assert settings.CACHES["default"]["BACKEND"].endswith(LocMemCache.__name__)
