"""The web server's side of ranking: keys, rights, names, and what happens while nobody ranks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client, override_settings
from sentence_transformers import CrossEncoder

from labeling.access.api_keys import make_token
from labeling.models import Membership, Role
from scoring.storage.files import storage
from tests.factories.rows import make_project, make_user
from tests.factories.students.artefacts import store
from tests.processes.serve import rerank_app, running, served
from trainer.evaluation.entries import order_of
from trainer.models import Deployment
from trainer.publishing.manifests import MANIFEST, ManifestBroken
from trainer.serving.addresses import ADDRESSES, RERANK, SCORE
from trainer.serving.loading import sigmoid
from trainer.serving.registry import UnknownReranker, artefact_folder, artefact_of, find_reranker, full_name
from zelo_site import reranking
from zelo_site.pages.rerankers.rerankers import places_apart

pytestmark = pytest.mark.django_db

DOCUMENTS = ["a pond with goldfish", "bread from the oven", "water"]


@pytest.fixture(autouse=True)
def _own_storage(tmp_path: Path, settings: Any) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_CACHE = tmp_path / "cache"


@pytest.fixture
def ranking(tmp_path: Path, settings: Any) -> Iterator[None]:
    """The serving process, on a private socket as `serve_rerank` opens it."""
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    reranking.reranking_socket().parent.mkdir(parents=True, exist_ok=True)
    reranking.reranking_socket().unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(reranking.reranking_socket()))
        app = rerank_app(fetch=artefact_folder, service_keys=reranking.service_keys)
        with running(app, sockets=[listening]):
            yield
    reranking._client.cache_clear()


def ask(client: Client, token: str, path: str = "/v1/rerank", **body: Any) -> Any:
    body = ({} if "texts" in body or "text_1" in body else {"documents": DOCUMENTS}) | {"query": "goldfish"} | body
    return client.post(path, body, content_type="application/json", headers={"authorization": f"Bearer {token}"})


def test_the_service_key_changes_every_hour_and_its_neighbours_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking.time, "time", lambda: 7_200_000.0)
    hours = [reranking.service_key(at_s=7_200_000.0 + 3600 * shift) for shift in (-2, -1, 0, 1, 2)]
    assert len(set(hours)) == 5
    assert reranking.service_key() == hours[2]
    assert sorted(reranking.service_keys()) == sorted(hours[1:4])


def test_a_key_of_scope_rerank_ranks_with_the_project_s_reranker(
    client: Client,
    ranking: None,
    published_encoder: Path,
) -> None:
    owner = make_user("owner")
    reranker = store(published_encoder, make_project(owner=owner))
    token = make_token(owner, name="k", scopes=["rerank"])
    answer = ask(client, token).json()
    model = CrossEncoder(str(published_encoder / "merged"))
    scores = model.predict([("goldfish", each) for each in DOCUMENTS], show_progress_bar=False).tolist()
    assert {row["index"]: row["relevance_score"] for row in answer["results"]} == pytest.approx(
        dict(enumerate(scores)), abs=1e-4
    )
    assert answer["model"] == f"{reranker.project.slug}/fish"
    for name in ("fish", f"{reranker.project.slug}/fish"):
        assert ask(client, token, "/v2/rerank", model=name).status_code == 200
    tei = ask(client, token, "/rerank", texts=DOCUMENTS, documents=None)
    assert tei.status_code == 422  # vLLM's shape, with documents that are none
    headers = {"authorization": f"Bearer {token}"}
    body = {"query": "goldfish", "texts": DOCUMENTS}
    rows = client.post("/rerank?model=fish", body, content_type="application/json", headers=headers).json()
    assert {row["index"]: row["score"] for row in rows} == pytest.approx(dict(enumerate(scores)), abs=1e-4)
    models = client.get("/v1/models", headers=headers).json()
    assert [row["id"] for row in models["data"]] == [answer["model"]]


def test_without_the_right_key_nobody_ranks(client: Client) -> None:
    user = make_user("someone")
    for headers in ({}, {"authorization": "Bearer zelo_wrong"}, {"authorization": "Basic abc"}):
        reply = client.post("/v1/rerank", {"query": "q"}, content_type="application/json", headers=headers)
        assert reply.status_code == 401 and "manage.py token" in reply.json()["message"]
    reply = ask(client, make_token(user, name="k", scopes=["read", "write"]))
    assert reply.status_code == 403 and "'rerank'" in reply.json()["message"]
    assert client.get("/v1/rerank").status_code == 405
    client.force_login(user)  # a session is no key: another site could use it
    assert client.post("/v1/rerank", {"query": "q"}, content_type="application/json").status_code == 401


def test_a_stranger_s_reranker_is_not_there_and_the_names_that_are_are_listed(
    client: Client,
    published_encoder: Path,
) -> None:
    owner, stranger = make_user("owner"), make_user("stranger")
    theirs = store(published_encoder, make_project(owner=owner))
    mine = store(published_encoder, make_project(owner=stranger), "carp")
    slug = theirs.project.slug
    token = make_token(stranger, name="k", scopes=["rerank"])
    for name in ("fish", f"{slug}/fish", "x" * 5000):
        reply = ask(client, token, model=name)
        assert reply.status_code == 404
        listed = reply.json()["message"].partition("you can use: ")[2]
        assert f"{mine.project.slug}/carp" in listed and slug not in listed
    Deployment.objects.create(project=mine.project, name="search", current=mine)
    reply = ask(client, token, model="serach")
    assert f"{mine.project.slug}/search, {mine.project.slug}/carp" in reply.json()["message"], "deployments come first"
    assert find_reranker(stranger, "") == mine
    Membership.objects.create(project=theirs.project, user=stranger, role=Role.VIEWER)
    assert find_reranker(stranger, "fish") == theirs
    with pytest.raises(UnknownReranker, match="the request names no model"):
        find_reranker(stranger, "")


def test_programs_call_a_reranker_without_blanks_and_signs_and_by_its_name_as_well(published_encoder: Path) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner)
    first, second = (
        store(published_encoder, project, "demo · pointwise 1"),
        store(published_encoder, project, "Über v1.5"),
    )
    assert (full_name(first), full_name(second)) == (f"{project.slug}/demo-pointwise-1", f"{project.slug}/über-v1.5")
    for name in ("demo · pointwise 1", "demo-pointwise-1"):
        assert find_reranker(owner, name) == find_reranker(owner, f"{project.slug}/{name}") == first
    same = store(published_encoder, project, "demo pointwise 1")
    assert find_reranker(owner, same.name) == same
    with pytest.raises(UnknownReranker, match="several models have the name"):
        find_reranker(owner, "demo-pointwise-1")


def test_while_nobody_ranks_the_client_is_told_when_to_ask_again(
    client: Client, published_encoder: Path, tmp_path: Path, settings: Any
) -> None:
    owner = make_user("owner")
    store(published_encoder, make_project(owner=owner))
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    reply = ask(client, make_token(owner, name="k", scopes=["rerank"]))
    reranking._client.cache_clear()
    assert reply.status_code == 503 and reply["Retry-After"] == "5"
    assert "serve_rerank.log" in reply.json()["message"]


@pytest.fixture
def something_else(settings: Any) -> Iterator[None]:
    """A server that is no serving process, in its place."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 502, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<h1>Bad gateway</h1>"})

    reranking._client.cache_clear()
    with served(page) as settings.ZELO_RERANK_URL:
        yield
    reranking._client.cache_clear()


