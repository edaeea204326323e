"""Starts PostgreSQL and Valkey for the tests before Django reads its settings.

Loaded by `-p tests.services_plugin` (pyproject), so that it comes before pytest-django. The tests
have a home of their own; `DATABASE_URL` and `BROKER_URL`, where set, are used instead. Under xdist
the controller starts the services; each of its processes has a home, a database and a number at that broker of its own.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
TEST_HOME = Path(os.environ.get("ZELO_TEST_HOME", ROOT / ".zelo" / "test"))

# Half a minute and more of a processor's time each, or seconds of waiting.
LONGEST = (
    "tests/browser/", "tests/trainer/training/", "tests/workers/jobs/", "tests/workers/judging/", "tests/workers/processes/",
    "tests/zelo_site/api/test_schema.py", "tests/zelo_site/audit/", "tests/zelo_site/demo/", "tests/zelo_site/operations/",
    "tests/zelo_site/processes/", "tests/zelo_site/rights/", "tests/zelo_site/security/",
)  # fmt: skip
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")

os.environ["ZELO_HOME"] = str(TEST_HOME / PROCESS)
os.environ["DJANGO_SETTINGS_MODULE"] = "zelo_site.settings"
os.environ.setdefault("ZELO_SECRET_KEY", "only-for-tests-" + "0" * 40)
os.environ.setdefault("ZELO_LOG_LEVEL", "WARNING")
os.environ.setdefault("ZELO_MODELS", "*")  # tests make models in folders of their own
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


if PROCESS:  # before pytest-django reads the settings
    from zelo_site.processes.services import _HomeLock, service_urls, socket_folder

    _home = TEST_HOME / PROCESS
    _lock = _HomeLock(_home)  # commands find an instance that runs
    _lock.acquire()
    _sockets = socket_folder(_home)
    _sockets.unlink(missing_ok=True)
    _sockets.symlink_to(socket_folder(TEST_HOME))
    os.environ.setdefault(
        "BROKER_URL", f"{service_urls(_home).broker_url}?virtual_host={1 + int(PROCESS.removeprefix('gw'))}"
    )

(TEST_HOME / PROCESS / "static").mkdir(parents=True, exist_ok=True)  # whitenoise warns where it is missing
# The same examples in every run: a test that fails does so for whoever runs it next.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("random", deadline=None)
hypothesis.settings.load_profile(os.environ.get("ZELO_HYPOTHESIS", "repeatable"))

_supervisor = None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    global _supervisor
    if PROCESS or config.option.collectonly:
        return
    from zelo_site.processes.embedded import POSTGRES_SETTINGS
    from zelo_site.processes.services import ServiceSupervisor

    # A killed server loses nothing by it, only a machine without power would: the tests' rows are worth no disk's time.
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            patch.setitem(POSTGRES_SETTINGS, name, "off")
        _supervisor = ServiceSupervisor(TEST_HOME)
        _supervisor.__enter__()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that no process is left alone with one; a module's own order stays."""
    if PROCESS:
        tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), -tests[item.path], str(item.path)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Imported modules stay to the end, so the garbage collector leaves them out."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    if _supervisor is not None:
        _supervisor.__exit__(None, None, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed may hold lone surrogates, which one process cannot send to another."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
