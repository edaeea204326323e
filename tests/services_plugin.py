"""Starts PostgreSQL and Valkey for the tests before Django reads its settings.

Loaded by `-p tests.services_plugin` (pyproject), so that it comes before pytest-django. The tests
have a home of their own; `DATABASE_URL` and `BROKER_URL`, where set, are used instead. Under xdist
the controller starts the services; each of its processes has a home, a database and a number at the broker of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEST_HOME = Path(os.environ.get("ZELO_TEST_HOME", ROOT / ".zelo" / "test"))

PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")

os.environ["ZELO_HOME"] = str(TEST_HOME / PROCESS)
os.environ["DJANGO_SETTINGS_MODULE"] = "zelo_site.settings"
os.environ.setdefault("ZELO_SECRET_KEY", "only-for-tests-" + "0" * 40)
os.environ.setdefault("ZELO_LOG_LEVEL", "WARNING")
os.environ.setdefault("ZELO_MODELS", "*")  # tests make models in folders of their own
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright's sync API runs an event loop


def with_number(url: str, number: int) -> str:
    """The address of another of a broker's numbered databases."""
    address = urlsplit(url)
    if "socket" in address.scheme:
        return url.partition("?")[0] + f"?virtual_host={number}"
    return address._replace(path=f"/{number}").geturl()


if PROCESS:  # before pytest-django reads the settings
    from zelo_site.services import service_urls

    _urls = service_urls(TEST_HOME)
    os.environ["DATABASE_URL"] = _urls.database_url
    os.environ["BROKER_URL"] = with_number(_urls.broker_url, 1 + int(PROCESS.removeprefix("gw")))

_supervisor = None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    global _supervisor
    if PROCESS or config.option.collectonly:
        return
    from zelo_site.services import ServiceSupervisor

    _supervisor = ServiceSupervisor(TEST_HOME)
    _supervisor.__enter__()


def pytest_unconfigure(config: pytest.Config) -> None:
    if _supervisor is not None:
        _supervisor.__exit__(None, None, None)
