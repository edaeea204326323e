"""Pages of snapshots and trainings: freezing, ordering, watching, cancelling; REST and commands beside them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Project
from scoring.models import Snapshot
from tests.factories.api import Api
from tests.factories.pages import make_project
from tests.factories.rows import make_member, make_user
from tests.factories.scored import make_snapshot, scored
from trainer.models import Reranker, TrainingRun
from workers.jobs.training import start_training
from workers.models import Job
from zelo_site.management.commands import train as train_command
from zelo_site.pages.rerankers.training import curve

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    yield


def page(client: Client, name: str, *parts: Any) -> str:
    response = client.get(reverse(name, args=parts))
    assert response.status_code == 200
    return response.content.decode()


def test_scores_are_frozen_from_the_page(client: Client, project: Project) -> None:
    assert "No scores yet" in page(client, "snapshots", project.slug)
    scored(project, domain="law")
    scored(project, domain="code", prefix="c")
    assert "Domains: code, law" in page(client, "snapshots", project.slug)
    form = {"name": "Winter", "freeze-heldout_domains": "code", "freeze-seed": "3"}
    assert client.post(reverse("snapshots", args=[project.slug]), form).status_code == 302
    snapshot = Snapshot.objects.get()
    assert snapshot.manifest["options"]["heldout_domains"] == ["code"]
    assert snapshot.manifest["created_by"] is not None
    html = page(client, "snapshots", project.slug)
    assert "Winter" in html
    assert snapshot.checksum in html
    splits = html[html.index(snapshot.name + " ·") :].split("</table>")[0]
    rows = sum(each["rows"] for each in snapshot.manifest["domains"] if each["split"] == "heldout")
    assert f'<th scope="row">heldout</th><td class="number">10</td><td class="number">{rows}</td>' in splits
    assert "law" not in splits  # domains are folded


def test_page_and_rest_name_the_command_for_what_is_too_large(
    client: Client, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(project)
    for module in ("zelo_site.pages.rerankers.snapshots", "zelo_site.api.snapshots"):
        monkeypatch.setattr(f"{module}.MOST_ROWS_OF_A_REQUEST", 39)
    reply = client.post(reverse("snapshots", args=[project.slug]), {"name": "Large"})
    assert (reply.status_code, "python manage.py snapshot" in reply.content.decode()) == (422, True)
    reply = client.post(
        f"/api/v1/projects/{project.slug}/snapshots", {"name": "Large"}, content_type="application/json"
    )
    assert (reply.status_code, "python manage.py snapshot" in reply.json()["detail"]) == (422, True)
    assert not Snapshot.objects.exists()


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"name": "X", "freeze-dev_share": "7"}, "Enter a number of at most 0.5."),
        ({"name": "X", "freeze-domains": "lwa"}, "which no scored query has"),
        ({"name": ""}, 'id="name-error">This field is required.'),
        ({"name": "All", "freeze-test_share": "1"}, "more than all queries together; lower dev_share to 0"),
    ],
)
def test_what_cannot_be_frozen_comes_back_with_its_reason(
    client: Client, project: Project, form: dict[str, str], says: str
) -> None:
    scored(project)
    response = client.post(reverse("snapshots", args=[project.slug]), form)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert not Snapshot.objects.exists()


def test_a_test_collection_leads_to_the_proof_and_is_not_offered_for_training(client: Client, project: Project) -> None:
    scored(project)
    form = {"name": "Collection", "freeze-dev_share": "0", "freeze-test_share": "1"}
    response = client.post(reverse("snapshots", args=[project.slug]), form)
    snapshot = Snapshot.objects.get()
    assert response["Location"] == f"{reverse('proof', args=[project.slug])}?snapshot={snapshot.pk}&split=test"
    assert "Collection" in client.get(response["Location"]).content.decode()
    client.get(reverse("projects"))  # reads the message that names the snapshot
    assert "Collection" not in page(client, "training", project.slug)


def test_projects_of_others_cannot_be_joined(client: Client, project: Project) -> None:
    scored(project)
    foreign = make_project(make_user())
    scored(foreign, prefix="f")
    assert f'value="{foreign.slug}"' not in page(client, "snapshots", project.slug)
    form = {"name": "Mine", "project": [foreign.slug]}
    refused = client.post(reverse("snapshots", args=[project.slug]), form)
    html = refused.content.decode()
    assert (refused.status_code, Snapshot.objects.exists()) == (422, False)
    assert f"You cannot include “{foreign.slug}”" in html and 'id="project-error"' in html and 'value="Mine"' in html


def test_a_training_is_ordered_and_cancelled_from_its_page(client: Client, project: Project) -> None:
    assert "No snapshot to train on" in page(client, "training", project.slug)
    snapshot = make_snapshot(project)
    form = {"snapshot": snapshot.pk, "trainer": "pointwise", "trainer-pointwise-rank": "8"}
    response = client.post(reverse("training", args=[project.slug]), form)
    run = TrainingRun.objects.get()
    assert response["Location"] == reverse("training-run", args=[project.slug, run.pk])
    assert (run.options["rank"], run.options["base"]) == (8, "minilm")
    html = page(client, "training-run", project.slug, run.pk)
    assert "python manage.py worker training" in html
    again = client.post(reverse("training", args=[project.slug]), form)
    assert "trains already" in again.content.decode()
    client.post(reverse("move-training", args=[project.slug, run.pk, "cancel"]))
    run.refresh_from_db()
    assert (run.state, Job.objects.get().state) == ("cancelled", "cancelled")
    assert "Restart training" in page(client, "training-run", project.slug, run.pk)
    client.post(reverse("move-training", args=[project.slug, run.pk, "resume"]))
    run.refresh_from_db()
    assert run.state == "planned"


def test_options_out_of_range_are_named_in_the_form(client: Client, project: Project) -> None:
    snapshot = make_snapshot(project)
    form = {"snapshot": snapshot.pk, "trainer": "pointwise", "trainer-pointwise-rank": "0"}
    response = client.post(reverse("training", args=[project.slug]), form)
    assert response.status_code == 422
    assert "Enter a number of at least 1." in response.content.decode()


def test_the_live_part_draws_curves_and_is_quiet_while_nothing_changes(client: Client, project: Project) -> None:
    run = start_training(project, make_snapshot(project))
    progress = {
        "step": 20, "steps": 100, "loss": [[10, 0.2], [20, 0.1]], "ndcg": [[0, 0.5], [10, 0.8], [20, 0.7]],
        "best": {"step": 10, "ndcg": 0.8}, "tokens_per_s": 812.4, "memory_bytes": 2**30, "eta_s": 61.0, "epoch": 0.4,
        "notes": ["out of memory: continues with 8 rows at once and 2 batches a step"],
    }  # fmt: skip
    TrainingRun.objects.filter(pk=run.pk).update(state="running", progress=progress)
    address = reverse("training-live", args=[project.slug, run.pk])
    html = client.get(address).content.decode()
    for words in (
        "Step 20 of 100",
        "best checkpoint: 0.800 at step 10",
        "812 tokens per second",
        "1.0 GB",
        "Out of memory: continues with 8 rows at once",
    ):
        assert words in html.replace("\N{NO-BREAK SPACE}", " "), words
    version = html.split("?v=")[1].split('"')[0]
    assert client.get(f"{address}?v={version}").status_code == 204


def test_a_warm_start_has_a_bar_of_its_own_until_the_first_step(client: Client, project: Project) -> None:
    run = start_training(project, make_snapshot(project))
    warm = {"warm_start": {"step": 120, "steps": 400, "kept": True}, "eta_s": 200.0}

    def shown(state: str, told: dict[str, Any]) -> str:
        TrainingRun.objects.filter(pk=run.pk).update(state=state, progress=told)
        return client.get(reverse("training-live", args=[project.slug, run.pk])).content.decode()

    html = shown("running", warm)
    assert "Warm start: step 120 of 400" in html
    assert '<progress max="400" value="120"' in html
    assert "about 3 min left" in html
    assert "before the first step" not in html
    assert "Resume from warm start" in shown("cancelled", warm)
    assert "Resume from step 50" in shown("cancelled", {**warm, "step": 60, "steps": 100, "checkpoint": 50})
    assert "Warm start" not in shown("running", {**warm, "step": 10, "steps": 100})


def test_what_was_compared_before_publishing_is_said_as_far_as_it_proves_something(
    client: Client, project: Project
) -> None:
    run = start_training(project, make_snapshot(project))

    def shown(gate: dict[str, Any], trainer: str = "embedding", state: str = "finished") -> str:
        TrainingRun.objects.filter(pk=run.pk).update(state=state, gate=gate, trainer=trainer)
        return client.get(reverse("training-live", args=[project.slug, run.pk])).content.decode()

    def row(queries: int) -> dict[str, Any]:
        return {
            "split": "test", "reference": "elo", "rival": "base", "queries": queries, "student": 0.8, "other": 0.9, "difference": -0.1,
            "low": -0.2, "high": -0.05, "p_value": 0.5, "worse": False,
        }  # fmt: skip

    nothing = {"held_back": False, "comparisons": [], "reasons": []}
    assert "Nothing could be compared" in shown(nothing)
    assert "fewer than six queries" in shown({**nothing, "comparisons": [row(2), row(5)]})
    enough = shown({**nothing, "comparisons": [row(2), row(6)]})
    assert "fewer than six queries" not in enough and "not worse than a baseline" in enough
    Reranker.objects.create(project=project, training_run=run, name="bad", kind="trained", release="held_back")
    lost = {"held_back": True, "comparisons": [row(4) | {"worse": True, "each_worse": True}], "reasons": []}
    assert "ranks each held-out query worse than a baseline" in shown(lost, state="held_back")
    lost["comparisons"] = [row(8) | {"worse": True}]  # as stored before there was `each_worse`
    assert "worse than a baseline by more than chance" in shown(lost, state="held_back")
    Reranker.objects.all().delete()
    base_won = {"held_back": True, "base_won": True, "facts": {}}
    for trainer, advice in (
        ("embedding", "Judge more queries."),
        ("pairwise", "Judge more pairs, or use a larger base."),
        ("pointwise", "or choose the embedding trainer."),
    ):
        html = shown(base_won, trainer, "held_back")
        assert "no checkpoint is reliably better" in html and advice in html
        assert ("choose the embedding trainer" in html) == (trainer == "pointwise")
    for steps, advice in ((20, "Allow more steps."), (200, "Judge more pairs, or use a larger base.")):
        facts = {"steps": steps, "batch_size": 16, "train_pairs": 3000}
        html = shown({**base_won, "facts": facts}, "pairwise", "held_back")
        assert [each for each in ("Allow more steps.", "Judge more pairs, or use a larger base.") if each in html] == [
            advice
        ]


def test_a_curve_spans_all_steps_and_marks_its_best() -> None:
    drawn = curve([[0, 0.5], [50, 0.9], [100, 0.7]], steps=200, best_step=50)
    assert drawn is not None
    assert drawn.points.split()[0].startswith("0.0,")
    assert drawn.points.split()[-1].startswith("300.0,")
    assert drawn.best == (150.0, float(drawn.points.split()[1].split(",")[1]))
    assert curve([], steps=10) is None


def test_rest_freezes_lists_and_hands_out_the_rows(project: Project, owner: Any) -> None:
    scored(project)
    api, viewer, stranger = Api(owner), Api(make_member(project)), Api(make_user())
    body = {"name": "By REST", "options": {"seed": 5}}
    assert viewer.post(f"/projects/{project.slug}/snapshots", body).status_code == 403
    assert stranger.post(f"/projects/{project.slug}/snapshots", body).status_code == 404
    made = api.post(f"/projects/{project.slug}/snapshots", body)
    assert made.status_code == 201, made.content
    number = made.json()["snapshot_id"]
    assert made.json()["manifest"]["seed"] == 5
    assert [each["snapshot_id"] for each in viewer.get(f"/projects/{project.slug}/snapshots").json()] == [number]
    rows = viewer.get(f"/snapshots/{number}/rows")
    assert pq.read_table(io.BytesIO(b"".join(rows.streaming_content))).num_rows == made.json()["rows"]
    assert stranger.get(f"/snapshots/{number}").status_code == 404
    assert stranger.get(f"/snapshots/{number}/rows").status_code == 404
    refused = api.post(f"/projects/{project.slug}/snapshots", {"name": "X", "options": {"domains": ["none"]}})
    assert (refused.status_code, "no scored query" in refused.json()["detail"]) == (422, True)
    assert api.post(f"/projects/{project.slug}/snapshots", {"name": "X", "options": {"odd": 1}}).status_code == 422


def test_rest_orders_watches_cancels_and_resumes_a_training(project: Project, owner: Any) -> None:
    snapshot = make_snapshot(project)
    api, viewer, stranger = Api(owner), Api(make_member(project)), Api(make_user())
    body = {"snapshot_id": snapshot.pk, "options": {"max_steps": 10}}
    project_path = f"/projects/{project.slug}/trainings"
    assert viewer.post(project_path, body).status_code == 403
    made = api.post(project_path, body)
    assert (made.status_code, made.json()["state"]) == (201, "planned")
    assert made.json()["trainer"] == "embedding"
    assert "keeps the quality of its base" in made.json()["trainer_reason"]
    path = f"/trainings/{made.json()['training_id']}"
    assert viewer.get(path).json()["options"]["max_steps"] == 10
    assert stranger.get(path).status_code == 404
    assert viewer.post(f"{path}/cancel").status_code == 403
    assert api.post(f"{path}/resume").status_code == 409
    assert api.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert api.post(f"{path}/cancel").status_code == 409
    assert api.post(f"{path}/resume").json()["state"] == "planned"
    wrong = {"snapshot_id": snapshot.pk, "options": {"rank": -1}}
    assert api.post(f"/projects/{project.slug}/trainings", wrong).status_code == 422
    assert len(api.get(f"/projects/{project.slug}/trainings").json()) == 1


@pytest.mark.parametrize(
    ("named", "said"),
    [((), "trainer embedding: Few queries and an embedder"), (("--trainer", "pointwise"), "")],
    ids=["recommended", "named"],
)
def test_the_command_names_the_recommended_trainer_and_says_why_it_was_held_back(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: tuple[str, ...],
    said: str,
) -> None:
    make_snapshot(project)
    gate = {"held_back": True, "base_won": True}

    @contextlib.contextmanager
    def held_back_at_once(queues: set[str]) -> Iterator[Any]:
        yield lambda: TrainingRun.objects.update(state="held_back", gate=gate)

    monkeypatch.setattr(train_command, "working", held_back_at_once)
    monkeypatch.setattr(train_command, "POLL_S", 0.0)
    with pytest.raises(CommandError, match="held back: no checkpoint ranks better"):
        call_command("train", project.slug, *named)
    told = capsys.readouterr().out
    assert (said in told, "trainer embedding" in told) == (True, bool(said))
    assert TrainingRun.objects.get().trainer == (named[1] if named else "embedding")


def test_the_command_freezes_lists_and_says_why_not(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="start a run first"):
        call_command("snapshot", project.slug)
    scored(project)
    call_command("snapshot", project.slug, "--name", "Spring", "--options", json.dumps({"test_share": 0.2}))
    call_command("snapshot", project.slug, "--list")
    told = capsys.readouterr().out
    assert "40 rows" in told
    assert told.count("Spring") == 2
    with pytest.raises(CommandError, match="expected some of"):
        call_command("snapshot", project.slug, "--options", '{"domains": ["x"]}')


@pytest.mark.parametrize("value", [0.61, 0.0, 12.5])
def test_a_curve_of_one_point_has_short_figures_beside_it(value: float) -> None:
    drawn = curve([[10, value]], steps=200)
    assert drawn is not None and len(set(drawn.points.split())) == 2  # a dash: one point alone draws nothing
    assert drawn is not None
    said = [f"{tick.value:.{tick.places}f}" for tick in drawn.ticks]
    assert len(set(said)) == len(said) >= 2
    assert max(map(len, said)) <= 6 and drawn.ticks[0].value <= value <= drawn.ticks[-1].value
