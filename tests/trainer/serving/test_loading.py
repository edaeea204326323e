"""A loaded reranker scores as `CrossEncoder.predict` does on every artefact, however its pairs are batched."""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from sentence_transformers import CrossEncoder

from trainer.bases import cross_encoder, load_base
from trainer.publishing.manifests import ManifestBroken
from trainer.serving.batcher import RequestBatcher, TooBusy
from trainer.serving.forms.pairs import batches
from trainer.serving.loading import LoadedReranker, NoScore, in_order, load_base_reranker, load_reranker
from trainer.serving.model_cache import Artefact, NoMemory, WarmModels

WORDS = "goldfish pond carp bread oven water relevant document query yes no answer one".split()  # noqa: SIM905


def texts(number: int, *, seed: int, longest: int = 60) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(number)]


@pytest.fixture(scope="module")
def loaded(published: Path) -> LoadedReranker:
    return load_reranker(published, device="cpu")


def predicted(model: Any, query: str, documents: list[str]) -> list[float]:
    pairs = [(query, document) for document in documents]
    return model.predict(pairs, show_progress_bar=False, activation_fn=torch.nn.Identity()).tolist()


def test_it_scores_as_predict_does_on_each_artefact(
    loaded: LoadedReranker, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELO_MODELS", "*")
    query, documents = "goldfish in a pond", [*texts(20, seed=1), "water " * 2000, ""]
    adapted = cross_encoder(load_base(str(published.parent / "base")))
    PeftModel.from_pretrained(adapted.model, str(published / "adapter"))
    models = [
        CrossEncoder(str(published / "merged")),
        CrossEncoder(str(published / "sequence_classification")),
        adapted,
    ]
    scores = loaded.scores(query, documents)
    for model in models:
        model.eval()
        assert scores == pytest.approx(predicted(model, query, documents), abs=1e-4)
    ranked = loaded.rank(query, documents)
    assert [each.index for each in ranked] == sorted(range(len(documents)), key=lambda row: -scores[row])
    served = models[0].predict([(query, document) for document in documents], show_progress_bar=False)
    assert [each.score for each in ranked] == pytest.approx([served[each.index] for each in ranked], abs=1e-4)
    assert [each.index for each in loaded.rank(query, documents, top_n=3)] == [each.index for each in ranked[:3]]


def test_long_documents_are_cut_and_long_queries_leave_room_for_the_document(loaded: LoadedReranker) -> None:
    encoded = loaded.encode("goldfish", ["water " * 3000, "pond"])
    assert [pair.cut for pair in encoded.pairs] == [True, False]
    assert len(encoded.pairs[0]) == loaded.max_length
    assert not encoded.query_cut

    long_query = loaded.encode("goldfish " * 3000, ["pond " * 3000, "bread " * 3000, "bread"])
    assert long_query.query_cut
    first, second = (set(long_query.pairs[row].ids) for row in (0, 1))
    assert first != second  # the documents are still read
    alone = {row: set(loaded.encode("", [text]).pairs[0].ids) for row, text in enumerate(["pond " * 9, "bread " * 9])}
    assert first & alone[0] and second & alone[1]
    assert max(len(pair) for pair in long_query.pairs) <= loaded.max_length


def test_tokens_that_are_many_characters_long_are_read_to_the_end_of_the_model(loaded: LoadedReranker) -> None:
    document = " ".join(["goldfish" + " " * 200] * (2 * loaded.max_length))
    whole = loaded.encode("pond", [" ".join(document.split())])
    if not loaded._in_chat:  # a tokenizer of words ignores the spaces; one of bytes reads them
        assert loaded.encode("pond", [document]).pairs == whole.pairs


def test_pairs_of_concurrent_requests_score_as_one_by_one(loaded: LoadedReranker) -> None:
    requests = [(f"query {WORDS[seed]}", texts(3 + 4 * seed, seed=seed)) for seed in range(8)]
    expected = [loaded.scores(query, documents) for query, documents in requests]
    batcher = RequestBatcher(threads=2, prepare_thread=lambda: torch.set_num_threads(1))
    found: list[Future[list[float]] | None] = [None] * len(requests)

    def ask(row: int) -> None:
        found[row] = batcher.submit(loaded, loaded.encode(*requests[row]).pairs)

    try:
        threads = [threading.Thread(target=ask, args=(row,)) for row in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for row, future in enumerate(found):
            assert future is not None
            assert future.result(timeout=60) == pytest.approx(expected[row], abs=1e-4)
        assert batcher.waiting_tokens == 0
    finally:
        batcher.close()


def test_the_start_of_a_long_document_gives_the_tokens_of_the_whole(published: Path) -> None:
    loaded = load_reranker(published, device="cpu")
    documents = [
        "goldfish and carp " * 400,
        "x" * 5000,
        "a b " * 3000,
        "pond" * 40 + " bread" * 900,
        " " * 4000 + "oven",
        "",
    ]
    whole = [loaded._preprocessed([("carp", each)])[0] for each in documents]
    assert loaded.encode("carp", documents).pairs == tuple(whole)


class _Slow:
    """Stands in for a model whose passes wait until they are let through, and notes what it was given."""

    batch_tokens, pads = 8, True

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.passes: list[list[int]] = []

    def logits(self, pairs: Any) -> list[float]:
        self.gate.acquire()
        self.passes.append([len(pair) for pair in pairs])
        if any(len(pair) == 13 for pair in pairs):
            raise RuntimeError("thirteen")
        return [float(len(pair)) for pair in pairs]


def test_a_request_that_is_given_up_or_fails_leaves_the_others_alone() -> None:
    slow: Any = _Slow()
    batcher = RequestBatcher(threads=1, most_waiting_tokens=5000)
    try:
        first = batcher.submit(slow, ["x" * 400])  # type: ignore[list-item]  # only lengths matter here
        given_up = batcher.submit(slow, ["x" * 300, "x" * 290])  # type: ignore[list-item]
        failing = batcher.submit(slow, ["x" * 13])  # type: ignore[list-item]
        last = batcher.submit(slow, ["x" * 100, "x" * 50])  # type: ignore[list-item]
        with pytest.raises(TooBusy, match="at most 5,000"):
            batcher.submit(slow, ["x" * 5000])  # type: ignore[list-item]
        given_up.cancel()
        for _ in range(10):
            slow.gate.release()
        assert first.result(timeout=10) == [400.0]
        assert last.result(timeout=10) == [100.0, 50.0]
        with pytest.raises(RuntimeError, match="thirteen"):
            failing.result(timeout=10)
        assert [300] not in slow.passes and [300, 290] not in slow.passes
        assert batcher.waiting_tokens == 0
    finally:
        slow.gate.release(100)
        batcher.close()


class _Broken:
    """Stands in for a model whose passes all fail, in all threads at the same time."""

    batch_tokens, pads, name = 1, False, "broken"

    def __init__(self, threads: int) -> None:
        self._together = threading.Barrier(threads)

    def logits(self, pairs: Any) -> list[float]:
        self._together.wait(timeout=10)
        raise RuntimeError("out of memory")


def test_passes_of_one_request_that_fail_together_end_no_thread() -> None:
    batcher = RequestBatcher(threads=4)
    every = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            broken: Any = _Broken(4)
            with pytest.raises(RuntimeError, match="out of memory"):
                batcher.submit(broken, ["x"] * 4).result(timeout=10)  # type: ignore[list-item]
        assert all(each.is_alive() for each in batcher._threads)
    finally:
        sys.setswitchinterval(every)
        batcher.close()


def test_threads_share_the_last_pairs_of_the_queue() -> None:
    slow: Any = _Slow()
    slow.batch_tokens, slow.pads = 1024, False
    batcher = RequestBatcher(threads=2)
    try:
        for pairs, expected in ((11, [5, 6]), (2, [1, 1])):
            slow.passes.clear()
            future = batcher.submit(slow, ["x" * 128] * pairs)  # type: ignore[list-item]
            time.sleep(0.05)  # both threads have taken their share
            slow.gate.release(10)
            assert future.result(timeout=10) == [128.0] * pairs
            assert sorted(map(len, slow.passes)) == expected
            while slow.gate.acquire(blocking=False):
                pass
    finally:
        slow.gate.release(100)
        batcher.close()


def test_batches_hold_every_row_once_and_stay_within_their_tokens() -> None:
    lengths = [random.Random(5).randint(1, 300) for _ in range(200)]
    found = list(batches(lengths, 1024))
    assert sorted(row for batch in found for row in batch) == list(range(200))
    for batch in found:
        longest, tokens = max(lengths[row] for row in batch), sum(lengths[row] for row in batch)
        assert len(batch) == 1 or longest * len(batch) <= 1024
        assert longest * len(batch) - tokens <= 0.05 * longest * len(batch)
    together = list(batches(lengths, 1024, pads=False))
    assert all(len(batch) == 1 or sum(lengths[row] for row in batch) <= 1024 for batch in together)
    assert len(together) <= len(found)


def test_a_request_that_would_wait_too_long_is_refused_with_the_time_to_retry() -> None:
    slow: Any = _Slow()
    batcher = RequestBatcher(threads=1, most_waiting_tokens=10**9, most_wait_s=0.01)
    try:
        slow.gate.release()
        time.sleep(0.05)
        batcher.submit(slow, ["x" * 10]).result(timeout=10)  # type: ignore[list-item]
        assert batcher.wait_s == 0.0
        batcher.submit(slow, ["x" * 40])  # type: ignore[list-item]  # computed now
        batcher.submit(slow, ["x" * 100_000_000])  # type: ignore[list-item]  # more than a hundredth of a second
        with pytest.raises(TooBusy, match="s of work") as refused:
            batcher.submit(slow, ["x" * 40])  # type: ignore[list-item]
        assert 1 <= refused.value.retry_after_s <= 60
    finally:
        slow.gate.release(100)
        batcher.close()


def test_order_is_by_logit_even_where_the_sigmoid_saturates() -> None:
    ranked = in_order([700.0, 900.0, -900.0, 700.0])
    assert [each.index for each in ranked] == [1, 0, 3, 2]
    assert [each.score for each in ranked] == [1.0, 1.0, 1.0, 0.0]
    with pytest.raises(NoScore, match="document 1"):
        in_order([1.0, float("nan")])


def test_a_folder_that_was_changed_is_not_loaded(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(published, folder)
    (folder / "sequence_classification" / "config.json").write_text("{}")
    with pytest.raises(ManifestBroken, match="SHA-256"):
        load_reranker(folder)
    (folder / "sequence_classification" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ManifestBroken, match=r"pytorch_model\.bin"):
        load_reranker(folder)


def test_an_untrained_base_ranks_the_same_way(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_MODELS", "*")
    base = load_base(str(published.parent / "base"))
    documents = texts(5, seed=3)
    expected = predicted(cross_encoder(base), "carp", documents)
    assert load_base_reranker(base).scores("carp", documents) == pytest.approx(expected, abs=1e-4)


class _Weightless:
    name = "weightless"


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three artefacts of 10 bytes."""
    found = {}
    for name in ("a", "b", "c"):
        weights = tmp_path / name / "sequence_classification" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"0123456789")
        found[name] = tmp_path / name
    return found


def test_warm_models_stay_within_their_budget_and_the_longest_unused_goes(folders: dict[str, Path]) -> None:
    loads: list[str] = []

    def load(folder: Path) -> Any:
        loads.append(folder.name)
        return _Weightless()

    models = WarmModels(budget_bytes=25, fetch=lambda artefact: folders[artefact.location], load=load)
    for name in ("a", "b", "a", "c", "a", "b"):
        with models.using(Artefact(name, name)):
            pass
    assert loads == ["a", "b", "c", "b"]
    with (
        models.using(Artefact("a", "a")),
        models.using(Artefact("b", "b")),
        pytest.raises(NoMemory, match="in use"),
        models.using(Artefact("c", "c")),
    ):
        pass
    small = WarmModels(budget_bytes=5, fetch=lambda artefact: folders[artefact.location], load=load)
    with pytest.raises(NoMemory, match="--memory-mb"), small.using(Artefact("a", "a")):
        pass


def test_requests_for_one_model_wait_for_one_load_and_a_failed_load_is_tried_again(folders: dict[str, Path]) -> None:
    loads, may_load = [0], threading.Event()

    def load(folder: Path) -> Any:
        may_load.wait(10)
        loads[0] += 1
        if loads[0] == 1:
            raise ManifestBroken("once")
        return _Weightless()

    models = WarmModels(budget_bytes=100, fetch=lambda artefact: folders[artefact.location], load=load)
    outcomes: list[str] = []

    def ask() -> None:
        try:
            with models.using(Artefact("a", "a")):
                outcomes.append("loaded")
        except ManifestBroken:
            outcomes.append("broken")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    may_load.set()
    for thread in threads:
        thread.join(timeout=10)
    ask()
    assert outcomes[-1] == "loaded"
    assert loads[0] == 2 or outcomes.count("broken") < 4


def test_two_loads_at_once_never_book_the_same_memory(folders: dict[str, Path]) -> None:
    loading, may_load = threading.Barrier(2), threading.Event()

    def load(folder: Path) -> Any:
        may_load.wait(10)
        return _Weightless()

    def fetch(artefact: Artefact) -> Path:
        loading.wait(10)  # both have asked before either looks for room
        return folders[artefact.location]

    models = WarmModels(budget_bytes=15, fetch=fetch, load=load)
    outcomes: list[str] = []

    def ask(name: str) -> None:
        try:
            with models.using(Artefact(name, name)):
                outcomes.append("loaded")
        except NoMemory as error:
            outcomes.append("refused" if "being loaded" in str(error) else str(error))
            may_load.set()

    threads = [threading.Thread(target=ask, args=[name]) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(outcomes) == ["loaded", "refused"]
    assert sum(int(str(each["bytes"])) for each in models.state()) == 10