def test_what_is_no_json_is_never_passed_on_as_json(
    client: Client, something_else: None, published_encoder: Path
) -> None:
    owner = make_user("owner")
    reranker = store(published_encoder, make_project(owner=owner))
    reply = ask(client, make_token(owner, name="k", scopes=["rerank"]))
    assert reply.status_code == 502
    assert "ZELO_RERANK_URL" in reply.json()["message"]
    client.force_login(owner)
    address = f"/p/{reranker.project.slug}/rerankers/{reranker.pk}/try/"
    assert "ZELO_RERANK_URL" in client.post(address, {"query": "q", "documents": "a\nb"}).content.decode()


def test_a_damaged_reranker_is_told_apart_from_one_that_fails(
    client: Client, ranking: None, published_encoder: Path
) -> None:
    owner = make_user("owner")
    reranker = store(published_encoder, make_project(owner=owner))
    weights = storage().local_folder(reranker.location) / "sequence_classification" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    reply = ask(client, make_token(owner, name="k", scopes=["rerank"]))
    assert reply.status_code == 503
    assert "changed after publishing" in reply.json()["message"]
    assert str(weights.parent) not in reply.json()["message"]


def test_bodies_that_are_too_large_are_refused_before_they_are_read(client: Client) -> None:
    token = make_token(make_user("u"), name="k", scopes=["rerank"])
    headers = {"authorization": f"Bearer {token}"}
    reply = client.post("/v1/rerank", b" " * (33 << 20), content_type="application/json", headers=headers)
    assert reply.status_code == 413


