"""Uploaded answers through the whole queue: the design asks only what was recorded, of the judge that has it."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import AuditEntry, Judgment, Pair, Project
from labeling.plugins import get_plugin
from scoring.storage.files import storage
from tests.factories.rows import make_judges, make_project, make_run, make_user
from tests.factories.working import judge_all, work_until_over
from workers.budgets.limits import Budgets
from workers.jobs.recorded_judges import RecordingRefused, StoredRecording, store_recording
from workers.models import Attempt, JudgingTask, Run
from workers.runs.estimate import ChosenJudge, estimate_run
from workers.runs.ordering import RunRefused

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"


def rows_of(project: Project, *, judges: dict[str, list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Answers of each judge on pairs of places in each query's list: the later, longer document is better."""
    rows: list[dict[str, Any]] = []
    for query in project.queries.order_by("id"):
        names = list(query.candidates.order_by("id").values_list("document__external_id", flat=True))
        for judge, pairs in judges.items():
            for a, b in pairs:
                score = -0.8 if a > b else 0.8
                rows.append({"query": query.external_id, "a": names[a], "b": names[b], "score": score, "judge": judge})
    return rows


def store(project: Project, rows: list[dict[str, Any]], **given: Any) -> StoredRecording:
    return store_recording(
        project, io.BytesIO("\n".join(map(json.dumps, rows)).encode()), filename="answers.jsonl", **given
    )


RING = [(0, 1), (2, 1), (2, 3), (0, 3)]


def test_recorded_answers_go_through_the_queue_to_scores() -> None:
    project = make_project(queries=2, documents=6)
    rows = rows_of(project, judges={"x": [*RING, (4, 3), (5, 4)], "y": [(1, 0), (1, 2)]})
    rows[0]["rationale"] = "it says more"
    stored = store(project, rows, by=make_user())
    assert (stored.answers, stored.known, stored.left_out) == (len(rows), len(rows), 0)
    run = work_until_over(make_run(project, judges=list(stored.judges.values()), sampler="recorded", planned=False))
    assert (run.state, run.reason) == (Run.State.FINISHED, "the design is complete")
    assert Judgment.objects.count() == len(rows) == run.tasks_planned
    assert not JudgingTask.objects.exists() and not Attempt.objects.filter(outcome="not_recorded").exists()
    for query in project.queries.all():
        ranked = list(query.candidates.order_by("-score__elo").values_list("first_stage_rank", flat=True))
        assert ranked == [6, 5, 4, 3, 2, 1]
    shown_first = Judgment.objects.filter(annotator=stored.judges["x"], pair__query=project.queries.first())
    sides = {(j.pair.a.first_stage_rank, j.pair.b.first_stage_rank): j.swapped for j in shown_first}
    assert sides == {(1, 2): False, (2, 3): True, (3, 4): False, (1, 4): False, (4, 5): True, (5, 6): True}
    assert Judgment.objects.exclude(rationale__isnull=True).get().rationale.text == "it says more"
    assert AuditEntry.objects.get(action="recording.uploaded").details == {"answers": len(rows), "judges": 2}


def test_a_pair_that_other_judges_answered_is_asked_only_if_it_was_recorded() -> None:
    project = make_project(queries=1, documents=5)
    work_until_over(make_run(project, judges=make_judges(project), sampler="all", planned=False))
    before = Pair.objects.count()
    stored = store(project, rows_of(project, judges={"x": RING}))
    run = work_until_over(make_run(project, judges=list(stored.judges.values()), sampler="recorded", planned=False))
    assert run.tasks_planned == len(RING) and Pair.objects.count() == before
    assert Judgment.objects.filter(annotator=stored.judges["x"]).count() == len(RING)


def test_rotation_asks_one_judge_a_pair_and_only_one_that_has_it() -> None:
    project = make_project(queries=3, documents=6)
    every = list(itertools.combinations(range(6), 2))
    of_judge = {"x": every[:9], "y": every[6:12], "z": every[3:]}
    stored = store(project, rows_of(project, judges=of_judge))
    run = work_until_over(
        make_run(project, judges=list(stored.judges.values()), sampler="recorded", allocation="rotate", planned=False)
    )
    assert run.tasks_planned == Judgment.objects.count() == 3 * len(every)
    counts = [Judgment.objects.filter(annotator=judge).count() for judge in stored.judges.values()]
    assert sum(counts) == 45 and min(counts) >= 10, f"each judge gets its turn: {counts}"
    assert not Attempt.objects.filter(outcome="not_recorded").exists()


