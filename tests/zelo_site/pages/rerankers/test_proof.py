"""The proof: leaderboard, what moved, entering what people use today; pages, REST and command."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Membership, ModelGrade, Project
from scoring.models import Snapshot
from tests.factories.frozen import a_run, make_frozen, make_scored
from tests.factories.pages import make_user, page
from tests.factories.rows import judge_pair, make_judges, make_pair
from trainer.evaluation.entries import BASE, enter_baselines, enter_run_file
from trainer.evaluation.leaderboard import Leaderboard, evaluation_queries
from trainer.models import Reranker
from workers.jobs.evaluation import AT_QUERY, evaluate, order_evaluation
from workers.models import Job
from zelo_site.management.commands import evaluate as command
from zelo_site.pages.rerankers import proof

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"


@pytest.fixture
def project(owner: Any) -> Project:
    scored = make_scored(queries=9, documents=6)
    Membership.objects.create(project=scored, user=owner, role="owner")
    return scored


@pytest.fixture
def snapshot(project: Project) -> Snapshot:
    return make_frozen(project)


def measured(project: Project, snapshot: Snapshot) -> None:
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=chosen).pk)


def test_without_a_snapshot_the_page_says_what_a_proof_needs(client: Client, project: Project) -> None:
    assert "An evaluation needs a snapshot" in page(client, "proof", project.slug)


def test_before_an_evaluation_the_page_offers_one(client: Client, project: Project, snapshot: Snapshot) -> None:
    assert "Not evaluated yet" in page(client, "proof", project.slug)
    order = {"action": "evaluate", "snapshot": snapshot.pk, "split": "test"}
    assert client.post(reverse("proof", args=[project.slug]), order).status_code == 302
    assert Job.objects.get(stage="evaluate").payload["snapshot"] == snapshot.pk
    html = page(client, "proof", project.slug)
    assert 'hx-trigger="every 3s"' in html
    client.post(reverse("proof", args=[project.slug]), order)
    assert Job.objects.filter(stage="evaluate").count() == 1


def test_the_leaderboard_names_orders_intervals_and_differences(
    client: Client, project: Project, snapshot: Snapshot
) -> None:
    measured(project, snapshot)
    html = page(client, "proof", project.slug)
    for said in ("first stage", "BM25", "Elo", "against human grades", "NDCG@10 by domain", "law"):
        assert said in html
    assert "against Elo" in client.get(reverse("proof", args=[project.slug]) + "?reference=elo").content.decode()


def test_more_domains_than_rerankers_stand_below_each_other(
    client: Client, project: Project, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(project, snapshot)

    def domains() -> str:
        html = page(client, "proof", project.slug)
        return html[html.index('id="h-domains"') :].split("</thead>")[0]

    assert '<th scope="col" class="number">law</th>' in domains()
    monkeypatch.setattr(Leaderboard, "has_tall_domains", True)
    assert '<th scope="col" class="number wraps">BM25</th>' in domains() and "law" not in domains()
    report = client.get(reverse("report", args=[project.slug])).content.decode()
    assert '<th scope="row">law</th>' in report


def test_a_row_is_chosen_to_compare_all_others_with(client: Client, project: Project, snapshot: Snapshot) -> None:
    measured(project, snapshot)
    elo = Reranker.objects.get(kind="elo")
    address = reverse("proof", args=[project.slug]) + f"?snapshot={snapshot.pk}&split=test&reference=grades"
    assert "vs Elo" not in client.get(address).content.decode()
    html = client.get(f"{address}&against={elo.pk}").content.decode()
    assert "vs Elo" in html
    assert f'<option value="{elo.pk}" selected>Elo</option>' in html
    assert f"from={elo.pk}&amp;to={Reranker.objects.get(kind='bm25').pk}" in html
    assert "vs Elo" not in client.get(f"{address}&against=999999").content.decode()


def test_a_difference_opens_what_moved(client: Client, project: Project, snapshot: Snapshot) -> None:
    measured(project, snapshot)
    first, second = (Reranker.objects.get(kind=kind) for kind in ("first_stage", "elo"))
    address = reverse("moved", args=[project.slug]) + f"?snapshot={snapshot.pk}&split=test&reference=grades"
    address += f"&from={first.pk}&to={second.pk}"
    html = client.get(address).content.decode()
    assert "Rank changes from first stage to Elo" in html
    german = client.get(address, headers={"Accept-Language": "de"}).content.decode()
    assert "erste Stufe</option>" in german and "first stage" not in german, "as on the leaderboard"
    query = evaluation_queries(snapshot, "test")[0]
    html = client.get(f"{address}&query={query.id}").content.decode()
    assert all(document in html for document in query.document_ids)
    assert client.get(f"{address}&query=nowhere").status_code == 404
    assert client.get(address.replace(f"to={second.pk}", "to=999999")).status_code == 404


def test_a_run_file_is_entered_or_its_fault_is_named(client: Client, project: Project, snapshot: Snapshot) -> None:
    address = reverse("proof", args=[project.slug])

    def enter(content: bytes) -> str:
        run = SimpleUploadedFile("today.trec", content)
        return client.post(address, {"action": "run_file", "name": "", "run": run}, follow=True).content.decode()

    refused = client.post(address, {"action": "run_file", "name": "today"})
    assert refused.status_code == 422
    assert refused.content.decode().count('run-error"') == 2 and 'value="today"' in refused.content.decode()
    assert client.post(address, {"action": "evaluate", "snapshot": snapshot.pk, "split": "odd"}).status_code == 422
    assert "the line has 2 columns" in enter(b"bad run\n")
    assert not Reranker.objects.filter(kind="run_file").exists()
    assert "today.trec added" in enter(a_run(snapshot))


def test_the_reader_chooses_measures_and_sees_what_matched(
    client: Client, project: Project, snapshot: Snapshot
) -> None:
    measured(project, snapshot)
    queries = evaluation_queries(snapshot, "test")
    address = reverse("proof", args=[project.slug]) + f"?snapshot={snapshot.pk}&split=test&reference=grades"
    html = client.get(f"{address}&measures=MAP,ndcg_exp@5,rbp.95@100&complete=on").content.decode()
    for said in (
        ">MAP<",
        ">NDCG (exp.)@5<",
        ">RBP.95@100<",
        "MAP by domain",
        "Queries that a reranker lacks count as 0",
    ):
        assert said in html, said
    documents = sum(len(query.document_ids) for query in queries)
    assert f"{len(queries)} of {len(queries)} queries" in html
    assert f"{documents} of {documents} documents" in html
    refused = client.get(f"{address}&measures=ndcg@2000").content.decode()
    assert "expected ndcg, ndcg_exp" in refused and ">NDCG@10<" in refused and 'value="ndcg@2000"' in refused
    rest = f"/api/v1/projects/{project.slug}/leaderboard?snapshot={snapshot.pk}&measures="
    board = client.get(f"{rest}map,success@1&complete=true").json()
    assert (board["measures"], board["complete"]) == (["map", "success@1"], True)
    assert set(board["rows"][0]["metrics"]) == {"map", "success@1"}
    found = {"queries": len(queries), "of_queries": len(queries), "documents": documents, "of_documents": documents}
    assert board["rows"][0]["matched"] == {**found, "others": 0, "others_graded": 0, "equal": 0}
    wrong = client.get(f"{rest}bpref")
    assert wrong.status_code == 422 and "bpref" in wrong.json()["detail"]


def test_viewers_look_and_strangers_do_not(client: Client, project: Project, snapshot: Snapshot) -> None:
    measured(project, snapshot)
    viewer = make_user()
    Membership.objects.create(project=project, user=viewer, role="viewer")
    client.force_login(viewer)
    assert "Evaluate all" not in page(client, "proof", project.slug)
    address = reverse("proof", args=[project.slug])
    assert client.post(address, {"action": "evaluate", "snapshot": snapshot.pk, "split": "test"}).status_code == 403
    client.force_login(make_user())
    assert client.get(address).status_code == 404
    assert client.get(f"/api/v1/projects/{project.slug}/leaderboard?snapshot={snapshot.pk}").status_code == 404


def test_rest_orders_follows_and_reads(client: Client, project: Project, snapshot: Snapshot) -> None:
    base = f"/api/v1/projects/{project.slug}"
    chosen = [each.pk for each in enter_baselines(project) if each.kind != BASE]
    body = {"snapshot": snapshot.pk, "rerankers": chosen}
    reply = client.post(f"{base}/evaluations", body, content_type="application/json")
    assert reply.status_code == 202
    assert client.post(f"{base}/evaluations", body, content_type="application/json").status_code == 409
    evaluate(reply.json()["id"])
    assert client.get(f"/api/v1/jobs/{reply.json()['id']}").json()["state"] == "finished"
    board = client.get(f"{base}/leaderboard?snapshot={snapshot.pk}").json()
    assert board["rows"][0]["metrics"]["ndcg@10"]["estimate"] >= board["rows"][-1]["metrics"]["ndcg@10"]["estimate"]
    first, second = board["rows"][-1]["reranker"], board["rows"][0]["reranker"]
    moved = client.get(f"{base}/leaderboard/moved?snapshot={snapshot.pk}&first={first}&second={second}").json()
    assert len(moved) == board["queries"]
    compared = client.get(f"{base}/leaderboard?snapshot={snapshot.pk}&against={second}").json()
    assert compared["rows"][-1]["against"]["chosen"]["name"] == board["rows"][0]["name"]
    assert "chosen" not in compared["rows"][0]["against"]
    assert client.get(f"{base}/leaderboard?snapshot={snapshot.pk}&against=999999").status_code == 409
    assert client.get(f"{base}/leaderboard?snapshot={snapshot.pk}&split=heldout").status_code == 409
    assert client.get(f"{base}/leaderboard/moved?snapshot={snapshot.pk}&first=1&second={second}").status_code == 422
    assert client.get(f"{base}/leaderboard?snapshot=999999").status_code == 422
    unknown = {"snapshot": snapshot.pk, "rerankers": [999999]}
    assert client.post(f"{base}/evaluations", unknown, content_type="application/json").status_code == 404


@pytest.mark.usefixtures("stub_plugins")
def test_page_rest_command_and_report_say_whether_the_references_order_the_rerankers_alike(
    client: Client, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_scored(queries=18, documents=6)
    Membership.objects.create(project=project, user=owner, role="owner")
    judge = make_judges(project)[0]
    for query in project.queries.all():
        judge_pair(make_pair(query, 0, 1), judge, 0.9)
    snapshot = make_frozen(project)
    address = f"/api/v1/projects/{project.slug}/leaderboard/orders?snapshot={snapshot.pk}"
    reply = client.get(address)
    assert (reply.status_code, "start an evaluation first" in reply.json()["detail"]) == (409, True)
    run = enter_run_file(project, "today", io.BytesIO(a_run(snapshot)))
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=chosen).pk)
    reply = client.get(address)
    assert (reply.status_code, "human grades and Elo: 2, on queries: 6" in reply.json()["detail"]) == (409, True)
    evaluate(order_evaluation(project, snapshot, rerankers=[run]).pk)
    found = client.get(address).json()
    rows = client.get(f"/api/v1/projects/{project.slug}/leaderboard?snapshot={snapshot.pk}").json()["rows"]
    assert {"judge", "elo"} <= {row["kind"] for row in rows}, "the reference is made of these"
    assert found["systems"] == ["BM25", "first stage", "today"]
    assert -1.0 <= found["kendall"]["low"] <= found["kendall"]["estimate"] <= found["kendall"]["high"] <= 1.0
    assert client.get(f"{address}&measure=map").json()["measure"] == "map"
    assert client.get(f"{address}&measure=nonsense").status_code == 422
    assert client.get(f"{address}&measure=map,mrr").status_code == 422
    assert (found["references"], found["candidates"]) == (["grades", "elo"], 36)
    assert found["documents"] == {"grades": 36, "elo": 36}
    page_of = reverse("proof", args=[project.slug])
    html = client.get(page_of, {"snapshot": snapshot.pk}).content.decode()
    assert f"<b>{found['kendall']['estimate']:.2f}</b>" in html.split('id="h-orders"')[1]
    assert html.count("No LLM grades on this split") == 2
    assert client.get(f"{address}&first=elo&second=elo").status_code == 422
    assert client.get(f"{address}&first=nonsense").status_code == 422
    by_llm = f"{address}&first=llm_grades&second=elo"
    reply = client.get(by_llm)
    assert (reply.status_code, "start a run with the judge 'grade'" in reply.json()["detail"]) == (409, True)
    for row in project.queries.values_list("candidates__pk", "candidates__grade"):
        ModelGrade.objects.create(annotator=judge, candidate_id=row[0], value=row[1] / 3)
    found = client.get(by_llm).json()
    assert (found["references"], found["models"]) == (["elo", "llm_grades"], [judge.name])
    assert client.get(f"{address}&second=llm_grades").json()["kendall"]["estimate"] == 1.0
    assert client.get(f"{by_llm}&judge={judge.pk}").json() == found
    assert client.get(f"{by_llm}&judge=0").status_code == 409
    html = client.get(page_of, {"snapshot": snapshot.pk, "graded_by": judge.pk}).content.decode()
    assert "No LLM grades on this split" not in html and 'name="graded_by"' not in html, "one model is no choice"
    finished = Job.objects.filter(stage="evaluate").first()
    monkeypatch.setattr(command, "_ordered", lambda *_, **__: finished)
    part = enter_run_file(project, "a part", io.BytesIO(a_run(snapshot).splitlines(keepends=True)[0]))
    evaluate(order_evaluation(project, snapshot, rerankers=[part]).pk)
    assert client.get(address).json()["left_out"] == ["a part"]
    out = io.StringIO()
    call_command("evaluate", project.slug, "--llm-grades", str(judge.pk), stdout=out)
    assert f"Elo and LLM grades of {judge.name}" in out.getvalue()
    assert out.getvalue().count("3 without a part") == 3
    report = client.get(reverse("report", args=[project.slug])).content.decode()
    assert f"human grades and LLM grades ({judge.name})" in report and report.count("3 (without a part)") == 3


@pytest.mark.usefixtures("stub_plugins")
def test_the_reader_chooses_whose_llm_grades_count(client: Client, project: Project, snapshot: Snapshot) -> None:
    measured(project, snapshot)
    judges = make_judges(project, 2)
    candidates = list(project.queries.values_list("candidates__pk", flat=True))
    ModelGrade.objects.bulk_create(
        ModelGrade(annotator=judge, candidate_id=pk, value=0.5) for judge in judges for pk in candidates
    )
    html = page(client, "proof", project.slug)
    assert "mean of all models" in html
    assert all(f'<option value="{each.pk}">{each.name} ({each.pk})</option>' in html for each in judges), "of one name"
    html = page(client, "proof", project.slug, graded_by=judges[1].pk)
    assert f'<option value="{judges[1].pk}" selected>' in html
    deleted = page(client, "proof", project.slug, graded_by=judges[1].pk + 1)
    assert "No LLM grades on this split" not in deleted and " selected>mean of all" not in deleted
    with pytest.raises(CommandError, match=rf"judge 0 gave no LLM grades; choose one of {judges[0].pk} "):
        call_command("evaluate", project.slug, "--llm-grades", "0")


@pytest.mark.usefixtures("stub_plugins")
def test_the_page_compares_the_orders_anew_only_after_an_evaluation(
    client: Client, project: Project, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It follows a running evaluation every few seconds, and the comparison reads every candidate of the split."""
    compared: list[Any] = []
    original = proof.all_system_orders
    monkeypatch.setattr(proof, "all_system_orders", lambda *a, **k: compared.append(k["model"]) or original(*a, **k))
    measured(project, snapshot)
    first, again = (
        page(client, "proof", project.slug).split('id="h-orders"')[1].split("</section>")[0] for _ in range(2)
    )
    assert first == again and compared == [None]
    assert (
        "Noten von Menschen und Elo"
        in client.get(reverse("proof", args=[project.slug]), headers={"Accept-Language": "de"}).content.decode()
    )
    assert compared == [None, None]
    page(client, "proof", project.slug, graded_by=7)  # such as a deleted judge: all models
    page(client, "proof", project.slug, graded_by="9" * 30)
    assert compared == [None, None]
    compared.clear()
    measured(project, snapshot)
    page(client, "proof", project.slug)
    assert compared == [None]


