"""From a file to a run in the browser: preview, import, estimate, start; and the list of jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Annotator, Candidate, Membership, Project, Query
from labeling.plugins import registered
from tests.factories.pages import make_project, make_query, make_run, make_user, page
from workers.models import Job, Run

pytestmark = pytest.mark.django_db
LINES = [
    {"query": {"id": "q1", "query": "first?"}, "documents": [{"id": "d1", "content": "one"}, {"id": "d2", "content": "two"}]},
    {"query": {"id": "q2", "query": "second?"}, "documents": [{"id": "d1", "content": "one"}, {"id": "d3", "content": "three"}]},
]  # fmt: skip
TEXT = "\n".join(json.dumps(line) for line in LINES)


@pytest.fixture
def staff(owner: Any) -> Any:
    owner.is_staff = True
    owner.save()
    return owner


def test_preview_stores_nothing(client: Client, staff: Any) -> None:
    answer = client.post(
        reverse("preview-import"), {"text": TEXT, "importer": "zbench-jsonl"}, headers={"HX-Request": "true"}
    )
    html = answer.content.decode()
    assert "<b>2</b> queries, <b>4</b> candidates" in html
    assert "first?" in html
    assert not Project.objects.exists()
    assert not Query.objects.exists()


def test_preview_names_bad_lines(client: Client, staff: Any) -> None:
    answer = client.post(reverse("preview-import"), {"text": TEXT + '\n{"query": 7}', "importer": "zbench-jsonl"})
    html = answer.content.decode()
    assert "1 invalid line" in html
    assert "line 3" in html


def test_project_is_made_with_its_first_data(client: Client, staff: Any) -> None:
    answer = client.post(reverse("new-project"), {"name": "Mine", "text": TEXT, "importer": "zbench-jsonl"})
    project = Project.objects.get(name="Mine")
    assert answer.url == reverse("new-run", args=[project.slug])  # type: ignore[attr-defined]
    assert Candidate.objects.filter(query__project=project).count() == 4
    assert Membership.objects.get(project=project).user == staff


def test_bad_file_makes_no_project(client: Client, staff: Any) -> None:
    answer = client.post(reverse("new-project"), {"name": "Mine", "text": TEXT + "\n{", "importer": "zbench-jsonl"})
    assert answer.status_code == 422
    assert "Nothing was imported" in answer.content.decode()
    assert TEXT.split('"')[3] in answer.content.decode(), "what was typed stays in the form"
    assert not Project.objects.exists()


def test_form_without_data_says_so(client: Client, staff: Any) -> None:
    answer = client.post(reverse("new-project"), {"name": "Mine"})
    assert answer.status_code == 422
    assert answer.content.decode().count('file-error"') == 2
    assert "choose a file or paste text" in answer.content.decode()
    answer = client.post(reverse("new-project"), {"name": "", "text": TEXT, "importer": "zbench-jsonl"})
    assert answer.status_code == 422
    assert answer.content.decode().count('name-error"') == 2


def test_grades_come_with_the_documents(client: Client, project: Project, tmp_path: Any) -> None:
    grades = tmp_path / "qrels.txt"
    grades.write_text("q1 0 d2 3\n")
    with grades.open("rb") as stream:
        answer = client.post(
            reverse("import", args=[project.slug]), {"text": TEXT, "importer": "zbench-jsonl", "grades": stream}
        )
    assert answer.status_code == 302
    assert Candidate.objects.get(query__external_id="q1", document__external_id="d2").grade == 3


def test_estimate_counts_pairs_and_calls(client: Client, project: Project) -> None:
    make_query(project, size=4)
    make_query(project, size=3)
    sent = {"judge": ["bm25", "query-likelihood"], "sampler": "all", "allocation": "all", "orders": "both"}
    html = client.post(reverse("estimate", args=[project.slug]), sent).content.decode()
    assert ">36</div>" in html  # (6 + 3) pairs x 2 judges x 2 orders
    assert "9 pairs of 2 queries" in html


def test_estimate_respects_budget_and_rotation(client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = {
        "judge": ["bm25", "query-likelihood"],
        "sampler": "all",
        "allocation": "rotate",
        "orders": "one",
        "pair_budget": "4",
    }
    assert ">4</div>" in client.post(reverse("estimate", args=[project.slug]), sent).content.decode()


def test_estimate_says_what_is_missing(client: Client, project: Project) -> None:
    html = client.post(reverse("estimate", args=[project.slug]), {"sampler": "all"}).content.decode()
    assert "choose at least one" in html


def test_start_orders_a_run_with_options(client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = {"judge": ["bm25"], "judge-bm25-k1": "1.7", "sampler": "cycles", "sampler-cycles-degree": "2",
            "allocation": "all", "orders": "one", "pair_budget": "3"}  # fmt: skip
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    run = Run.objects.get(project=project)
    assert (run.sampler, run.pair_budget, run.sampler_options["degree"]) == ("cycles", 3, 2)
    assert Annotator.objects.get(project=project).options["k1"] == 1.7


def test_bad_option_is_named_and_nothing_started(client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = {"judge": ["bm25"], "judge-bm25-k1": "much", "sampler": "cycles", "allocation": "all", "orders": "one"}
    answer = client.post(reverse("new-run", args=[project.slug]), sent)
    assert answer.status_code == 422
    assert "The run was not started" in answer.content.decode()
    assert not Run.objects.exists()


def test_start_without_documents_is_refused_with_a_reason(client: Client, project: Project) -> None:
    sent = {"judge": ["bm25"], "sampler": "cycles", "allocation": "all", "orders": "one"}
    answer = client.post(reverse("new-run", args=[project.slug]), sent)
    assert answer.status_code == 422
    assert "no query with two candidates" in answer.content.decode()


def test_jobs_show_only_ones_own(client: Client, project: Project) -> None:
    make_run(project)
    theirs = make_project(make_user(), name="Secret plans")
    Job.objects.create(project=theirs, stage="pairs", message="move mountains")
    make_run(theirs)
    html = page(client, "jobs")
    assert project.name in html
    assert "Secret plans" not in html
    assert "move mountains" not in html


@pytest.mark.parametrize("kind", ["judge", "sampler"])
def test_every_plugin_can_be_estimated_or_says_what_it_needs(kind: str, client: Client, project: Project) -> None:
    make_query(project, size=6)
    for name in registered(kind):
        sent = {"judge": ["bm25"], "sampler": "cycles", "allocation": "all", "orders": "one"} | {kind: name}
        html = client.post(reverse("estimate", args=[project.slug]), sent).content.decode()
        assert "<h2>Estimate</h2>" in html or "This field is required" in html, name


LLM = "openai-http"


def three_models() -> dict[str, Any]:
    """Three configurations of one plugin, as the form sends them."""
    sent: dict[str, Any] = {"judge": [LLM, f"{LLM}~2", f"{LLM}~3"], "sampler": "cycles", "orders": "one"}
    for key, model in zip(sent["judge"], ["large", "small", "middle"], strict=True):
        sent |= {f"judge-{key}-endpoint": "fake", f"judge-{key}-model": model, f"name-{key}": f"the {model} one"}
    return sent


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "fake", "base_url": "http://localhost:9/v1"}]))


@pytest.mark.usefixtures("endpoint")
def test_three_models_of_one_plugin_are_ordered_together(client: Client, project: Project) -> None:
    make_query(project, size=4)
    answer = client.post(reverse("new-run", args=[project.slug]), three_models() | {"allocation": "all"})
    assert answer.status_code == 302, answer.content.decode()
    judges = Run.objects.get(project=project).judges.order_by("id")
    assert [judge.options["model"] for judge in judges] == ["large", "small", "middle"]
    assert [judge.name for judge in judges] == ["the large one", "the small one", "the middle one"]


@pytest.mark.usefixtures("endpoint")
def test_the_cheap_judge_of_a_cascade_and_its_threshold_are_chosen(client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = three_models() | {"allocation": "cascade", "first": f"{LLM}~2", "cascade_threshold": "0.1"}
    assert client.post(reverse("new-run", args=[project.slug]), sent).status_code == 302
    run = Run.objects.get(project=project)
    assert run.cascade_first is not None
    assert (run.cascade_first.options["model"], run.cascade_threshold) == ("small", 0.1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cascade_threshold": "0.7"}, "at most 0.5"),
        ({"cascade_threshold": "nan"}, "at most 0.5"),
        ({"first": "bm25"}, "is not selected"),
        ({f"judge-{LLM}~2-model": "large"}, "twice with the same options"),
    ],
)
@pytest.mark.usefixtures("endpoint")
def test_what_cannot_be_a_cascade_is_said(changed: dict[str, str], said: str, client: Client, project: Project) -> None:
    make_query(project, size=4)
    sent = three_models() | {"allocation": "cascade"} | changed
    answer = client.post(reverse("new-run", args=[project.slug]), sent)
    assert answer.status_code == 422 and said in answer.content.decode()
    assert not Run.objects.exists()


def test_another_row_of_a_plugin_comes_filled_in_and_starts_nothing(client: Client, project: Project) -> None:
    make_query(project, size=4)
    address = reverse("new-run", args=[project.slug])
    assert f'name="another" value="{LLM}"' in client.get(address).content.decode()
    sent = {"judge": [LLM], f"judge-{LLM}-model": "large", "another": LLM, "pair_budget": "7"}
    html = client.post(address, sent).content.decode()
    assert f'name="judge" value="{LLM}~2" id="judge-{LLM}~2" checked' in html
    assert f'name="judge-{LLM}~2-model" value="large"' in html and 'value="7"' in html
    html = client.post(address, sent | {"row": [LLM, f"{LLM}~2"], "another": f"{LLM}~2"}).content.decode()
    assert f'id="judge-{LLM}~3"' in html and f'id="judge-{LLM}~2"' in html
    assert not Run.objects.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"x": NaN}', '{"x": "\\u0000"}', '{"x": "\\ud800"}', "{", "1e999"])
def test_a_json_option_that_cannot_be_kept_is_named(text: str, client: Client, project: Project) -> None:
    make_query(project, size=3)
    sent = three_models() | {"judge": [LLM], "allocation": "all", f"judge-{LLM}-extra_body": text}
    answer = client.post(reverse("new-run", args=[project.slug]), sent)
    assert answer.status_code == 422 and "Extra body: " in answer.content.decode()
    assert not Run.objects.exists()