def test_another_design_meets_pairs_without_an_answer_as_failures_without_cost() -> None:
    project = make_project(queries=1, documents=4)
    stored = store(project, rows_of(project, judges={"x": RING}))
    run = make_run(project, judges=list(stored.judges.values()), sampler="all")
    judge_all(run)
    dead = JudgingTask.objects.filter(state="dead")
    assert dead.count() == 2 and set(dead.values_list("reason", flat=True)) == {"not_recorded"}
    assert Judgment.objects.count() == len(RING)
    failed = Attempt.objects.filter(outcome="not_recorded")
    assert {(each.cost_micros, each.input_tokens) for each in failed} == {(0, 0)}


def test_estimates_count_what_was_recorded() -> None:
    project = make_project(queries=2, documents=6)
    stored = store(project, rows_of(project, judges={"x": RING}))
    judge = stored.judges["x"]
    found = estimate_run(
        project, [ChosenJudge(get_plugin("judge", judge.plugin), judge.options)], sampler="recorded",
        sampler_options={}, allocation="all", orders="one", budgets=Budgets(),
    )  # fmt: skip
    assert (found.pairs, found.calls, found.cost_micros) == (8, 8, 0)


def test_the_design_needs_recorded_answers_and_no_cascade() -> None:
    project = make_project(queries=1, documents=4)
    with pytest.raises(RunRefused, match="no judge of the run has recorded answers"):
        make_run(project, judges=make_judges(project), sampler="recorded")
    stored = store(project, rows_of(project, judges={"x": RING, "y": RING}))
    with pytest.raises(RunRefused, match="a cascade"):
        make_run(project, judges=list(stored.judges.values()), sampler="recorded", allocation="cascade")


def test_bad_files_store_nothing_and_say_why() -> None:
    project = make_project(queries=1, documents=4)
    rows = rows_of(project, judges={"x": RING})
    with pytest.raises(RecordingRefused, match=r"answers.jsonl: line 5, score: is '7'"):
        store(project, [*rows, {**rows[0], "judge": "w", "score": 7}])
    with pytest.raises(RecordingRefused, match=r"none of its answers \(1\) names a query"):
        store(project, [{**rows[0], "query": "elsewhere"}])
    with pytest.raises(RecordingRefused, match="holds no answers"):
        store(project, [])
    assert storage().names("recordings") == [] and not project.annotators.exists()


def test_page_rest_and_command_store_the_same_file_once(tmp_path: Path) -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1, documents=4)
    data = "\n".join(map(json.dumps, rows_of(project, judges={"x": RING, "y": RING[:2]})))
    data += '\n{"query": "unknown", "a": "1", "b": "2", "winner": "a", "judge": "x"}'
    client = Client()
    client.force_login(owner)
    page = reverse("recordings", args=[project.slug])
    sent = client.post(page, {"action": "upload", "file": io.BytesIO(data.encode())}, follow=True)
    assert "6 of 7 answers of 2 judges can be replayed." in sent.content.decode()
    answer = client.post(f"/api/v1/projects/{project.slug}/recordings", {"file": io.BytesIO(data.encode())})
    assert answer.status_code == 201 and answer.json()["left_out"] == 1
    assert [(each["name"], each["answers"]) for each in answer.json()["judges"]] == [("x", 4), ("y", 2)]
    file = tmp_path / "answers.jsonl"
    file.write_text(data)
    call_command("replay", project.slug, str(file), "--upload-only")
    assert project.annotators.count() == 2 and len(storage().names("recordings")) == 1
    started = client.post(page, {"action": "replay", "judge": project.annotators.first().pk, "allocation": "rotate"})  # type: ignore[union-attr]
    assert started.status_code == 302
    run = Run.objects.get()
    assert (run.sampler, run.allocation, run.judges.count()) == ("recorded", "rotate", 2)
    refused = client.post(page, {"action": "upload", "file": io.BytesIO(b"{}")})
    assert refused.status_code == 422 and "line 1, query: is missing" in refused.content.decode()
    with pytest.raises(CommandError, match="does not exist"):
        call_command("replay", project.slug, str(tmp_path / "none"))