@pytest.mark.usefixtures("stub_plugins")
@pytest.mark.parametrize(
    "wrong",
    ["judge=x", "judge=1.5", "judge=", "judge=1", "first=", "second=people", "snapshot=x", "split=train", "measure=ndcg@0",
     "measure=ndcg@99999999999999999999", "measure=%00", "first=llm_grades&second=llm_grades"],
)  # fmt: skip
def test_wrong_words_to_rest_orders_are_refused(
    client: Client, project: Project, snapshot: Snapshot, wrong: str
) -> None:
    address = f"/api/v1/projects/{project.slug}/leaderboard/orders"
    assert client.get(f"{address}?{wrong}").status_code == 422
    assert client.get(f"{address}?second=llm_grades&judge={'9' * 30}").status_code == 409
    assert client.get(f"{address}?snapshot={'9' * 30}").status_code in (404, 422)
    client.force_login(make_user("stranger"))
    assert client.get(f"{address}?second=llm_grades").status_code == 404
    assert client.get(reverse("proof", args=[project.slug])).status_code == 404


def test_rest_enters_a_run(client: Client, project: Project, snapshot: Snapshot) -> None:
    address = f"/api/v1/projects/{project.slug}/entries/run"
    reply = client.post(f"{address}?name=today", {"file": SimpleUploadedFile("today.trec", a_run(snapshot))})
    assert (reply.status_code, reply.json()["kind"]) == (201, "run_file")
    reply = client.post(address, {"file": SimpleUploadedFile("bad.trec", b"x\n")})
    assert (reply.status_code, "has 1 column:" in reply.json()["detail"]) == (422, True)
    strange = b'{"q\\u0000": {"d": 1}, "q\\ud800": {"d": 1}}'
    reply = client.post(address, {"file": SimpleUploadedFile("strange.json", strange)})
    assert (reply.status_code, "belongs to this project" in reply.json()["detail"]) == (422, True)
    reply = client.post(
        f"/api/v1/projects/{project.slug}/entries/outside", {"endpoint": "x"}, content_type="application/json"
    )
    assert reply.status_code == 422


