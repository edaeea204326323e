"""The web server's rerank endpoints: they check keys and permissions and forward requests to the ranking server.

The ranking server (`manage.py serve_rerank`) holds the models; this module sends it the reranker's location, so that
it needs no database, and returns its response unchanged. This module never loads torch.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls.exceptions import Resolver404
from django.views.decorators.csrf import csrf_exempt
from django.views.defaults import page_not_found

from labeling.models import ApiToken
from trainer.deployments.changes import WarmingFailed
from trainer.deployments.recorder import Handled, Recorder
from trainer.deployments.routing import Route
from trainer.models import Reranker
from trainer.serving.access.access_cache import AccessCache, listed
from trainer.serving.access.callers import ARTEFACT_HEADER, DEADLINE_HEADER, KEY_HEADER
from trainer.serving.addresses import ADDRESSES, HEALTH, INFO, METHODS, MODELS, normal, unknown
from trainer.serving.model_cache import Artefact
from trainer.serving.operations.timing import TIMING_HEADER, joined
from trainer.serving.protocols import (
    MOST_BODY_BYTES,
    Dialect,
    RerankRefused,
    check_encoding,
    check_method,
    dialect_of,
    error_body,
    error_headers,
    model_entry,
    model_named,
    read_body,
    too_large,
)
from trainer.serving.registry import artefact_of
from zelo_site.processes.services import socket_folder

SOCKET = "rerank.sock"
BACKGROUND_HEADER, VERSION_HEADER = "x-zelo-background", "x-zelo-version"
PASSED_ON = ("retry-after", "allow", "accept-encoding", "x-zelo-warnings", TIMING_HEADER)
WARM = "/warm"
KEY_PERIOD_S = 3600
TIMEOUT_S, HEALTH_TIMEOUT_S = 110.0, 5.0
NOT_THERE = (
    "the ranking server does not answer; it starts a few seconds after the first reranker is published; retry "
    "soon, or see its log, serve_rerank.log"
)
# The keys and rerankers that this process has seen; `zelo_site.rerank_first` admits most requests from it.
DOOR = AccessCache()


@dataclass(frozen=True, slots=True)
class Reply:
    """The ranking server's response."""

    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@login_not_required
@csrf_exempt
def rerank(request: HttpRequest, *, address: str = "", model: str = "") -> HttpResponse:
    """The ranking server's response at an address of `trainer.serving.addresses`, for a key of scope `rerank`.

    Refusals have the client's format. `model` at /v1/embeddings is an embedding student. `address` and `model`: where the
    request's own address names a model, for clients that cannot.
    """
    path = normal(address or request.path)
    dialect = dialect_of(path)
    try:
        check_method(path, request.method or "")
        key = _key(request)
        content = b"" if path == INFO else _content(request)
        body = {} if path == INFO else read_body(content)[0]
        dialect = dialect_of(path, body)
        name = model or model_named(body) or request.GET.get("model", "")
        admitted = DOOR.admit(key, path, name, fresh=True)
        deadline = request.headers.get(DEADLINE_HEADER, "")
        reply = answer(admitted.route, path, content, key_id=admitted.key_id, deadline=deadline)
    except RerankRefused as error:
        reply = refusal(dialect, error)
    return HttpResponse(reply.content, status=reply.status, content_type="application/json", headers=reply.headers)


def answer(route: Route, path: str, content: bytes, *, key_id: int, deadline: str = "") -> Reply:
    """The ranking server's response to a request, with the version that gave it; the recorder gets it too.

    Raises RerankRefused if the ranking server does not answer.
    """
    began = time.monotonic()
    reply = pass_on(route.version.artefact, path, content, key_id=key_id, deadline=deadline)
    seconds = time.monotonic() - began
    if reply.status == 200:
        RECORDER.offer(Handled(route, path, content, reply.content, round(seconds * 1000)))
    parts = [reply.headers[TIMING_HEADER]] if TIMING_HEADER in reply.headers else []
    own = {VERSION_HEADER: route.version.name, TIMING_HEADER: joined({"forwarded": seconds}, behind=parts)}
    return replace(reply, headers=reply.headers | own)


