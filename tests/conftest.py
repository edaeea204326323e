"""Fixtures that all tests share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.installation import own_environment
from tests.services_plugin import TEST_HOME


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, django_db_blocker: Any) -> None:
    """pytest-django's place for changes to the tests' database: it is a copy of one that has been migrated."""
    from django.db import connection

    from tests.processes.migrated import migrated_database

    with django_db_blocker.unblock():
        connection.settings_dict["TEST"].update(TEMPLATE=migrated_database(TEST_HOME), MIGRATE=False)


@pytest.fixture(scope="session", autouse=True)
def hears_interrupts() -> None:
    """A shell that starts the tests in the background makes them ignore Ctrl-C, and with them each process that a test stops."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_process() -> Iterator[None]:
    """Tests that run at the same time share a broker, and must not read each other's figures."""
    from django.test import override_settings

    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_clients() -> Iterator[None]:
    """Each new test client loads the middleware; do not look at every static file each time."""
    from django.test import override_settings

    with override_settings(WHITENOISE_AUTOREFRESH=True):
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """Django's own hasher takes a third of a second for each password, so that nobody tries many."""
    from django.test import override_settings

    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_figures() -> Iterator[None]:
    """On a busy machine a figure of a few rows takes longer than the bound above which pages show an older one."""
    from workers.monitoring import project_figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project_figures, "QUICK_MS", 4_000)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_emptying() -> Iterator[None]:
    """After a test that committed, delete rows instead of truncating every table."""
    from django.test import TransactionTestCase

    from tests.processes.emptying import empty_tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda self: empty_tables())
        yield


@pytest.fixture
def stub_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugins of `tests.factories.stubs.plugins`, registered for one test."""
    from labeling import plugins
    from tests.factories.stubs.plugins import STUBS
    from workers.judging.batches import prepared_judge

    for stub in STUBS:
        monkeypatch.setitem(plugins._registry, (stub.kind, stub.name), stub)
    prepared_judge.cache_clear()
    yield
    prepared_judge.cache_clear()


@pytest.fixture
def stub_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer of `tests.factories.stubs.trainers`, registered for one test."""
    from labeling import plugins
    from tests.factories.stubs.trainers import StubTrainer

    monkeypatch.setitem(plugins._registry, ("trainer", StubTrainer.name), StubTrainer)


@pytest.fixture(autouse=True)
def no_silence_between_tests() -> None:
    """A broker that one test stopped is no reason for the next one's hints to be dropped."""
    from workers.broker import hints

    hints._silent_until = 0.0


@pytest.fixture
def all_models_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests make models in folders of their own."""
    monkeypatch.setenv("ZELO_MODELS", "*")


@pytest.fixture
def sent_hints() -> Any:
    """The hints that a test sends to the broker, see `tests.factories.broker.WaitingHints`."""
    from tests.factories.broker import WaitingHints

    hints = WaitingHints()
    hints.clear()
    return hints


@pytest.fixture
def broker_down(settings: Any, tmp_path: Path) -> Iterator[None]:
    """A broker's address at which nobody listens."""
    from workers.broker import client

    settings.ZELO_REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    client.valkey.cache_clear()
    yield
    client.valkey.cache_clear()


@pytest.fixture(autouse=True)
def no_stored_endpoints_between_tests() -> None:
    """What one test has read from its database is no endpoint of the next one's."""
    from workers.endpoints.stored.rows import forget_stored

    forget_stored()


@pytest.fixture(autouse=True)
def english_between_tests() -> Iterator[None]:
    """The language of a request stays with its thread; the next test begins as a command does."""
    from django.utils import translation

    yield
    translation.activate("en")


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation of its own, in a new home."""
    return own_environment(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session", params=["bert", "qwen"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a published reranker: of an encoder, then of a decoder. Its workspace lies beside it."""
    yield from _published(request.param, tmp_path_factory)


@pytest.fixture(scope="session")
def published_encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield from _published("bert", tmp_path_factory)


def _published(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from tests.factories.weights.adapters import publish_random  # torch only for the tests that need it
    from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELO_MODELS", "*")
        folder = tmp_path_factory.mktemp(kind)
        base = (save_tiny_bert if kind == "bert" else save_tiny_qwen3)(folder / "base")
        yield publish_random(folder, base=str(base)).folder
