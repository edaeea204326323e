"""Answers rerank requests with known keys before Django: no middleware, no session, and mostly no database.

It stands before Django in `zelo_site.wsgi`. A key that this process has seen to be valid is checked from a cache that is at
most 1.5 s old (`trainer.serving.access.access_cache`), and the request goes to the ranking server. All other requests, and all
refusals, are Django's (`zelo_site.reranking`), so that rights, messages and limits of bad keys have one definition.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from trainer.serving.addresses import METHODS, normal
from trainer.serving.protocols import MOST_BODY_BYTES, RerankRefused, dialect_of, model_named, read_body
from zelo_site.security.headers import PRIVATE

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class RerankFirst:
    """A WSGI application: rerank requests with known keys, and `application` for everything else."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = normal(environ.get("PATH_INFO", ""))
        if METHODS.get(path) == "POST" == environ.get("REQUEST_METHOD"):
            found = _answered(path, environ)
            if found is not None:
                status, headers, body = found
                start_response(status, headers)
                return [body]
        return self._application(environ, start_response)


def _answered(path: str, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes] | None:
    """The ranking server's response; None if Django has to answer."""
    from trainer.serving.access.access_cache import own_connection
    from zelo_site import reranking

    authorization = environ.get("HTTP_AUTHORIZATION", "")
    length = environ.get("CONTENT_LENGTH") or ""
    if environ.get("HTTP_CONTENT_ENCODING"):
        return None
    if not (length.isdecimal() and int(length) <= MOST_BODY_BYTES and reranking.DOOR.has_seen(authorization)):
        return None
    content = environ["wsgi.input"].read(int(length))
    environ["wsgi.input"] = io.BytesIO(content)  # for Django
    try:
        with own_connection():
            key = reranking.DOOR.key_of(authorization)
            query = parse_qs(environ.get("QUERY_STRING", ""))
            body = read_body(content)[0]
            admitted = reranking.DOOR.admit(key, path, model_named(body) or query.get("model", [""])[0])
    except RerankRefused:
        return None
    deadline = environ.get("HTTP_X_REQUEST_TIMEOUT", "")
    try:
        reply = reranking.answer(admitted.route, path, content, key_id=admitted.key_id, deadline=deadline)
    except RerankRefused as error:
        reply = reranking.refusal(dialect_of(path, body), error)
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(reply.content))),
        ("Cache-Control", PRIVATE),
        ("X-Content-Type-Options", "nosniff"),
        *reply.headers.items(),
    ]
    return f"{reply.status} {HTTPStatus(reply.status).phrase}", headers, reply.content
