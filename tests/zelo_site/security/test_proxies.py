"""The client's address and scheme: headers count only from trusted proxies."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from zelo_site.security.proxies import ProxyHeadersMiddleware


def _seen(settings: Any, trusted: list[str], **headers: str) -> dict[str, Any]:
    settings.ZELO_TRUSTED_PROXIES = trusted
    seen: dict[str, Any] = {}

    def view(request: HttpRequest) -> HttpResponse:
        seen.update(request.META)
        return HttpResponse()

    ProxyHeadersMiddleware(view)(RequestFactory().get("/", **headers))  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize(
    ("sender", "forwarded", "client"),
    [
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "1.2.3.4, 203.0.113.9", "203.0.113.9"),  # the first one is the client's claim
        ("127.0.0.1", "1.2.3.4, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "not an address", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("198.51.100.7", "203.0.113.9", "198.51.100.7"),
    ],
)
def test_address_is_the_last_that_no_trusted_proxy_has(settings: Any, sender: str, forwarded: str, client: str) -> None:
    seen = _seen(settings, ["127.0.0.1", "10.0.0.0/8"], REMOTE_ADDR=sender, HTTP_X_FORWARDED_FOR=forwarded)
    assert seen["REMOTE_ADDR"] == client


def test_headers_of_untrusted_senders_are_removed(settings: Any) -> None:
    claims = {
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "evil.example",
        "HTTP_X_FORWARDED_FOR": "1.1.1.1",
    }
    seen = _seen(settings, ["10.0.0.1"], REMOTE_ADDR="198.51.100.7", **claims)
    assert not set(claims) & set(seen)
    seen = _seen(settings, ["10.0.0.1"], REMOTE_ADDR="10.0.0.1", **claims)
    assert seen["HTTP_X_FORWARDED_PROTO"] == "https"