def test_files_from_elsewhere_are_downloaded_once_and_checked(
    published_encoder: Path,
    settings: Any,
) -> None:
    with override_settings(STORAGE_URL="memory://rerankers-test"):
        reranker = store(published_encoder, make_project(owner=make_user("owner")))
        artefact = artefact_of(reranker)
        folder = artefact_folder(artefact)
        assert folder.is_relative_to(settings.ZELO_CACHE)
        storage().remove(reranker.location)
        assert artefact_folder(artefact) == folder
        (folder / MANIFEST).write_text("{}")
        with pytest.raises(ManifestBroken, match="changed after publishing"):
            artefact_folder(artefact)


def test_what_is_evaluated_is_what_is_served(published_encoder: Path) -> None:
    reranker = store(published_encoder, make_project(owner=make_user("owner")))
    model = CrossEncoder(str(published_encoder / "merged"))
    scores = model.predict([("goldfish", each) for each in DOCUMENTS], show_progress_bar=False)
    found = order_of(reranker, [])._score("goldfish", DOCUMENTS)  # type: ignore[attr-defined]
    assert [sigmoid(logit) for logit in found] == pytest.approx(scores.tolist(), abs=1e-4)


def test_the_page_lists_forms_with_sizes_and_the_checksum(client: Client, published_encoder: Path) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner)
    client.force_login(owner)
    address = f"/p/{project.slug}/rerankers/"
    assert "No rerankers yet" in client.get(address).content.decode()
    reranker = store(published_encoder, project)
    text = client.get(address).content.decode()
    for part in ("adapter", "merged", "sequence_classification", reranker.checksum, f"{project.slug}/fish"):
        assert part in text
    rows = client.get(f"/api/v1/projects/{project.slug}/rerankers").json()
    assert rows[0]["checksum"] == reranker.checksum and rows[0]["model"] == f"{project.slug}/fish"


def test_the_box_ranks_what_is_typed_or_what_the_project_holds(
    client: Client, ranking: None, published_encoder: Path
) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner, queries=2, documents=3)
    reranker = store(published_encoder, project)
    client.force_login(owner)
    address = f"/p/{project.slug}/rerankers/{reranker.pk}/try/"
    assert "Enter a question" in client.get(address).content.decode()
    typed = client.post(address, {"query": "goldfish", "documents": "\r\n".join(DOCUMENTS)})
    model = CrossEncoder(str(published_encoder / "merged"))
    scores = model.predict([("goldfish", each) for each in DOCUMENTS], show_progress_bar=False).tolist()
    best = sorted(DOCUMENTS, key=lambda each: -scores[DOCUMENTS.index(each)])
    assert [row.document.text for row in typed.context["ranked"]] == best
    stored = project.queries.order_by("id").first()
    found = client.post(address, {"query": stored.text, "documents": ""})
    assert {row.document.external_id for row in found.context["ranked"]} == set(
        stored.candidates.values_list("document__external_id", flat=True)
    )
    assert len(client.post(address, {"query": "a word", "documents": " "}).context["ranked"]) == 6
    assert "Enter documents" in client.post(address, {"query": "unheard", "documents": ""}).content.decode()
    assert "Enter a question" in client.post(address, {"query": " "}).content.decode()


@pytest.mark.parametrize(
    ("scores", "places"),
    [([0.9, 0.5], 3), ([0.02131, 0.02129, 0.02129], 5), ([0.5, 0.5], 3), ([1e-12, 0.0], 8), ([], 3)],
)
def test_scores_are_written_with_as_many_places_as_tell_them_apart(scores: list[float], places: int) -> None:
    assert places_apart(scores) == places
    written = [f"{each:.{places}f}" for each in scores]
    assert len(set(written)) == len({round(each, 8) for each in scores})


def test_the_box_says_that_nobody_ranks(client: Client, published_encoder: Path, tmp_path: Path, settings: Any) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner)
    reranker = store(published_encoder, project)
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    client.force_login(owner)
    answer = client.post(f"/p/{project.slug}/rerankers/{reranker.pk}/try/", {"query": "q", "documents": "a"})
    reranking._client.cache_clear()
    assert answer.status_code == 200 and "serve_rerank.log" in answer.content.decode()


