"""The embedding student: it learns, never leaves its base for the worse, and is published as it was measured."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from labeling.plugin_checks import check_plugin
from labeling.plugins import get_plugin
from labeling.records import Examples, TextRecord, Trained, TrainingData
from tests.factories.lessons import Report, make_data
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from tests.factories.weights.tiny_models import save_tiny_bert
from tests.processes.serve import serving
from trainer.bases import load_base
from trainer.examples import drawn_queries
from trainer.instructions import InstructionTooLong
from trainer.publishing import embedding_export
from trainer.publishing.embedding_export import publish_embedder
from trainer.publishing.export import ModelCard, ParityFailed
from trainer.publishing.manifests import verify
from trainer.serving.embedding import LoadedEmbedder
from trainer.serving.published import load_published
from trainer.token_similarity import list_similarities, similarities
from trainer.training.embedding import course, training
from trainer.training.embedding.bi_encoder import BiEncoder, NotAnEmbedder, SizeTooLarge, backward_through
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.plugin import Embedding
from trainer.training.embedding.token_weight import Signals, Weights, chosen_weights, signals_of
from trainer.training.embedding.training import NothingToChooseOn
from trainer.training.losses.elo import with_preferences
from trainer.training.options import START

TEXTS = ["goldfish in a pond", "bread", "flour and yeast in the oven " * 3]


pytestmark = pytest.mark.usefixtures("all_models_allowed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_embedder(tmp_path_factory.mktemp("embedder"))


def options(base: Path | str, **changes: Any) -> EmbeddingOptions:
    small: dict[str, Any] = {
        "base": str(base), "precision": "fp32", "rank": 4, "threads": 1, "epochs": 6, "learning_rate": 5e-3, "pull": 0.0, "max_length": 64,
        "queries_a_step": 1, "in_batch_negatives": False,
    }  # fmt: skip
    return EmbeddingOptions.model_validate(small | changes)


def learn(
    base: Path | str, workspace: Path, data: TrainingData | None = None, **changes: Any
) -> tuple[Trained, Report]:
    workspace.mkdir(exist_ok=True)
    told = Report()
    return Embedding(options(base, **changes)).train(data or make_data(16), workspace, told), told


@pytest.fixture(scope="module")
def learned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Report]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELO_MODELS", "*")
        return learn(base, tmp_path_factory.mktemp("w"), embedding_sizes="16, 8", eval_steps=24)


@pytest.fixture(scope="module")
def published(learned: tuple[Trained, Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELO_MODELS", "*")
        return publish(learned[0], tmp_path_factory.mktemp("p") / "student")


def publish(trained: Trained, out: Path) -> Path:
    return publish_embedder(
        trained.adapter, base=trained.base, out=out, card=ModelCard(name="tiny", training=trained.facts), probe=TEXTS,
        max_length=trained.max_length, sizes=trained.embedding_sizes,
    ).folder  # fmt: skip


def test_the_plugin_keeps_its_contract() -> None:
    assert check_plugin(Embedding) == []


def test_it_learns_and_says_on_how_many_queries_the_scale_rests(learned: tuple[Trained, Report]) -> None:
    trained, told = learned
    losses = [each["loss"] for each in told.of("step")]
    assert losses[-1] < 0.8 * losses[0]
    (chosen,) = told.of("chosen")
    assert chosen["scale"] > 0.0 and chosen["gain"] > chosen["stderr"]
    assert (chosen["queries"], trained.facts["folds"]) == (20, 3)
    assert (trained.form, trained.embedding_sizes, trained.base_won) == ("bi-encoder", (32, 16, 8), False)
    assert {each["fold"] for each in told.of("cross_validation")} == {1, 2, 3}


def test_slow_steps_are_reported_one_by_one(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "REPORT_S", 0.0)
    _, told = learn(base, tmp_path / "w", max_steps=4)
    assert [each["step"] for each in told.of("step")] == [1, 2, 3, 4]
    left = [(each["fold"], each["step"], each["eta_s"]) for each in told.of("cross_validation")]
    assert [each[:2] for each in left] == [(fold, step) for fold in (1, 2, 3) for step in (1, 2, 3, 4)]
    assert all(eta > 0.0 for *_, eta in left), "the steps over all queries are still to come"


def test_a_training_continues_from_a_student_which_dev_queries_alone_may_replace(
    base: Path, learned: tuple[Trained, Report], tmp_path: Path
) -> None:
    shutil.copytree(learned[0].adapter, tmp_path / "on" / START)
    changes: dict[str, Any] = {"start": "a" * 64, "epochs": 1, "learning_rate": 1e-6}
    trained, told = learn(base, tmp_path / "on", make_data(16, dev=8), **changes)
    fresh = learned[1].of("step")
    assert told.of("step")[0]["loss"] < 0.9 * fresh[0]["loss"], "it begins with what the student knows"
    assert told.of("cross_validation") == [] and trained.facts["held_out_queries"] == 8
    assert trained.base_won, "a rate of 1e-6 changes no order"
    kept, before = (
        load_file(str(folder / "adapter_model.safetensors")) for folder in (trained.adapter, learned[0].adapter)
    )
    assert all(torch.equal(kept[name], before[name]) for name in before)
    shutil.copytree(learned[0].adapter, tmp_path / "few" / START)
    with pytest.raises(NothingToChooseOn, match="dev queries with an order: 4; a training that continues needs 5"):
        learn(base, tmp_path / "few", **changes)


def test_every_fold_and_the_whole_course_start_from_the_untrained_adapter(base: Path, tmp_path: Path) -> None:
    """A course that continued the one before would be measured on queries that it has learned from."""
    folded, without = (learn(base, tmp_path / str(folds), folds=folds, epochs=1)[1].of("step") for folds in (3, 0))
    assert [each["loss"] for each in folded] == [each["loss"] for each in without]


def test_labels_of_chance_leave_the_base_where_it_is(base: Path, tmp_path: Path) -> None:
    data = make_data(16)
    chance = np.random.default_rng(1)
    mixed = TrainingData(
        *(
            dataclasses.replace(part, labels=chance.permutation(part.labels), elo=None)
            for part in (data.train, data.dev)
        )
    )
    trained, _ = learn(base, tmp_path / "w", mixed, learning_rate=1e-4, epochs=1)
    assert trained.base_won and trained.facts["best_step"] == 0 and trained.facts["adapter_scale"] == 0.0
    weights = load_file(str(trained.adapter / "adapter_model.safetensors"))
    assert all(not each.any() for name, each in weights.items() if "lora_B" in name)


@pytest.mark.long  # two trainings; test_process kills one as well
def test_a_killed_training_goes_on_to_the_same_bits(base: Path, tmp_path: Path) -> None:
    class Killed(Report):
        def __call__(self, kind: str, **values: Any) -> None:
            super().__call__(kind, **values)
            if kind == "checkpoint":
                raise KeyboardInterrupt

    changes = {"epochs": 2, "dropout": 0.1, "eval_steps": 8}
    whole, _ = learn(base, tmp_path / "whole", **changes)
    (tmp_path / "killed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        Embedding(options(base, **changes)).train(make_data(16), tmp_path / "killed", Killed())
    resumed, told = learn(base, tmp_path / "killed", **changes)
    assert told.of("resumed") and not told.of("cross_validation")
    one, other = (load_file(str(each.adapter / "adapter_model.safetensors")) for each in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_cached_gradients_are_those_of_one_pass(base: Path, dropout: float) -> None:
    model = BiEncoder(load_base(str(base)), options(base, dropout=dropout)).train()
    texts = model.tokens([f"{text} {number}" for number in range(3) for text in TEXTS], "document", max_length=64)
    with torch.no_grad():
        for weights in model.adapted.parameters():
            if weights.requires_grad:
                weights.add_(0.05)

    def gradient(most: int) -> torch.Tensor:
        model.zero_grad()
        torch.manual_seed(3)
        backward_through(model, texts, lambda vectors: (vectors @ vectors.T).exp().sum(), most=most)
        return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])

    few = gradient(4)
    assert few.abs().max() > 1e-3
    if not dropout:  # other batches draw other dropout
        assert torch.allclose(gradient(99), few, rtol=1e-3, atol=1e-5)
    assert torch.equal(gradient(4), few)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"embedding_sizes": "64"}, SizeTooLarge, "sizes of at most 32"),
        (
            {"folds": 0},
            NothingToChooseOn,
            "folds is 0; set it to 2 or more, or freeze a snapshot with a larger dev_share",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_remedy(
    base: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    nothing = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    with pytest.raises(error, match=says):
        learn(base, tmp_path / "w", TrainingData(make_data(4).train, nothing), **changes)


def test_one_query_needs_more_queries_not_more_folds(base: Path, tmp_path: Path) -> None:
    nothing = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    with pytest.raises(NothingToChooseOn) as caught:
        learn(base, tmp_path / "w", TrainingData(make_data(1).train, nothing))
    assert "training queries with an order: 1, and folds need 4; judge more queries" in str(caught.value)
    assert "dev_share" not in str(caught.value)


def test_a_base_that_is_no_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnEmbedder, match="another trainer"):
        learn(save_tiny_bert(tmp_path / "bert"), tmp_path / "w")
    with pytest.raises(ValueError, match="whole numbers with commas"):
        options("minilm", embedding_sizes="many")


def test_the_published_forms_are_the_base_with_the_chosen_adapter(
    learned: tuple[Trained, Report], published: Path
) -> None:
    trained, _ = learned
    adapted = SentenceTransformer(trained.base, device="cpu")
    plain = adapted.encode(TEXTS)
    adapted.load_adapter(str(published / "adapter"))
    expected = adapted.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(plain - expected).max() > 1e-2
    folder = SentenceTransformer(str(published / "sentence_transformers"), device="cpu")
    assert folder.encode(TEXTS) == pytest.approx(expected, abs=1e-4)
    served = load_published(published)
    assert served.vectors(TEXTS) == pytest.approx(expected, abs=1e-4)  # type: ignore[union-attr]
    manifest = verify(published)
    assert manifest["form"] == "bi-encoder" and manifest["embedding_sizes"] == [32, 16, 8]
    assert f"adapter scale: {trained.facts['adapter_scale']:.4g}" in (published / "merged" / "README.md").read_text()


def test_forms_that_differ_are_not_published(
    learned: tuple[Trained, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_export, "TOLERANCE", -1.0)
    with pytest.raises(ParityFailed, match="nothing was published"):
        publish(learned[0], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_it_is_served_as_embeddings_in_the_shapes_of_openai_and_tei(published: Path) -> None:
    model = SentenceTransformer(str(published / "sentence_transformers"), device="cpu")
    expected = model.encode(TEXTS)
    with serving(published) as address:
        reply = httpx.post(f"{address}/v1/embeddings", json={"model": "tiny", "input": TEXTS}, timeout=60).json()
        assert [each["index"] for each in reply["data"]] == [0, 1, 2]
        assert np.array([each["embedding"] for each in reply["data"]]) == pytest.approx(expected, abs=1e-4)
        assert reply["usage"]["total_tokens"] > 6 and reply["object"] == "list"
        body = {"model": "tiny", "input": TEXTS[0], "dimensions": 8}
        (short,) = httpx.post(f"{address}/v1/embeddings", json=body).json()["data"]
        cut = expected[0, :8] / np.linalg.norm(expected[0, :8])
        assert np.array(short["embedding"]) == pytest.approx(cut, abs=1e-4)
        for wrong, says in (
            ({"input": TEXTS, "dimensions": 9}, "trained for 32, 16, 8"),
            ({"input": []}, "a list of texts"),
            ({"input": ["a", ""]}, r"input[1] is empty"),
            ({"input": "a", "encoding_format": "int8"}, "float or base64"),
            ({"input": "a", "input_type": "image"}, "query or document"),
            ({"input": [1, 2]}, "token numbers"),
            ({"input": [[1, 2]]}, "check_embedding_ctx_length=False"),
            ({"input": "water " * 3000, "truncate": False}, "would be truncated"),
        ):
            refused = httpx.post(f"{address}/v1/embeddings", json=wrong)
            assert refused.status_code == 422 and says in refused.json()["error"]["message"]
        embedded = httpx.post(
            f"{address}/embed", json={"inputs": TEXTS, "truncate": True, "normalize": True, "user": "u"}
        )
        assert np.array(embedded.json()) == pytest.approx(expected, abs=1e-4)
        assert embedded.headers["x-zelo-warnings"] == "user is not used"
        for wrong, says in (
            ({"inputs": "a", "normalize": False}, "normalize is false"),
            ({"inputs": "a", "prompt_name": "image"}, "query or document"),
            ({"inputs": [[1]]}, "token numbers"),
            ({"input": "a"}, "inputs is missing"),
        ):
            refused = httpx.post(f"{address}/embed", json=wrong)
            assert refused.status_code == 422 and says in refused.json()["error"]
        for path in ("/embed_all", "/embed_sparse"):
            refused = httpx.post(f"{address}{path}", json={"inputs": "a"})
            assert refused.status_code == 404 and "use /embed" in refused.json()["message"]
        warned = httpx.post(f"{address}/v1/embeddings", json={"input": "a", "user": "u"}).headers["x-zelo-warnings"]
        assert warned == "user is not used"
        spelled, broken = (
            httpx.post(f"{address}/v1/embeddings", json={"input": f"pond {each} water"}).json()["data"]
            for each in ("[SEP]", "[ SEP]")
        )
        assert spelled == broken
        assert httpx.get(f"{address}/info").json()["model_type"] == {"embedding": {"pooling": "mean"}}


def test_it_is_served_by_its_cosine_at_the_rerank_addresses(published: Path) -> None:
    model = SentenceTransformer(str(published / "sentence_transformers"), device="cpu")
    expected = model.encode(TEXTS)
    with serving(published) as address:
        ranked = httpx.post(f"{address}/v1/rerank", json={"query": "goldfish", "documents": TEXTS}).json()
        cosines = dict(enumerate((expected @ model.encode("goldfish")).tolist()))
        found = {row["index"]: row["relevance_score"] for row in ranked["results"]}
        assert found == pytest.approx(cosines, abs=1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        pairs = {"text_1": ["goldfish", TEXTS[0]], "text_2": TEXTS[:2], "user": "u"}
        scored = httpx.post(f"{address}/score", json=pairs).json()
        cosines = [expected[0] @ model.encode("goldfish"), expected[0] @ expected[1]]
        assert [row["score"] for row in scored["data"]] == pytest.approx(cosines, abs=1e-4)
        assert scored["meta"]["warnings"] == ["user is not used"]
        long = {"query": "water " * 99, "documents": TEXTS, "truncate": False}
        refused = httpx.post(f"{address}/v1/rerank", json=long).json()["message"]
        assert "the query would be truncated: the model takes 64 tokens, of which the query may have 64" in refused
        body = {"query": "goldfish", "documents": [TEXTS[0] + " water" * 50], "max_tokens_per_doc": 1}
        (first,) = httpx.post(f"{address}/v1/rerank", json=body).json()["results"]
        head = model.tokenizer(TEXTS[0], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][0][1]
        assert first["relevance_score"] == pytest.approx(
            float(model.encode(TEXTS[0][:head]) @ model.encode("goldfish")), abs=1e-4
        )


def test_openai_s_client_reads_the_embeddings(published: Path) -> None:
    from openai import OpenAI

    expected = SentenceTransformer(str(published / "sentence_transformers"), device="cpu").encode(TEXTS)
    with serving(published) as address:
        client = OpenAI(base_url=f"{address}/v1", api_key="none")
        reply = client.embeddings.create(model="tiny", input=TEXTS)  # it asks for base64
    assert np.array([each.embedding for each in reply.data]) == pytest.approx(expected, abs=1e-4)


def test_it_serves_as_retriever_and_as_judge(published: Path) -> None:
    folder = str(published / "sentence_transformers")
    model = SentenceTransformer(folder, device="cpu")
    cosines = model.encode(TEXTS) @ model.encode("goldfish")
    documents = [TextRecord(number, text) for number, text in enumerate(TEXTS)]
    query = TextRecord(9, "goldfish")
    retriever: Any = get_plugin("retriever", "dense").from_dict({"model": folder})
    (found,) = retriever.retrieve([query], documents, 3)
    assert [place for place, _ in found] == np.argsort(-cosines).tolist()
    judge: Any = get_plugin("judge", "embedding").from_dict({"model": folder})
    assert judge.score(query, documents) == pytest.approx(cosines, abs=1e-4)
    assert judge.model_revision.startswith("sha256:")


def test_a_student_that_compares_tokens_is_served_as_it_was_measured(
    learned: tuple[Trained, Report], base: Path, tmp_path: Path
) -> None:
    trained = dataclasses.replace(learned[0], token_weight=0.5)
    folder = publish_embedder(
        trained.adapter, base=trained.base, out=tmp_path / "s", card=ModelCard(name="tiny"), token_weight=0.5
    ).folder
    student, plain = load_published(folder), load_published(publish(learned[0], tmp_path / "plain"))
    assert isinstance(student, LoadedEmbedder) and isinstance(plain, LoadedEmbedder)
    np.testing.assert_allclose(student.vectors(TEXTS), plain.vectors(TEXTS), atol=1e-6)
    assert student.shortened(student.logits(student.encode_texts(TEXTS, role="document"))[0], None).ndim == 1
    model = BiEncoder(load_base(str(base)), options(base))
    model.adapted.load_adapter(str(trained.adapter), "default")
    model.eval()
    (asked,) = model.encode_tokens(["goldfish"], "query", most=8)
    cosines, tokens = similarities(asked, model.encode_tokens(TEXTS, "document", most=8))
    expected = 0.5 * np.array(cosines) + 0.5 * np.array(tokens)
    np.testing.assert_allclose(student.scores("goldfish", TEXTS), expected, atol=1e-5)
    assert [each.index for each in student.rank("goldfish", TEXTS)] == np.argsort(-expected, kind="stable").tolist()
    assert np.isfinite(student.scores("", ["", "a"])).all()


def test_the_weights_rest_on_folds_that_did_not_learn_from_their_queries_and_leave_the_adapter_as_it_is(
    learned: tuple[Trained, Report], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Sequence[Signals]] = []

    def seen(signals: Sequence[Signals], *rest: Any, **more: Any) -> Any:
        shown.append(signals)
        return chosen_weights(signals, *rest, **more)

    monkeypatch.setattr("trainer.training.embedding.token_weight.chosen_weights", seen)
    data, plain = make_data(16), learned[0]
    more: Any = {"token_similarity": True, "list_similarity": True, "embedding_sizes": "16, 8", "eval_steps": 24}
    trained, _ = learn(base, tmp_path / "w", data, **more)
    assert trained.facts["adapter_scale"] == plain.facts["adapter_scale"] > 0.0
    for name, weights in load_file(plain.adapter / "adapter_model.safetensors").items():
        assert torch.equal(weights, load_file(trained.adapter / "adapter_model.safetensors")[name])
    (signals,) = shown
    model = BiEncoder(load_base(str(base)), options(base))
    model.adapted.load_adapter(str(trained.adapter), "default")
    model.eval()
    queries = with_preferences(data.train)
    assert len(signals) == len(queries)
    rows = queries[0]
    asked, told = data.train.queries[rows.start], data.train.documents[rows.start : rows.stop]
    learned_from_it = signals_of(model, asked, told, most=8)
    assert np.abs(learned_from_it.cosines - signals[0].cosines).max() > 1e-3
    uneven = [at for at in range(len(data.train)) if at % 6 < 3 + data.train.query_ids[at] % 3]
    columns = (getattr(data.train, each) for each in ("queries", "documents", "labels", "weights", "query_ids"))
    fewer = Examples(*([own[at] for at in uneven] if isinstance(own, list) else own[uneven] for own in columns))
    some, _ = learn(base, tmp_path / "some", dataclasses.replace(data, train=fewer), **more, dev_rows=30)
    assert some.facts["adapter_scale"] > 0.0
    sizes = [rows.stop - rows.start for rows in with_preferences(fewer)]
    drawn = drawn_queries(np.array(sizes), 30).tolist()
    assert [len(each.cosines) for each in shown[1]] == [sizes[at] for at in drawn] and drawn != list(range(len(drawn)))


def test_without_folds_dev_queries_choose_the_weights_of_what_has_learned(
    base: Path, learned: tuple[Trained, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    measured = lambda model, rows, queries, **rest: shown.append(len(queries)) or Weights()  # noqa: E731
    monkeypatch.setattr(training, "measured_weights", measured)
    data = make_data(16, dev=20)
    shutil.copytree(learned[0].adapter, tmp_path / "on" / START)
    learn(base, tmp_path / "on", data, token_similarity=True, start="a" * 64, epochs=1)
    learn(base, tmp_path / "alone", data, token_similarity=True, folds=0)
    learn(base, tmp_path / "base", data, token_similarity=True, folds=0, max_steps=1, learning_rate=1e-9)
    assert shown == [20, 20, 16]


def test_a_student_that_compares_the_list_is_served_so_and_never_prefers_one_of_two_for_it(
    learned: tuple[Trained, Report], tmp_path: Path
) -> None:
    trained = learned[0]
    common: Any = {"base": trained.base, "card": ModelCard(name="tiny")}
    folders = {
        weights: publish_embedder(
            trained.adapter, out=tmp_path / f"{weights}", token_weight=weights[0], list_weight=weights[1], **common
        ).folder
        for weights in ((0.0, 0.2), (0.5, 0.2), (0.0, 0.0))
    }
    plain = load_published(folders[0.0, 0.0])
    assert isinstance(plain, LoadedEmbedder) and plain.is_cosine
    vectors = plain.vectors(TEXTS)
    mean = vectors.mean(axis=0)
    context = vectors @ (mean / np.linalg.norm(mean))
    np.testing.assert_allclose(list_similarities(list(vectors)), context, atol=1e-6)
    for weights, folder in folders.items():
        student = load_published(folder)
        assert isinstance(student, LoadedEmbedder)
        own = 1.0 - weights[1]
        expected = np.array(student.scores("goldfish", TEXTS))
        student.list_weight = 0.0
        without = np.array(student.scores("goldfish", TEXTS))
        np.testing.assert_allclose(expected, own * without + weights[1] * context, atol=1e-5)
        student.list_weight = weights[1]
        order = np.random.default_rng(0).permutation(len(TEXTS))
        shuffled = student.scores("goldfish", [TEXTS[at] for at in order])
        np.testing.assert_allclose(shuffled, expected[order], atol=1e-6)
        a, b = student.scores("goldfish", TEXTS[:2])
        assert a - b == pytest.approx(own * (without[0] - without[1]), abs=1e-5)
        assert student.scores("goldfish", []) == []


FISH = ("goldfish in a pond", "water for goldfish", "a pond", "fish in water", "goldfish", "pond water and fish")
BREAD = ("bread from the oven", "flour and yeast", "oven", "yeast in bread", "bread", "flour for bread in the oven")


def two_instructions(queries: int) -> TrainingData:
    """The same queries under two instructions that order the same documents the other way round."""
    rng = np.random.default_rng(0)
    texts, documents, elo, told, numbers = [], [], [], [], []
    for number in range(queries):
        fish, bread = (rng.choice(some, 3, replace=False).tolist() for some in (FISH, BREAD))
        for wanted in ("fish", "bread"):
            for text in (*fish, *bread):
                texts.append("what should I read")
                documents.append(text)
                elo.append(1700.0 if (text in FISH) == (wanted == "fish") else 1300.0)
                told.append(f"only {wanted}")
                numbers.append(2 * number + (wanted == "bread"))
    values = np.array(elo)
    rows = Examples(
        queries=texts, documents=documents, labels=(values > 1500.0).astype(np.float64), weights=np.ones(len(values)),
        query_ids=np.array(numbers), elo=values, instructions=told,
    )  # fmt: skip
    nothing = Examples([], [], np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    return TrainingData(rows, nothing)


def test_two_instructions_order_the_same_documents_differently(base: Path, tmp_path: Path) -> None:
    """A student that reads them learns both orders; one that does not sees each order contradicted."""
    data = two_instructions(12)
    reads, _ = learn(base, tmp_path / "reads", data)
    deaf, _ = learn(base, tmp_path / "deaf", data, instructions="never")
    assert reads.reads_instruction and not deaf.reads_instruction
    assert reads.facts["held_out_gain"] > 0.1 > deaf.facts["held_out_gain"]
    long = dataclasses.replace(data.train, instructions=["only fish " * 40] * len(data.train))
    with pytest.raises(InstructionTooLong, match="shorten the instruction"):
        learn(base, tmp_path / "long", TrainingData(long, data.dev), instructions="always")
