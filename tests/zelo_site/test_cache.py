"""The cache of the pages: one for all web processes, and a miss, never a failure, where Valkey is away."""

from __future__ import annotations

import json
import math
import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache

from labeling.models import Role
from labeling.stored_texts import StoredText
from zelo_site import cached_values
from zelo_site.cache import ForgivingCache
from zelo_site.cached_values import CachedValues
from zelo_site.pages.charts.geometry import Axis
from zelo_site.pages.project.certainty import ProjectCertainty
from zelo_site.settings import CACHES

BOMB = ""


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


def test_what_an_older_version_left_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    shared().set("old", ProjectCertainty(mean=0.9, lowest=0.4, read=3, rated=3), 30)
    monkeypatch.delattr("zelo_site.pages.project.certainty.ProjectCertainty")
    cached_values._class.cache_clear()
    assert shared().get("old", "missed") == "missed"


class Bomb:
    """A pickle of this class runs code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(BOMB),)


def test_a_pickle_in_the_cache_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.BOMB", str(tmp_path / "exploded"))
    cache = shared()
    cache.set("bomb", 0, 30)
    name = cache.make_key("bomb")
    redis.Redis.from_url(settings.ZELO_REDIS_URL).set(name, pickle.dumps(Bomb()))
    assert cache.get("bomb", "missed") == "missed"
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"$": "data", "v": ["subprocess:Popen", [["args", "true"]]]},
        {"$": "data", "v": ["labeling.models:Project", []]},
        {"$": "enum", "v": ["os:system", "true"]},
        {"$": "data", "v": ["zelo_site.cache:pickle", []]},
        {"$": "no such type", "v": 1},
        {"v": 1},
    ],
)
def test_foreign_classes_are_unreadable(entry: Any) -> None:
    with pytest.raises(cached_values.Unreadable):
        CachedValues().loads(json.dumps(entry).encode())


VALUES = [
    None, True, 0, -3, 1.5, math.inf, "text", b"bytes", [1, [2]], (1, (2.0, None)), {"a": 1, 2: (3,), None: []},
    frozenset({1}), datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), timedelta(seconds=1.5), Decimal("1.20"),
    StoredText("%(n)s of %(m)s", {"n": 1, "m": 2}), Role.OWNER, Axis(0, 1),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_come_back_as_they_were(value: Any) -> None:
    found = CachedValues().loads(CachedValues().dumps(value))
    assert found == value
    assert type(found) is type(value)


def test_arrays_come_back() -> None:
    array = np.array([[1.0, np.nan]], dtype=np.float32)
    found = CachedValues().loads(CachedValues().dumps(array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    with pytest.raises(ValueError, match="allow_pickle"):
        CachedValues().dumps(np.array([object()]))


def test_pages_use_it_and_tests_one_of_their_own() -> None:
    assert CACHES["default"]["BACKEND"] == "zelo_site.cache.ForgivingCache"
    assert settings.CACHES["default"]["BACKEND"].endswith(LocMemCache.__name__)