def test_every_dialect_is_answered_as_by_the_serving_process(
    client: Client, ranking: None, published_encoder: Path
) -> None:
    owner = make_user("owner")
    store(published_encoder, make_project(owner=owner))
    token = make_token(owner, name="k", scopes=["rerank"])
    plain = ask(client, token, top_n=0).json()
    expected = {row["index"]: row["relevance_score"] for row in plain["results"]}
    assert set(expected) == {0, 1, 2} and not any("document" in row for row in plain["results"])
    for path in (*RERANK, "/v1/rerank/"):
        found = ask(client, token, path).json()["results"]
        assert {row["index"]: row["relevance_score"] for row in found} == pytest.approx(expected, abs=1e-5)
        assert {"document" in row for row in found} == {path == "/rerank"}
        tei = ask(client, token, path, texts=DOCUMENTS, return_text=True, priority=1)
        if path != "/v2/rerank":
            assert {row["index"]: row["text"] for row in tei.json()} == dict(enumerate(DOCUMENTS))
            assert tei["x-zelo-warnings"] == "priority is not used"
    for path in (*SCORE, "/score/"):
        found = ask(client, token, path, text_1="goldfish", text_2=DOCUMENTS).json()
        assert {row["index"]: row["score"] for row in found["data"]} == pytest.approx(expected, abs=1e-5)
    assert len(ask(client, token, top_k=1).json()["data"]) == 1
    large = ask(client, token, "/v2/rerank", documents=["x" * 20_000] * 20)
    assert large.status_code == 200 and len(large.content) < 5_000


def test_options_and_bad_characters_are_handled_as_by_the_serving_process(
    client: Client, ranking: None, published_encoder: Path
) -> None:
    owner = make_user("owner")
    store(published_encoder, make_project(owner=owner))
    token = make_token(owner, name="k", scopes=["rerank"])
    headers = {"authorization": f"Bearer {token}"}
    raw = (
        b'{"query": "q", "documents": ["a\\u0000b", "a\\ud83d", {"text": "a", "score": NaN}], "return_documents": true}'
    )
    answer = client.post("/v1/rerank", raw, content_type="application/json", headers=headers)
    texts = {row["index"]: row["document"]["text"] for row in answer.json()["results"]}
    assert texts == {0: "a b", 1: "a\ufffd", 2: "a"} and "replaced" in answer.json()["meta"]["warnings"][0]
    titled = ask(client, token, documents=[{"text": "x", "title": "t"}], rank_fields=["title"], return_documents=True)
    assert titled.json()["results"][0]["document"] == {"text": "t"}
    assert ask(client, token, max_chunks_per_doc=3).json()["meta"]["warnings"] == ["max_chunks_per_doc is not used"]
    forbidden = ask(client, token, "/rerank", texts=["water " * 3000], truncate=False)
    assert forbidden.status_code == 422 and "truncated" in forbidden.json()["error"]
    spelled, broken = (ask(client, token, documents=[f"Gills. {each} q {each}"]).json() for each in ("[SEP]", "[ SEP]"))
    assert spelled["results"][0] == pytest.approx(broken["results"][0], abs=1e-6)


def test_health_info_and_unknown_addresses_answer_in_json(
    client: Client, ranking: None, published_encoder: Path
) -> None:
    owner = make_user("owner")
    reranker = store(published_encoder, make_project(owner=owner))
    headers = {"authorization": f"Bearer {make_token(owner, name='k', scopes=['rerank'])}"}
    assert client.get("/health").json() == {"status": "ok"} and client.post("/health").status_code == 405
    for address in ("/info", "/info/?model=fish"):
        info = client.get(address, headers=headers).json()
        assert (info["model_id"], info["model_sha"]) == (full_name(reranker), reranker.checksum)
    assert client.get("/info").status_code == 401
    assert client.get("/info?model=other", headers=headers).status_code == 404
    assert client.get("/v1/models/", headers=headers).json()["data"][0]["id"] == full_name(reranker)
    assert client.post("/v1/models", headers=headers).status_code == 405
    for address in ("/v1/models/", "/models/"):
        model = client.get(address + full_name(reranker), headers=headers).json()
        assert (model["id"], model["object"]) == (full_name(reranker), "model")
        own = full_name(reranker).rpartition("/")[2]
        assert client.get(address + own.upper(), headers=headers).json() == model, "as requests may call it"
        other = client.get(f"{address}other/fish", headers=headers)
        assert other.status_code == 404 and full_name(reranker) in other.json()["message"]
        assert client.get(address + full_name(reranker)).status_code == 401
    for address in ("/v1/chat/completions", "/v2/x/y"):
        for answer in (client.get(address), client.post(address, {}, content_type="application/json")):
            assert (answer.status_code, answer["Content-Type"]) == (404, "application/json")
            assert answer.json()["addresses"] == list(ADDRESSES) and address in answer.json()["message"]
    page = client.get("/no-such-page", headers={"accept": "text/html,*/*"})
    assert page.status_code == 404 and page["Content-Type"].startswith("text/html")


def test_without_the_ranking_server_health_is_503(client: Client, tmp_path: Path, settings: Any) -> None:
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    answer = client.get("/health")
    reranking._client.cache_clear()
    assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")