def test_a_name_that_is_taken_is_a_conflict_with_a_remedy(
    client: Client, project: Project, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELO_RERANKERS", '[{"name": "today", "url": "http://127.0.0.1:1/", "model": "x"}]')
    base = f"/api/v1/projects/{project.slug}/entries"
    run = f"{base}/run?name=today"
    assert client.post(run, {"file": SimpleUploadedFile("today.trec", a_run(snapshot))}).status_code == 201
    again = client.post(run, {"file": SimpleUploadedFile("today.trec", a_run(snapshot))})
    assert (again.status_code, "choose another name" in again.json()["detail"]) == (409, True)
    reply = client.post(f"{base}/outside", {"endpoint": "today"}, content_type="application/json")
    assert (reply.status_code, "ZELO_RERANKERS" in reply.json()["detail"]) == (409, True)
    posted = {"action": "outside", "endpoint": "today"}
    html = client.post(reverse("proof", args=[project.slug]), posted, follow=True).content.decode()
    assert "already has a reranker" in html


def test_the_command_prints_the_leaderboard(project: Project, snapshot: Snapshot, tmp_path: Path) -> None:
    run = tmp_path / "today.trec"
    run.write_bytes(a_run(snapshot))
    out = io.StringIO()
    waiting = order_evaluation(project, snapshot, models_again=False)  # as every training leaves one
    call_command("evaluate", project.slug, "--run-file", str(run), stdout=out)
    assert list(Job.objects.filter(stage="evaluate")) == [waiting]
    printed = out.getvalue()
    for said in (
        "today.trec",
        "untrained base (minilm)",
        "reference grades",
        "reference elo",
        "vs BM25",
        "vs untrained base",
        "by domain",
    ):
        assert said in printed
    with pytest.raises(CommandError, match="create one with"):
        call_command("evaluate", project.slug, "--snapshot", "unknown")


def leased_elsewhere(job: Job) -> None:
    """Another worker has begun with the job."""
    Job.objects.filter(pk=job.pk).update(state=Job.State.LEASED, lease_until=Now() + timedelta(minutes=1))


def test_the_command_measures_what_it_enters_though_an_evaluation_goes_on(
    project: Project, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one has chosen what it measures; the command waits for it, and orders another."""
    run = tmp_path / "today.trec"
    run.write_bytes(a_run(snapshot))
    before = order_evaluation(project, snapshot)
    leased_elsewhere(before)
    ended = {"state": Job.State.FINISHED, "lease_until": None}
    monkeypatch.setattr(command, "time", Waits(lambda: Job.objects.filter(pk=before.pk).update(**ended)))
    out = io.StringIO()
    call_command("evaluate", project.slug, "--run-file", str(run), stdout=out)
    assert "today.trec" in out.getvalue()
    assert Job.objects.filter(stage="evaluate").count() == 2


def test_the_command_goes_on_where_the_worker_that_evaluates_dies(
    project: Project, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = order_evaluation(project, snapshot)
    leased_elsewhere(job)
    lapsed = {"lease_until": Now() - timedelta(seconds=1)}
    monkeypatch.setattr(command, "time", Waits(lambda: Job.objects.filter(pk=job.pk).update(**lapsed)))
    out = io.StringIO()
    call_command("evaluate", project.slug, stdout=out)
    assert "untrained base (minilm)" in out.getvalue()
    assert list(Job.objects.filter(stage="evaluate")) == [job]


class Waits:
    """Instead of `time`: something happens during the first wait, and there is no second one."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = iter([meanwhile])

    def sleep(self, seconds: float) -> None:
        next(self._meanwhile)()


def test_how_far_an_evaluation_is_stands_there_in_the_visitors_language(
    client: Client, project: Project, snapshot: Snapshot
) -> None:
    leased_elsewhere(order_evaluation(project, snapshot))
    Job.objects.update(message=AT_QUERY % {"name": "BM25", "done": 21, "total": 40})
    address = reverse("proof", args=[project.slug])
    assert "BM25: query 21 of 40" in client.get(address).content.decode()
    german = client.get(address, headers={"Accept-Language": "de"}).content.decode()
    assert "BM25: Anfrage 21 von 40" in german
