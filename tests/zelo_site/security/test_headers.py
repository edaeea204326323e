"""Headers of every page and operation: nothing private is cached, no page loosens the policy for content, TLS stays TLS."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from tests.factories.pages import make_user
from tests.factories.world.second import undone
from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE, World, make_world

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[3]

# They read in a snapshot of their own, which no transaction may surround.
IN_A_SNAPSHOT = {"agreement", "report", "GET /projects/{slug}/agreement", "GET /projects/{slug}/report"}
POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'", "font-src": "'self'",
    "connect-src": "'self'", "manifest-src": "'self'", "form-action": "'self'", "base-uri": "'none'",
    "frame-ancestors": "'none'",
}  # fmt: skip
# What a browser would refuse under this policy, so that a page which needs it is broken: scripts and styles in the page.
IN_THE_PAGE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")|<style\b|\sstyle=\"|\son[a-z]+=\"|javascript:",
    re.IGNORECASE,
)


def answers(world: World) -> dict[str, Any]:
    """What a superuser, then a visitor, gets at every address that is read."""
    root = Client(raise_request_exception=False)
    root.force_login(make_user("root", is_superuser=True, is_staff=True))
    found = {}
    for name, named in EVERY_PAGE.items():
        if name not in IN_A_SNAPSHOT:
            address = reverse(name, kwargs={key: world.known[key] for key in named})
            for who, client in (("root", root), ("visitor", Client(raise_request_exception=False))):
                found[f"{name} for {who}"], _ = undone(lambda: client.get(address))  # noqa: B023
    for operation, path in EVERY_OPERATION.items():
        if operation.startswith("GET") and operation not in IN_A_SNAPSHOT:
            found[operation], _ = undone(lambda: root.get(path.format(**world.known)))  # noqa: B023
    found["no such page"] = root.get("/no-such-page/")
    found["no such operation"] = root.get("/api/v1/no-such-operation")
    return found


def test_every_answer_is_private_and_has_the_one_policy() -> None:
    for name, answer in answers(make_world()).items():
        cache = answer["Cache-Control"]
        assert "no-store" in cache or "no-cache" in cache or "max-age=0" in cache, f"{name}: {cache}"
        assert "public" not in cache, f"{name}: {cache}"
        given = dict(each.strip().partition(" ")[::2] for each in answer["Content-Security-Policy"].split(";"))
        assert given == POLICY, name
        assert answer["X-Frame-Options"] == "DENY", name
        assert answer["X-Content-Type-Options"] == "nosniff", name
        assert answer["Referrer-Policy"] == "same-origin", name
        if answer["Content-Type"].startswith("text/html") and not answer.streaming:
            refused = IN_THE_PAGE.search(re.sub(r"<(textarea|pre)\b.*?</\1>", "", answer.content.decode(), flags=re.S))
            assert refused is None, f"{name}: {refused.group()}"


def test_no_view_is_exempt_from_the_policy() -> None:
    sources = [path for floor in ("zelo_site", "labeling") for path in (ROOT / floor).rglob("*.py")]
    assert [
        str(path) for path in sources if re.search(r"csp_(exempt|update|replace)|xframe_options", path.read_text())
    ] == []


TLS = """
import json
from django.conf import settings
names = ["SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY"]
print(json.dumps({name: getattr(settings, name) for name in names}))
"""


def test_https_turns_on_redirects_hsts_and_secure_cookies(settings: Settings) -> None:
    environment = {**os.environ, "ZELO_HTTPS": "1", "DJANGO_SETTINGS_MODULE": "zelo_site.settings"}
    done = subprocess.run(
        [sys.executable, "-c", TLS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    values = json.loads(done.stdout)
    assert values.pop("SECURE_HSTS_SECONDS") >= 31_536_000
    assert set(values.values()) == {True}
    settings.SECURE_HSTS_SECONDS = 31_536_000
    for name in values:
        setattr(settings, name, True)
    make_user("ada", password="correct horse")
    client = Client()
    plain = client.get(reverse("sign-in"))
    assert (plain.status_code, plain.url[:8]) == (301, "https://")
    safe = client.get(reverse("sign-in"), secure=True)
    assert safe["Strict-Transport-Security"].startswith("max-age=31536000")
    client.post(reverse("sign-in"), {"username": "ada", "password": "correct horse"}, secure=True)
    cookies = {name: cookie for name, cookie in client.cookies.items() if cookie.value}
    assert {"sessionid", "csrftoken"} <= set(cookies)
    for name, cookie in cookies.items():
        assert cookie["secure"], name
        assert cookie["samesite"] in {"Lax", "Strict"}, name
    assert cookies["sessionid"]["httponly"]