def refusal(dialect: Dialect, error: RerankRefused) -> Reply:
    """The response that says why a request is refused, in the client's format."""
    return Reply(error.status, json.dumps(error_body(dialect, error)).encode(), error_headers(error))


def refusal_of(path: str, error: RerankRefused) -> HttpResponse:
    """Django's response to a refused request for an address."""
    return JsonResponse(error_body(dialect_of(path), error), status=error.status, headers=error_headers(error))


def _content(request: HttpRequest) -> bytes:
    """The body of a request. Raises RerankRefused before it reads one that is too large or compressed."""
    check_encoding(request.headers.get("Content-Encoding", ""))
    if int(request.headers.get("Content-Length") or 0) > MOST_BODY_BYTES:
        raise too_large(int(request.headers["Content-Length"]))
    return request.body


@login_not_required
@csrf_exempt
def elsewhere(request: HttpRequest, *, slug: str = "", name: str = "", address: str = "") -> HttpResponse:
    """The interfaces below /models/PROJECT/NAME, for clients that cannot name a model, and those with extra slashes.

    A `model` in the body is then not read: such clients send one of their own.
    """
    path = normal(address or request.path)
    if path == HEALTH:
        return health(request)
    if path == MODELS:
        return models(request)
    if path not in METHODS:
        return not_found(request, Resolver404())
    return rerank(request, address=path, model=f"{slug}/{name}" if name else "")


@login_not_required
@csrf_exempt
def health(request: HttpRequest) -> HttpResponse:
    """GET /health: 200 if the ranking server answers, else 503 in TEI's format. Needs no key."""
    try:
        check_method(HEALTH, request.method or "")
    except RerankRefused as error:
        return refusal_of(HEALTH, error)
    try:
        healthy = _client().get(HEALTH, timeout=HEALTH_TIMEOUT_S).status_code == 200
    except httpx.TransportError:
        healthy = False
    if healthy:
        return JsonResponse({"status": "ok"})
    return JsonResponse({"error": NOT_THERE, "error_type": "Unhealthy", "message": NOT_THERE}, status=503)


@login_not_required
@csrf_exempt
def unknown_address(request: HttpRequest) -> HttpResponse:
    """404 as JSON with the addresses that there are."""
    refused = RerankRefused(404, unknown(request.path))
    return JsonResponse(error_body("rerank", refused) | {"addresses": ADDRESSES}, status=404)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The site's 404: the page for browsers, JSON for programs that ask for an address that does not exist."""
    if isinstance(exception, Resolver404) and "//" in request.path and normal(request.path) in METHODS:
        return elsewhere(request)
    wants_page = "text/html" in request.headers.get("Accept", "")
    if isinstance(exception, Resolver404) and not wants_page:
        return unknown_address(request)
    return page_not_found(request, exception)


@login_not_required
@csrf_exempt
def models(request: HttpRequest, *, name: str = "") -> HttpResponse:
    """GET /v1/models: the valid values of `model`, in OpenAI's format; /v1/models/NAME: the entry of one."""
    try:
        check_method(MODELS, request.method or "")
        found = listed(_key(request).user)
        return JsonResponse(model_entry(found, name.strip("/")) if name else {"object": "list", "data": found})
    except RerankRefused as error:
        return refusal_of(MODELS, error)


def warm(reranker: Reranker) -> bool:
    """Let the ranking server load a reranker and compute with it once, so that no request waits for that.

    False if no ranking server answers: the first request then loads it. Raises WarmingFailed if it cannot be loaded.
    """
    try:
        reply = pass_on(artefact_of(reranker), WARM, b"")
    except RerankRefused as error:
        if error.status == 503:
            return False
        raise WarmingFailed(str(error)) from error
    if reply.status != 200:
        raise WarmingFailed(f"the ranking server could not load {reranker.name!r}: {reply.body.get('message', '')}")
    return True


