"""Known keys are answered before Django, with the same answers; everything else is Django's."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from labeling.access.api_keys import make_token, revoke_all_tokens
from tests.factories.rows import make_project, make_user
from tests.processes.serve import served
from trainer.models import Reranker
from trainer.serving.access import access_cache
from trainer.serving.registry import TRAINED
from zelo_site import reranking
from zelo_site.rerank_first import RerankFirst

# Outside of Django's requests the connection is closed and opened again, which a test's transaction does not survive.
pytestmark = pytest.mark.django_db(transaction=True)

BODY = json.dumps({"query": "q", "documents": ["a"]}).encode()


class Django:
    """Stands in for the rest of the site, and counts what reaches it."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.seen.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"django"]


@pytest.fixture
def asked() -> list[dict[str, str]]:
    return []


@pytest.fixture
def ranking(settings: Any, asked: list[dict[str, str]]) -> Any:
    """A ranking server that repeats what it was asked."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked.append({name.decode(): value.decode() for name, value in scope["headers"]})
        headers = [(b"content-type", b"application/json"), (b"server-timing", b"model;dur=2.5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"results": []}'})

    reranking._client.cache_clear()
    with served(answer) as settings.ZELO_RERANK_URL:
        yield
    reranking._client.cache_clear()


def call(
    first: RerankFirst, token: str, *, path: str = "/v1/rerank", body: bytes = BODY, **more: str
) -> tuple[str, bytes, dict[str, str]]:
    answers: list[Any] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST", "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
        "HTTP_AUTHORIZATION": f"Bearer {token}",
    }  # fmt: skip
    parts = first(environ | more, lambda status, headers: answers.append((status, dict(headers))))
    return answers[0][0], b"".join(parts), answers[0][1]


def test_known_keys_are_answered_before_django_until_they_are_revoked(
    ranking: None, asked: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner)
    Reranker.objects.create(project=project, name="fish", kind=TRAINED, location="there", checksum="c" * 64)
    token = make_token(owner, name="k", scopes=["rerank"])
    django = Django()
    first = RerankFirst(django)
    assert call(first, token)[1] == b"django" and django.seen == [BODY], "the first request is Django's"
    reranking.DOOR.key_of(f"Bearer {token}", fresh=True)  # as its view does
    status, content, headers = call(first, token, HTTP_X_REQUEST_TIMEOUT="2.5")
    assert (status, content) == ("200 OK", b'{"results": []}')
    assert headers["Cache-Control"] == "private, no-store" and headers["Content-Type"] == "application/json"
    assert headers["server-timing"].startswith("model;dur=2.5, forwarded;dur="), (
        "the ranking server's parts and its own"
    )
    assert json.loads(asked[0]["x-zelo-reranker"])["location"] == "there"
    assert asked[0]["x-request-timeout"] == "2.5" and asked[0]["x-zelo-key"].isdecimal()
    assert token not in str(asked)
    unknown = json.dumps({"query": "q", "documents": ["a"], "model": "other"}).encode()
    for body, path in ((unknown, "/v1/rerank"), (b"{", "/rerank"), (BODY, "/projects/")):
        assert call(first, token, body=body, path=path)[1] == b"django" and django.seen[-1] == body
    assert call(first, token, CONTENT_LENGTH="")[1] == b"django"
    revoke_all_tokens(owner)
    monkeypatch.setattr(access_cache, "FRESH_S", 0.0)
    assert call(first, token)[1] == b"django" and len(asked) == 1


def test_while_nobody_ranks_the_refusal_is_the_view_s(tmp_path: Path, settings: Any) -> None:
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    owner = make_user("owner")
    project = make_project(owner=owner)
    Reranker.objects.create(project=project, name="fish", kind=TRAINED, location="there", checksum="c" * 64)
    token = make_token(owner, name="k", scopes=["rerank"])
    reranking.DOOR.key_of(f"Bearer {token}", fresh=True)
    status, content, headers = call(RerankFirst(Django()), token)
    reranking._client.cache_clear()
    assert status == "503 Service Unavailable" and headers["retry-after"] == "5"
    assert "serve_rerank.log" in json.loads(content)["message"]
