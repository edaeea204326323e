"""Fixtures of the browser tests: one Chromium, a live server, a signed-in page that notes what goes wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.install import find_headless

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 90_000  # on a busy machine a page is slow, not wrong
WIDE = {"width": 1400, "height": 1000}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}
WIDEST = {"viewport": {"width": 1920, "height": 1080}, "color_scheme": "light"}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for this folder. Not for the session: Playwright keeps an event loop running that others would meet.

    Django permits the database beside that loop here and nowhere else, so that other tests find calls on event loops.
    """
    path = find_headless()
    if path is None:
        pytest.skip("no Chromium; run `python -m tests.browser.install` or set ZELO_CHROMIUM")
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        expect.set_options(timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page in one look, with every complaint of the browser since it was opened."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page

    def picture(self, name: str) -> None:
        """Keep a screenshot where ZELO_SCREENSHOTS names a folder; for the documentation."""
        if folder := os.environ.get("ZELO_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.fixture
def visit(browser: Browser, live_server: Any) -> Iterator[Callable[..., Visit]]:
    """`visit(user, look="dark")`: a signed-in page; without a user, a stranger's."""
    cache.clear()
    contexts = []

    def start(user: Any = None, *, look: str = "light", **options: Any) -> Visit:
        context = browser.new_context(**{**LOOKS[look], **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if user is not None:
            client = Client()
            client.force_login(user)
            session = client.cookies[settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
        visited = Visit(context.new_page(), live_server.url)
        visited.page.on(
            "console",
            lambda message: visited.complaints.append(message.text) if message.type in {"error", "warning"} else None,
        )
        visited.page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        return visited

    yield start
    for context in contexts:
        context.close()
    wait_for_requests()


def wait_for_requests(seconds: float = 10.0) -> None:
    """Until no request of a closed page is still in the database: the flush after the test would deadlock with it."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state <> 'idle' AND backend_type = 'client backend'"
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with connection.cursor() as cursor:
            cursor.execute(others)
            if not cursor.fetchone()[0]:
                return
        time.sleep(0.02)