def _compute_in_background(artefact: Artefact, content: bytes) -> Any:
    """The answer to a shadow request, or None if the ranking server had no time for it."""
    try:
        reply = pass_on(artefact, "/v1/rerank", content, is_background=True)
    except RerankRefused:
        return None
    return reply.body if reply.status == 200 else None


RECORDER = Recorder(_compute_in_background)


def pass_on(
    artefact: Artefact,
    path: str,
    content: bytes,
    *,
    key_id: int | None = None,
    deadline: str = "",
    is_background: bool = False,
) -> Reply:
    """Forward a request for one reranker to the ranking server. Raises RerankRefused if it does not answer.

    `key_id` is the key whose limits hold; `deadline` the seconds that the client allows, as it wrote them; `is_background`:
    it is computed while no other request waits.
    """
    headers = {
        ARTEFACT_HEADER: json.dumps(asdict(artefact)),
        "authorization": f"Bearer {service_key()}",
        "content-type": "application/json",
        **({BACKGROUND_HEADER: "1"} if is_background else {}),
    }
    if key_id is not None:
        headers[KEY_HEADER] = str(key_id)
    if deadline:
        headers[DEADLINE_HEADER] = deadline.encode("ascii", "replace").decode()
    try:
        response = _client().request(METHODS.get(path, "POST"), path, content=content, headers=headers)
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
    if response.status_code == 401:
        raise RerankRefused(
            502,
            "the ranking server does not accept this web server's key; give both the same ZELO_SECRET_KEY and correct clocks",
        )
    kept = {name: response.headers[name] for name in PASSED_ON if name in response.headers}
    return Reply(response.status_code, response.content, kept)


def ranking_metrics() -> str | None:
    """The metrics of the ranking server in Prometheus' text format, or None if it does not answer."""
    try:
        response = _client().get(
            "/metrics", headers={"authorization": f"Bearer {service_key()}"}, timeout=HEALTH_TIMEOUT_S
        )
    except httpx.TransportError:
        return None
    return response.text if response.status_code == 200 else None


def reranking_socket() -> Path:
    """Return the address of this installation's ranking server."""
    return socket_folder(settings.ZELO_HOME) / SOCKET


def service_key(*, at_s: float | None = None) -> str:
    """Return the web server's key at the ranking server, derived from the installation's signing key for this hour."""
    period = int((time.time() if at_s is None else at_s) // KEY_PERIOD_S)
    return hmac.new(settings.SECRET_KEY.encode(), b"zelo serve_rerank %d" % period, hashlib.sha256).hexdigest()


def service_keys() -> list[str]:
    """Return the keys that the ranking server accepts: this hour's, and its neighbours' for clocks that differ."""
    return [service_key(at_s=time.time() + hours * KEY_PERIOD_S) for hours in (0, -1, 1)]


def _key(request: HttpRequest) -> ApiToken:
    """Return the bearer key, as the database has it now. Raises RerankRefused."""
    authorization = request.headers.get("Authorization", "")
    try:
        key = DOOR.key_of(authorization, fresh=True)
    except RerankRefused as error:
        if error.status != 401:
            request.has_valid_key = True  # type: ignore[attr-defined]
        raise
    request.has_valid_key = True  # type: ignore[attr-defined]
    return key


@functools.cache
def _client() -> httpx.Client:
    """Return the process's HTTP client, which keeps connections open."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
    url = settings.ZELO_RERANK_URL
    transport = None if url else httpx.HTTPTransport(uds=str(reranking_socket()), limits=limits)
    return httpx.Client(base_url=url or "http://rerank", transport=transport, timeout=TIMEOUT_S, limits=limits)
