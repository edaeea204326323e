"""The addresses of the reranking interfaces, for the serving process and the web server. Imports no Django."""

from __future__ import annotations

EMBEDDINGS, EMBED = "/v1/embeddings", "/embed"
MODELS, INFO, HEALTH = "/v1/models", "/info", "/health"
RERANK = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/reranking", "/reranking")
SCORE = ("/v1/score", "/score")
METHODS = dict.fromkeys((*RERANK, *SCORE, EMBEDDINGS, EMBED), "POST") | dict.fromkeys((MODELS, INFO, HEALTH), "GET")
# Without /v1, as Infinity and llama.cpp have them.
SHORT = {"/embeddings": EMBEDDINGS, "/models": MODELS}
# Addresses of TEI that our models cannot answer, and what to use instead.
NOT_OFFERED = {
    "/embed_all": "token vectors are not offered; use /embed, which gives one vector a text",
    "/embed_sparse": "sparse vectors are not offered; use /embed",
    "/predict": "classification is not offered; use /rerank",
    "/similarity": "use /rerank with an embedding student, which scores by cosine",
}
ADDRESSES = (*(f"{method} {path}" for path, method in METHODS.items()), f"GET {MODELS}/{{id}}")


def normal(path: str) -> str:
    """The address as `METHODS` has it, without extra slashes: `//v1//rerank/` is `/v1/rerank`, `/models` is `/v1/models`."""
    found = "/" + "/".join(part for part in path.split("/") if part)
    return SHORT.get(found, found)


def below_model(path: str) -> tuple[str, str]:
    """An address and the model that it names: `/models/fish/search/rerank` is `/rerank` and `fish/search`; any other, and ""."""
    parts = [part for part in path.split("/") if part]
    if len(parts) > 3 and parts[0] == "models":
        return normal("/".join(parts[3:])), "/".join(parts[1:3])
    return normal(path), ""


def listed_model(path: str) -> str:
    """The model whose entry of the list an address names: of `/v1/models/fish/search` `fish/search`; of any other "".

    A name may hold slashes, so everything after `models` is the name.
    """
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["v1", "models"]:
        return "/".join(parts[2:])
    return "/".join(parts[1:]) if parts[:1] == ["models"] and len(parts) <= 3 else ""


def allows(path: str, method: str) -> bool:
    """Whether an address that exists answers the method; what answers GET answers HEAD."""
    return METHODS[path] == ("GET" if method == "HEAD" else method)


def unknown(path: str) -> str:
    """The message for an address that does not exist."""
    if normal(path) in NOT_OFFERED:
        return f"{path[:200]}: {NOT_OFFERED[normal(path)]}"
    return f"{path[:200]} does not exist; expected one of {', '.join(ADDRESSES)}"
