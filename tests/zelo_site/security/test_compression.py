"""Pages and static files are sent compressed to those who accept it; nothing else is."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

from tests.factories.pages import make_project, make_user
from zelo_site.security.compression import CompressionMiddleware

pytestmark = pytest.mark.django_db
GZIP = {"Accept-Encoding": "gzip, deflate, br"}


def body(response: Any) -> bytes:
    return b"".join(response) if response.streaming else bytes(response.content)


@pytest.mark.parametrize("file", ["zelo/zelo.css", "zelo/live.js", "django_htmx/htmx-2.min.js", "zelo/mark.svg"])
def test_a_static_file_is_a_third_as_long_and_the_same_text(file: str) -> None:
    plain = Client().get(f"/static/{file}")
    packed = Client().get(f"/static/{file}", headers=GZIP)
    again = Client().get(f"/static/{file}", headers=GZIP)
    text = body(plain)
    assert not plain.has_header("Content-Encoding") and "Accept-Encoding" in plain["Vary"]
    assert packed["Content-Encoding"] == "gzip" and "Accept-Encoding" in packed["Vary"]
    assert not packed.has_header("ETag"), "two texts must not have one strong ETag"
    assert packed["Content-Type"] == plain["Content-Type"] and packed["Cache-Control"] == plain["Cache-Control"]
    assert gzip.decompress(body(packed)) == text == gzip.decompress(body(again))
    assert int(packed["Content-Length"]) == len(body(packed)) < (0.45 if len(text) > 4000 else 1.0) * len(text)


def test_an_unchanged_static_file_is_not_sent_again() -> None:
    first = Client().get("/static/zelo/zelo.css", headers=GZIP)
    second = Client().get("/static/zelo/zelo.css", headers={**GZIP, "If-Modified-Since": first["Last-Modified"]})
    assert second.status_code == 304
    assert body(second) == b""


def test_a_page_is_compressed_with_another_length_each_time() -> None:
    owner = make_user("ada")
    project = make_project(owner)
    client = Client()
    client.force_login(owner)
    address = reverse("queries", args=[project.slug])
    plain = client.get(address)
    packed = [client.get(address, headers=GZIP) for _ in range(12)]
    assert {each["Content-Encoding"] for each in packed} == {"gzip"}
    assert b"<h1>" in gzip.decompress(packed[0].content)
    assert len(packed[0].content) < 0.45 * len(plain.content)
    assert len({len(each.content) for each in packed}) > 1, "the length gives the content away (BREACH)"


@pytest.mark.parametrize("kind", ["application/json", "application/gzip", "text/csv", "application/x-ndjson"])
def test_what_programs_read_stays_as_it_is(kind: str) -> None:
    middleware = CompressionMiddleware(lambda request: HttpResponse("x" * 5000, content_type=kind))
    response = middleware(RequestFactory().get("/api/v1/", headers=GZIP))
    assert not response.has_header("Content-Encoding")
