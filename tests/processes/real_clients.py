"""Asks a server with one client package and prints its answer as JSON; run by a Python that has the package.

`python real_clients.py CLIENT ADDRESS KEY MODEL`, with {"query", "documents"} on standard input. It prints {"scores": [[index,
score], ...]} in the client's order, or {"vectors": ...}, or {"missing": "..."} if the package is not installed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Rows = list[list[float]]


def cohere_v1(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    import cohere

    client = cohere.Client(key, base_url=address)
    found = client.rerank(model=model, query=query, documents=documents, top_n=2, return_documents=True)
    assert [each.document.text for each in found.results] == [documents[each.index] for each in found.results]
    titled = [{"title": each, "text": "-"} for each in documents]
    by_title = client.rerank(model=model, query=query, documents=titled, rank_fields=["title"], max_chunks_per_doc=10)
    assert [each.index for each in by_title.results][:2] == [each.index for each in found.results]
    assert found.meta.api_version.version and found.id
    return [[each.index, each.relevance_score] for each in found.results]


def cohere_v2(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    import cohere

    client = cohere.ClientV2(key, base_url=address)
    found = client.rerank(model=model, query=query, documents=documents, top_n=2, max_tokens_per_doc=4096)
    try:
        client.rerank(model="nothing/there", query=query, documents=documents)
    except cohere.NotFoundError as error:
        assert "no model has the name" in json.dumps(error.body)
    else:
        raise AssertionError("an unknown model was accepted")
    return [[each.index, each.relevance_score] for each in found.results]


def langchain_cohere(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    ranker = CohereRerank(cohere_api_key=key, base_url=address, model=model, top_n=2)
    found = ranker.rerank(documents, query)
    kept = ranker.compress_documents([Document(page_content=each) for each in documents], query)
    assert [each.page_content for each in kept] == [documents[each["index"]] for each in found]
    return [[each["index"], each["relevance_score"]] for each in found]


def _llama_index(ranker: Any, query: str, documents: list[str]) -> Rows:
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=each, id_=str(row)), score=0.0) for row, each in enumerate(documents)]
    found = ranker.postprocess_nodes(nodes, query_str=query)
    return [[int(each.node.id_), each.score] for each in found]


def llama_index_cohere(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return _llama_index(CohereRerank(api_key=key, base_url=address, model=model, top_n=2), query, documents)


def llama_index_jina(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return _llama_index(JinaRerank(api_key=key, base_url=f"{address}/v1", model=model, top_n=2), query, documents)


def llama_index_tei(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    ranker = TextEmbeddingInference(base_url=f"{address}/models/{model}", auth_token=f"Bearer {key}", top_n=2)
    return _llama_index(ranker, query, documents)


def llama_index_voyage(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    import voyageai
    from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

    ranker = VoyageAIRerank(model=model, api_key=key, top_k=2)
    ranker._client = voyageai.Client(api_key=key, base_url=f"{address}/v1")
    return _llama_index(ranker, query, documents)


def voyage(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    import voyageai

    client = voyageai.Client(api_key=key, base_url=f"{address}/v1")
    found = client.rerank(query, documents, model=model, top_k=2, truncation=True)
    assert [each.document for each in found.results] == [documents[each.index] for each in found.results]
    assert found.total_tokens > 0
    return [[each.index, each.relevance_score] for each in found.results]


def haystack_cohere(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    ranker = CohereRanker(model=model, top_k=2, api_key=Secret.from_token(key), api_base_url=address)
    rows = [Document(id=str(row), content=each) for row, each in enumerate(documents)]
    return [[int(each.id), each.score] for each in ranker.run(query=query, documents=rows)["documents"]]


def openai_embeddings(address: str, key: str, model: str, query: str, documents: list[str]) -> Rows:
    import openai

    client = openai.OpenAI(api_key=key, base_url=f"{address}/v1", max_retries=0)
    assert model in {each.id for each in client.models.list()}
    assert client.models.retrieve(model).id == model
    packed = client.embeddings.create(model=model, input=documents)  # as base64, which the client unpacks
    plain = client.embeddings.create(model=model, input=documents, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding, strict=True)) < 1e-6
    assert packed.usage.total_tokens > 0
    try:
        client.embeddings.create(model=model, input=[[1, 2, 3]])
    except openai.UnprocessableEntityError as error:
        assert "token numbers" in str(error)
    else:
        raise AssertionError("token numbers were accepted")
    asked = client.embeddings.create(model=model, input=query, extra_body={"input_type": "query"}).data[0].embedding
    scores = [sum(a * b for a, b in zip(asked, each.embedding, strict=True)) for each in plain.data]
    return [[row, scores[row]] for row in sorted(range(len(scores)), key=lambda row: -scores[row])]


CLIENTS = {
    each.__name__: each
    for each in (
        cohere_v1, cohere_v2, langchain_cohere, llama_index_cohere, llama_index_jina, llama_index_tei, llama_index_voyage,
        voyage, haystack_cohere, openai_embeddings,
    )
}  # fmt: skip


def main() -> None:
    name, address, key, model = sys.argv[1:]
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "false")
    asked = json.load(sys.stdin)
    try:
        found = CLIENTS[name](address, key, model, asked["query"], asked["documents"])
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
    else:
        print(json.dumps({"scores": found}))


if __name__ == "__main__":
    main()
