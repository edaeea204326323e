"""The web server's rerank endpoints: they check keys and permissions and forward requests to the ranking server.

The ranking server (`manage.py serve_rerank`) holds the models; this module sends it the reranker's location, so that
it needs no database, and returns its response unchanged. This module never loads torch.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from labeling.access.api_keys import find_token
from trainer.models import Reranker
from trainer.serving.embedding_protocol import PATH as EMBEDDINGS
from trainer.serving.protocols import (
    MOST_BODY_BYTES,
    Dialect,
    RerankRefused,
    dialect_of,
    error_body,
    model_named,
    read_body,
    too_large,
)
from trainer.serving.registry import (
    UnknownReranker,
    artefact_of,
    find_embedder,
    find_reranker,
    form_of,
    full_name,
    usable_by,
)
from zelo_site.processes.services import socket_folder

SOCKET = "rerank.sock"
ARTEFACT_HEADER = "x-zelo-reranker"
SCOPE = "rerank"
TIMEOUT_S = 110.0
NOT_THERE = (
    "the ranking server does not answer; it starts a few seconds after the first reranker is published; retry "
    "soon, or see its log, serve_rerank.log"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """The ranking server's response."""

    status: int
    content: bytes
    retry_after: str = ""

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@login_not_required
@csrf_exempt
def rerank(request: HttpRequest) -> HttpResponse:
    """POST /v1/rerank, /v2/rerank, /rerank with a key of scope `rerank`."""
    return _forwarded(request, dialect_of(request.path))


@login_not_required
@csrf_exempt
def embeddings(request: HttpRequest) -> HttpResponse:
    """POST /v1/embeddings in OpenAI's format with a key of scope `rerank`; `model` is an embedding student."""
    return _forwarded(request, "rerank")


def _forwarded(request: HttpRequest, dialect: Dialect) -> HttpResponse:
    """The ranking server's response to a request with a valid key, or a refusal in the client's format."""
    embeds = request.path.rstrip("/") == EMBEDDINGS
    try:
        if request.method != "POST":
            raise RerankRefused(405, f"{request.path} takes POST, not {request.method}")
        user = _asker(request)
        if int(request.headers.get("Content-Length") or 0) > MOST_BODY_BYTES:
            raise too_large(int(request.headers["Content-Length"]))
        content = request.body
        body = read_body(content)
        dialect = dialect if embeds else dialect_of(request.path, body)
        name = model_named(body) or request.GET.get("model", "")
        try:
            reranker = find_embedder(user, name) if embeds else find_reranker(user, name)
        except UnknownReranker as error:
            raise RerankRefused(404, str(error)) from error
        reply = pass_on(reranker, request.path, content)
    except RerankRefused as error:
        response = JsonResponse(error_body(dialect, error), status=error.status)
        if error.retry_after_s:
            response["Retry-After"] = str(error.retry_after_s)
        return response
    answer = HttpResponse(reply.content, status=reply.status, content_type="application/json")
    if reply.retry_after:
        answer["Retry-After"] = reply.retry_after
    return answer


@login_not_required
@csrf_exempt
def models(request: HttpRequest) -> HttpResponse:
    """GET /v1/models: the valid values of `model`, in OpenAI's format."""
    try:
        user = _asker(request)
    except RerankRefused as error:
        return JsonResponse(error_body("rerank", error), status=error.status)
    rows = [
        {
            "id": full_name(each),
            "object": "model",
            "created": int(each.created_at.timestamp()),
            "owned_by": "zelo",
            "form": form_of(each),
            "release": each.release,
        }
        for each in usable_by(user)
    ]
    return JsonResponse({"object": "list", "data": rows})


def pass_on(reranker: Reranker, path: str, content: bytes) -> Reply:
    """Forward a request body for one reranker to the ranking server. Raises RerankRefused if it does not answer."""
    headers = {
        ARTEFACT_HEADER: json.dumps(asdict(artefact_of(reranker))),
        "authorization": f"Bearer {service_key()}",
        "content-type": "application/json",
    }
    try:
        response = _client().post(path, content=content, headers=headers)
    except httpx.TimeoutException as error:
        message = f"ranking timed out after {TIMEOUT_S:.0f} s; send fewer or shorter documents"
        raise RerankRefused(504, message) from error
    except httpx.TransportError as error:
        raise RerankRefused(503, NOT_THERE, retry_after_s=5) from error
    if not response.headers.get("content-type", "").startswith("application/json"):
        raise RerankRefused(
            502,
            f"the ranking server answered {response.status_code} without JSON; "
            "check that ZELO_RERANK_URL is the address of serve_rerank",
        )
    return Reply(response.status_code, response.content, response.headers.get("retry-after", ""))


def reranking_socket() -> Path:
    """Return the address of this installation's ranking server."""
    return socket_folder(settings.ZELO_HOME) / SOCKET


def service_key() -> str:
    """Return the shared key of web and ranking server, derived from the installation's signing key."""
    return hmac.new(settings.SECRET_KEY.encode(), b"zelo serve_rerank", hashlib.sha256).hexdigest()


def _asker(request: HttpRequest) -> Any:
    """Return the user of the bearer key. Raises RerankRefused."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    found = find_token(token.strip()) if kind.lower() == "bearer" and token.strip() else None
    if found is None:
        raise RerankRefused(
            401,
            "the request has no valid key; send Authorization: Bearer zelo_... with a key made with "
            "`python manage.py token USERNAME --scopes rerank`",
        )
    if SCOPE not in found.scopes:
        raise RerankRefused(403, f"this key has the scopes {found.scopes}; ranking needs {SCOPE!r}; create another key")
    return found.user


@functools.cache
def _client() -> httpx.Client:
    """Return the process's HTTP client, which keeps connections open."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
    url = settings.ZELO_RERANK_URL
    transport = None if url else httpx.HTTPTransport(uds=str(reranking_socket()), limits=limits)
    return httpx.Client(base_url=url or "http://rerank", transport=transport, timeout=TIMEOUT_S, limits=limits)
