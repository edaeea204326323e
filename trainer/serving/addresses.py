"""The addresses of the reranking interfaces, for the serving process and the web server. Imports no Django."""

from __future__ import annotations

EMBEDDINGS, MODELS, INFO, HEALTH = "/v1/embeddings", "/v1/models", "/info", "/health"
RERANK = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
SCORE = ("/v1/score", "/score")
METHODS = dict.fromkeys((*RERANK, *SCORE, EMBEDDINGS), "POST") | dict.fromkeys((MODELS, INFO, HEALTH), "GET")
ADDRESSES = tuple(f"{method} {path}" for path, method in METHODS.items())


def normal(path: str) -> str:
    """The address without slashes at its end: `/v1/rerank/` is `/v1/rerank`."""
    return path.rstrip("/") or "/"


def allows(path: str, method: str) -> bool:
    """Whether an address that exists answers the method; what answers GET answers HEAD."""
    return METHODS[path] == ("GET" if method == "HEAD" else method)


def unknown(path: str) -> str:
    """The message for an address that does not exist."""
    return f"{path[:200]} does not exist; expected one of {', '.join(ADDRESSES)}"
