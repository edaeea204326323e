"""Evaluations as work in the background: baselines, run files and outside rerankers end on one leaderboard."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from django.test import Client
from pytest_django import Settings

from labeling.models import UnmatchedGrade
from scoring.snapshots import freeze as snapshots
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.storage.files import Storage, storage
from tests.factories.frozen import a_run, make_frozen, make_scored
from tests.factories.rows import judge_pair, make_judges, make_pair, make_project, make_user
from tests.processes.elsewhere import Elsewhere, by_length
from trainer.evaluation import entries
from trainer.evaluation.entries import EntryRefused, NameTaken, enter_baselines, enter_outside, enter_run_file
from trainer.evaluation.leaderboard import (
    NotEvaluated,
    evaluation_queries,
    evaluation_query,
    leaderboard,
    unpacked,
)
from trainer.evaluation.metrics import METRICS, NothingToMeasure
from trainer.evaluation.rank_changes import moved_documents, what_moved
from trainer.evaluation.rankers import Elo
from trainer.models import Evaluation, Reranker, TrainingRun
from workers.jobs.evaluation import EvaluationRefused, evaluate, order_evaluation, waiting_evaluation_ids
from workers.models import Job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"


def evaluated(project, snapshot, split="test", **chosen):
    job = order_evaluation(project, snapshot, split, **chosen)
    evaluate(job.pk)
    job.refresh_from_db()
    return job


def without_a_model(project):
    return [each for each in enter_baselines(project) if each.kind != entries.BASE]


def test_everything_that_ranks_ends_on_one_leaderboard() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    query = project.queries.get(external_id=evaluation_queries(snapshot, "test")[0].id)
    judge = make_judges(project)[0]
    judge_pair(make_pair(query, 0, 1), judge, 0.9)
    job = evaluated(project, snapshot)
    assert (job.state, job.error) == (Job.State.FINISHED, "")
    board = leaderboard(project, snapshot, "test", "grades")
    kinds = {row.kind: row for row in board.rows}
    assert {"bm25", "elo", "first_stage", "base", "judge"} == set(kinds)
    assert kinds["elo"].metrics["ndcg@10"].estimate == pytest.approx(1.0)
    assert [row.metrics["ndcg@10"].estimate for row in board.rows] == sorted(
        (row.metrics["ndcg@10"].estimate for row in board.rows), reverse=True
    )
    against = kinds["elo"].against["first_stage"]
    assert against.test.difference.estimate == pytest.approx(
        kinds["elo"].metrics["ndcg@10"].estimate - kinds["first_stage"].metrics["ndcg@10"].estimate
    )
    assert all(tuple(row.metrics) == METRICS for row in board.rows)  # the page names its columns in this order
    assert set(board.domains) == {"law", "code"}
    assert board.queries == len(evaluation_queries(snapshot, "test")) == 4
    against_elo = leaderboard(project, snapshot, "test", "elo")
    own = next(row for row in against_elo.rows if row.kind == "elo")
    assert own.leading.estimate == max(row.leading.estimate for row in against_elo.rows) == pytest.approx(1.0)


def test_evaluating_again_replaces_and_does_not_double() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    reranker = enter_baselines(project)[0]
    for _ in range(2):
        evaluated(project, snapshot, rerankers=[reranker])
    assert Evaluation.objects.filter(reranker=reranker).count() == 2  # one a reference


def test_models_that_have_figures_on_the_split_are_not_computed_again_after_a_training() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    model = next(each for each in enter_baselines(project) if each.kind == entries.BASE)
    assert len(Reranker.objects.all()) == 4
    first = evaluated(project, snapshot, models_again=False)
    before = Evaluation.objects.get(reranker=model, reference="elo").created_at
    second = evaluated(project, snapshot, models_again=False)
    assert [each.message.split(" ")[0] for each in (first, second)] == ["4", "3"]
    assert Evaluation.objects.get(reranker=model, reference="elo").created_at == before
    assert evaluated(project, snapshot).message.startswith("4 "), "an order of people measures everything"


@pytest.mark.parametrize(("queries", "verdict"), [(24, "worse"), (9, "not told apart")])
def test_a_loser_is_shown_losing_where_queries_suffice(queries: int, verdict: str) -> None:
    """On three queries all signs agree, and the interval excludes zero; p cannot be below 1/4."""
    project = make_scored(queries=queries)
    snapshot = make_frozen(project)
    worst = "".join(
        f"{query.id} Q0 {document} 1 {-grade} upside-down\n"
        for query in evaluation_queries(snapshot, "test")
        for document, grade in zip(query.document_ids, query.elo, strict=True)
    )
    entered = enter_run_file(project, "upside down", io.BytesIO(worst.encode()))
    evaluated(project, snapshot, rerankers=[entered, *without_a_model(project)])
    board = leaderboard(project, snapshot, "test", "grades")
    assert board.rows[-1].evaluation.reranker_id == entered.pk
    against = board.rows[-1].against["bm25"]
    assert against.test.difference.high < 0.0
    assert against.verdict == verdict


def test_one_that_fails_does_not_take_the_others_along() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    Reranker.objects.create(project=project, kind="outside", name="gone", location="gone")
    gone = Reranker.objects.get(name="gone")
    job = evaluated(project, snapshot, rerankers=[gone, *without_a_model(project)])
    assert job.state == Job.State.FINISHED
    assert "not evaluated: gone: UnknownOutside" in job.message
    assert len(leaderboard(project, snapshot, "test", "grades").rows) == 3


def test_where_all_fail_the_job_has_failed() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    gone = Reranker.objects.create(project=project, kind="outside", name="gone", location="gone")
    job = evaluated(project, snapshot, rerankers=[gone])
    assert job.state == Job.State.FAILED
    assert "no outside reranker is named 'gone'" in job.error
    with pytest.raises(NotEvaluated, match="start an evaluation"):
        leaderboard(project, snapshot, "test", "grades")


def test_an_outside_reranker_stands_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere()
    elsewhere.answer = by_length
    row = {"name": "theirs", "url": elsewhere.url, "model": "rerank-x"}
    monkeypatch.setenv("ZELO_RERANKERS", json.dumps([row]))
    project = make_scored()
    snapshot = make_frozen(project)
    entered = enter_outside(project, "theirs")
    job = evaluated(project, snapshot, rerankers=[entered])
    elsewhere.close()
    assert job.error == ""
    evaluation = Evaluation.objects.get(reranker=entered, reference="grades")
    queries = evaluation_queries(snapshot, "test")
    kept = unpacked(bytes(evaluation.scores))
    assert kept[: len(queries[0].documents)].tolist() == [float(len(text)) for text in queries[0].documents]


def test_an_echoed_key_is_in_no_job_log_or_page(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "9f8e7d6c/Zz01+secret"
    elsewhere = Elsewhere()
    elsewhere.answer = lambda body: (401, {}, json.dumps({"detail": f"no key {key}"}).replace("/", "\\/").encode())
    row = {"name": "theirs", "url": elsewhere.url, "model": "rerank-x", "api_key_env": "THEIR_KEY"}
    monkeypatch.setenv("ZELO_RERANKERS", json.dumps([row]))
    monkeypatch.setenv("THEIR_KEY", f"{key}\n")
    project = make_scored()
    snapshot = make_frozen(project)
    chosen = [enter_outside(project, "theirs"), *without_a_model(project)]
    jobs = [evaluated(project, snapshot, rerankers=chosen), evaluated(project, snapshot, rerankers=chosen[:1])]
    elsewhere.close()
    assert "no key [key]" in jobs[0].message and "no key [key]" in jobs[1].error
    client = Client()
    client.force_login(make_user("operator", is_superuser=True))
    shown = [client.get(f"/p/{project.slug}/proof/?snapshot={snapshot.pk}"), client.get("/jobs/")]
    shown += [client.get(f"/api/v1/jobs/{job.pk}") for job in jobs]
    texts = [response.content.decode() for response in shown] + [caplog.text]
    assert all("[key]" in text for text in texts[1:])
    assert not any(part in text for text in texts for part in ("9f8e7d6c", "Zz01"))


def test_equal_scores_of_all_documents_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Elsewhere()
    elsewhere.answer = lambda body: by_length({"documents": ["same"] * len(body["documents"])})
    row = {"name": "theirs", "url": elsewhere.url, "model": "rerank-x"}
    monkeypatch.setenv("ZELO_RERANKERS", json.dumps([row]))
    project = make_scored()
    snapshot = make_frozen(project)
    job = evaluated(project, snapshot, rerankers=[enter_outside(project, "theirs")])
    elsewhere.close()
    number = len(evaluation_queries(snapshot, "test"))
    assert f"warning: theirs gave all documents of {number} queries the same score" in job.message
    matched = leaderboard(project, snapshot, "test", "grades").rows[0].matched
    assert matched is not None and matched.equal == number


def test_what_moved_names_losses_first_and_both_ranks() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    evaluated(project, snapshot, rerankers=without_a_model(project))
    first = Evaluation.objects.get(reranker__kind="first_stage", reference="grades")
    second = Evaluation.objects.get(reranker__kind="elo", reference="grades")
    moved = what_moved(first, second)
    assert [each.change for each in moved] == sorted(each.change for each in moved)
    assert all(each.change >= 0 for each in moved)
    assert any(each.change > 0 for each in moved)
    last = evaluation_queries(snapshot, "test")[-1]
    query, place = evaluation_query(snapshot, "test", last.id)
    rows = moved_documents(query, *(unpacked(bytes(each.scores))[place] for each in (first, second)))
    assert [row.after for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0].elo == max(row.elo or 0.0 for row in rows)
    assert sorted(row.before for row in rows) == [row.after for row in rows]


class CountedBytes(io.BytesIO):
    """A stored file that counts what is read of it."""

    counted = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.counted += len(data)
        return data


def test_one_query_is_read_without_the_texts_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_scored(domains=("law",))
    for document in project.documents.all():
        document.text += np.random.default_rng(document.pk).bytes(40_000).hex()  # cannot be compressed much
        document.save()
    monkeypatch.setattr(snapshots, "ROWS_AT_ONCE", 8)
    snapshot = make_frozen(project)
    whole = storage().read_bytes(f"{snapshot.location}/rows.parquet")
    expected = evaluation_queries(snapshot, "test")[2]
    with pytest.raises(NothingToMeasure, match="no query 'nowhere'"):
        evaluation_query(snapshot, "test", "nowhere")
    opened = CountedBytes(whole)
    monkeypatch.setattr(Storage, "opened", lambda self, path: opened)
    found, place = evaluation_query(snapshot, "test", expected.id)
    assert (found.text, found.documents, place) == (expected.text, expected.documents, slice(16, 24))
    assert found.grades.tolist() == expected.grades.tolist()
    assert len(whole) > 5 * opened.counted


def test_every_row_can_be_compared_with_one_that_is_chosen() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    evaluated(project, snapshot, rerankers=without_a_model(project))
    chosen = Reranker.objects.get(kind="elo")
    board = leaderboard(project, snapshot, "test", "grades", compared_with=chosen.pk)
    rows = {row.kind: row for row in board.rows}
    assert board.chosen == chosen
    assert rows["elo"].to_chosen is None
    found = rows["first_stage"].to_chosen
    assert found is not None
    assert found.name == "Elo"
    opposite = rows["elo"].against["first_stage"].test.difference
    assert found.test.difference.estimate == pytest.approx(-opposite.estimate)
    assert found.test.difference.count == board.queries
    assert all(row.to_chosen is None for row in leaderboard(project, snapshot, "test", "grades").rows)
    with pytest.raises(NotEvaluated, match="is not on this leaderboard; choose one of"):
        leaderboard(project, snapshot, "test", "grades", compared_with=999_999)


def test_a_run_file_is_measured_to_the_last_digit_of_trec_eval_and_says_what_matched() -> None:
    """Ties, candidates that it lacks, documents that are not candidates, graded or not, a query that it lacks."""
    project = make_scored()
    for query in project.queries.all():
        UnmatchedGrade.objects.create(
            project=project, query_external_id=query.external_id, document_external_id="beyond", grade=2
        )
        UnmatchedGrade.objects.create(
            project=project, query_external_id=query.external_id, document_external_id="never named", grade=1
        )
    snapshot = make_frozen(project)
    first, *others = evaluation_queries(snapshot, "test")
    run = {
        query.id: {
            "elsewhere": 2.0, "beyond": 0.5, **{each: float(i % 2) for i, each in enumerate(query.document_ids[:5])}
        }
        for query in others
    }  # fmt: skip
    text = "".join(f"{query} Q0 {each} 1 {score} t\n" for query, own in run.items() for each, score in own.items())
    entered = enter_run_file(project, "ours", io.BytesIO(text.encode()))
    evaluated(project, snapshot, rerankers=[entered])
    grades = {
        query.id: {d: int(g) for d, g in zip(query.document_ids, query.grades, strict=True) if np.isfinite(g)}
        | {"beyond": 2, "never named": 1}
        for query in (first, *others)
    }
    names = {
        "ndcg@3": "ndcg_cut_3",
        "recall@3": "recall_3",
        "mrr": "recip_rank",
        "map": "map",
        "ndcg@10": "ndcg_cut_10",
    }
    theirs = pytrec_eval.RelevanceEvaluator(grades, {"ndcg_cut.3,10", "recall.3", "recip_rank", "map"}).evaluate(run)
    chosen = leaderboard(project, snapshot, "test", "grades", measures=tuple(names)).rows[0]
    whole = leaderboard(project, snapshot, "test", "grades", measures=tuple(names), complete=True)
    for name, of_trec in names.items():
        values = [own[of_trec] for own in theirs.values()]
        assert chosen.metrics[name].estimate == pytest.approx(np.mean(values), abs=1e-12), name
        assert whole.rows[0].metrics[name].estimate == pytest.approx(sum(values) / len(grades), abs=1e-12), name
    stored = leaderboard(project, snapshot, "test", "grades")
    assert stored.rows[0].leading.estimate == pytest.approx(chosen.metrics["ndcg@10"].estimate, abs=1e-12)
    stored_whole = leaderboard(project, snapshot, "test", "grades", complete=True)
    assert stored_whole.queries == whole.queries == len(grades)
    for name in ("ndcg@10", "mrr"):
        expected = whole.rows[0].metrics[name].estimate
        assert stored_whole.rows[0].metrics[name].estimate == pytest.approx(expected, abs=1e-11), name
    matched = stored.rows[0].matched
    assert matched is not None
    assert (matched.queries, matched.of_queries) == (len(others), len(others) + 1)
    assert (matched.documents, matched.others) == (5 * len(others), 2 * len(others))
    assert matched.others_graded == len(others)
    assert matched.of_documents == sum(len(query.document_ids) for query in others)


def test_a_run_may_name_its_queries_as_shared_snapshots_do_and_its_file_is_checked() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    plain, text = a_run(snapshot).decode(), ""
    for line in plain.splitlines():
        query, q0, document, rank, _, tag = line.split()
        text += f"{project.slug}/{query} {q0} {document} {rank} 1.0 {tag}\n"
    entered = enter_run_file(project, "equal", io.BytesIO(text.encode()))
    evaluated(project, snapshot, rerankers=[entered])
    matched = leaderboard(project, snapshot, "test", "grades").rows[0].matched
    assert matched is not None and matched.queries == matched.of_queries == matched.equal
    storage().write_bytes(entered.location, plain.encode())
    assert (
        "was changed or damaged in the storage; enter it again"
        in evaluated(project, snapshot, rerankers=[entered]).error
    )
    Reranker.objects.filter(pk=entered.pk).update(location="runs/gone")
    gone = evaluated(project, snapshot, rerankers=[Reranker.objects.get(pk=entered.pk)]).error
    assert "'equal' is missing in the storage; enter it again" in gone
    for name in ("a\0b", "\ud800"):
        with pytest.raises(EntryRefused, match="characters of text"):
            enter_run_file(project, name, io.BytesIO(text.encode()))


def test_two_projects_may_use_the_same_ids() -> None:
    projects = [make_scored(), make_scored()]
    for query in projects[1].queries.all():
        query.text = f"again {query.text}"
        query.save()
    snapshot = freeze(projects, name="both", options=SnapshotOptions(test_share=0.5, shared_documents="keep"))
    names = [query.id for query in evaluation_queries(snapshot, "test")]
    assert len(names) == len(set(names))


def test_a_baseline_whose_name_is_taken_gets_a_number() -> None:
    project = make_scored(queries=4)
    taken = Reranker.objects.create(project=project, kind="run_file", name="untrained base (minilm)")
    for _ in range(2):  # the number stays
        base = next(each for each in enter_baselines(project) if each.kind == entries.BASE)
        assert base.name == "untrained base (minilm) (2)"
    Reranker.objects.filter(pk=taken.pk).delete()
    enter_baselines(project)
    base.refresh_from_db()
    assert base.name == "untrained base (minilm)"
    longest = "x" * 200
    Reranker.objects.create(project=project, kind="run_file", name=f"untrained base ({longest}"[:200])
    base = enter_baselines(project, bases=[longest])[-1]
    assert (len(base.name), base.name[-5:]) == (200, "x (2)")


def test_an_order_that_cannot_be_carried_out_is_refused() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    with pytest.raises(EvaluationRefused, match="expected one of dev, test, heldout"):
        order_evaluation(project, snapshot, "train")
    with pytest.raises(EvaluationRefused, match="holds nothing of project"):
        order_evaluation(make_project(), snapshot)
    with pytest.raises(EvaluationRefused, match="no reranker was chosen"):
        order_evaluation(project, snapshot, rerankers=[])
    job = order_evaluation(project, snapshot)
    assert waiting_evaluation_ids() == [job.pk]
    with pytest.raises(EvaluationRefused, match="is waiting or running already"):
        order_evaluation(project, snapshot)


def test_an_empty_split_is_said_to_be_empty() -> None:
    project = make_scored()
    with pytest.raises(NothingToMeasure, match=r"'heldout'.*is empty"):
        evaluation_queries(make_frozen(project), "heldout")


def test_a_run_of_other_queries_is_refused() -> None:
    project = make_scored()
    with pytest.raises(EntryRefused, match=r"none of the run's queries \(1\)"):
        enter_run_file(project, "strange", io.BytesIO(b"elsewhere Q0 d 1 1.0 tag\n"))
    enter_run_file(project, "mine", io.BytesIO(b"q0 Q0 d0-1 1 1.0 tag\n"))
    with pytest.raises(EntryRefused, match="already has a reranker"):
        enter_run_file(project, "mine", io.BytesIO(b"q0 Q0 d0-1 1 1.0 tag\n"))
    with pytest.raises(EntryRefused, match="1 to 200"):
        enter_run_file(project, " ", io.BytesIO(b"q0 Q0 d0-1 1 1.0 tag\n"))


def test_an_outside_reranker_needs_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_scored()
    rows = [{"name": name, "url": "http://127.0.0.1:1/", "model": "x"} for name in ("mine", "BM25", "free")]
    monkeypatch.setenv("ZELO_RERANKERS", json.dumps(rows))
    enter_run_file(project, "mine", io.BytesIO(b"q0 Q0 d0-1 1 1.0 tag\n"))
    for name, said in (("mine", "run_file.*ZELO_RERANKERS"), ("BM25", "the name of a baseline")):
        with pytest.raises(NameTaken, match=said):
            enter_outside(project, name)
    assert enter_outside(project, "free") == enter_outside(project, "free")


def test_zero_shot_of_the_bundled_model_is_its_cosine_without_any_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZELO_MODELS")
    project = make_scored(queries=6)
    snapshot = make_frozen(project)
    queries = evaluation_queries(snapshot, "test")
    base = next(each for each in enter_baselines(project) if each.kind == entries.BASE)
    scores = entries.order_of(base, queries).scores(queries, lambda done, total: None)
    assert all(np.abs(each).max() <= 1.0 + 1e-6 for each in scores)


def test_queries_without_any_score_do_not_count() -> None:
    project = make_scored()
    snapshot = make_frozen(project)
    first = evaluation_queries(snapshot, "test")[0]
    line = f"{first.id} Q0 {first.document_ids[0]} 1 1.0 tag\n"
    entered = enter_run_file(project, "of one query", io.BytesIO(line.encode()))
    evaluated(project, snapshot, rerankers=[entered])
    evaluation = Evaluation.objects.get(reranker=entered, reference="grades")
    assert evaluation.metrics["values"]["query_ids"] == [first.id]
    judge = make_judges(project)[0]
    silent = Reranker.objects.create(project=project, kind="judge", name="silent", location=str(judge.pk))
    assert "scored no query" in evaluated(project, snapshot, rerankers=[silent]).error


def test_a_student_is_not_proved_on_what_it_has_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_scored()
    earlier, snapshot = make_frozen(project, seed=5), make_frozen(project)
    run = TrainingRun.objects.create(project=project, snapshot=earlier, trainer="pointwise", state="finished")
    student = Reranker.objects.create(project=project, kind="trained", name="earlier", training_run=run)
    monkeypatch.setattr(entries, "_trained", lambda reranker: Elo())
    evaluated(project, snapshot, rerankers=[student])
    known = {query.text for split in ("train", "dev") for query in evaluation_queries(earlier, split)}
    new = {query.id for query in evaluation_queries(snapshot, "test") if query.text not in known}
    measured = Evaluation.objects.filter(reranker=student, reference="grades").first()
    assert set(measured.metrics["values"]["query_ids"] if measured else []) == new
