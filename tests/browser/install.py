"""Finds the Chromium of the browser tests, or installs it: `python -m tests.browser.install`.

Order: `ZELO_CHROMIUM`, one on the system, Debian's package, Playwright's own download. The headless shell comes first: it is the
same engine without a window, and takes half the processor time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SHELL = "chromium-headless-shell"
APT_INSTALL = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "fonts-dejavu-core")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The path of a Chromium to drive, or None. Playwright's own counts."""
    named = os.environ.get("ZELO_CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    for name in NAMES:
        if found := shutil.which(name):
            return found
    return _playwright_chromium()


def find_headless() -> str | None:
    """The path of the browser for the tests: the one named, else the headless shell, else another Chromium."""
    if os.environ.get("ZELO_CHROMIUM"):
        return find_chromium()
    return shutil.which(SHELL) or find_chromium()


def _playwright_chromium() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> str | None:
    """Try the system's package, then Playwright's download; returns the browser or None."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        _quiet(["apt-get", "update", "-qq"])
        _quiet([*APT_INSTALL, SHELL])
        if find_headless() is None:
            _quiet([*APT_INSTALL, "chromium"])
    if find_headless() is None:
        _quiet([sys.executable, "-m", "playwright", "install", "chromium"])
    return find_headless()


def _quiet(command: list[str]) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=600)


if __name__ == "__main__":
    browser = find_headless()
    if browser is None or (shutil.which(SHELL) is None and not os.environ.get("ZELO_CHROMIUM")):
        browser = install()
    if browser is None:
        print(
            "no Chromium was found and none could be installed; the browser tests will skip. "
            "Install Debian's `chromium-headless-shell`, or set ZELO_CHROMIUM to a browser's path.",
            file=sys.stderr,
        )
