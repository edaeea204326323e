"""The client against the real server: the path from a file to a snapshot, waiting, errors, and the asynchronous twin."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from labeling.access.api_keys import make_token
from labeling.models import Candidate, Judgment, Project
from scoring.spot_checks.plans import plan_spot_checks
from tests.factories.rows import make_user
from tests.factories.working import work_until_over
from workers.models import Run
from zelo_client import AsyncZelo, Failed, Problem, Unreachable, WaitedTooLong, Zelo, requests

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def key() -> str:
    return make_token(make_user(is_staff=True), name="client")


def lines(queries: int = 3) -> bytes:
    rows = [
        {
            "query": {"id": f"q{n}", "query": f"what is {n}"},
            "documents": [{"id": f"d{n}-{m}", "content": f"text {n} " + "x" * m} for m in range(4)],
        }
        for n in range(queries)
    ]
    return "\n".join(map(json.dumps, rows)).encode()


def test_the_path_from_a_file_to_a_snapshot(live_server: Any, key: str, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(lines())
    with Zelo(live_server.url, key, bars=True) as zelo:
        project = zelo.create_project("Fish", instruction="Prefer facts.")
        assert zelo.import_file(project.slug, file).candidates == 12
        assert zelo.upsert(project.slug, "documents", [{"id": "new", "text": "more"}])["created"] == 1
        run = zelo.run(project.slug, ["test-longer"], seed=1)
        with pytest.raises(WaitedTooLong):
            zelo.wait(run, timeout_s=0)
        work_until_over(Run.objects.get(pk=run.run_id))
        run = zelo.wait(run)
        assert run.answered == run.planned > 0 and run.dead == 0
        assert f"{run.answered}/{run.planned} finished" in capsys.readouterr().err
        (found,) = zelo.scores(project.slug, "q1")
        assert [score.document for score in found.scores] == ["d1-3", "d1-2", "d1-1", "d1-0"]
        assert len(zelo.scores(project.slug)) == 3
        snapshot = zelo.snapshot(project.slug, "First")
        assert snapshot.rows == 12
        assert zelo.rerankers(project.slug) == []


def test_lists_are_read_to_their_end_and_scores_say_what_is_behind_them(
    live_server: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Zelo(live_server.url, key) as zelo:
        slug = zelo.create_project("Fish").slug
        zelo.import_file(slug, lines(5))
        request = replace(requests.queries(slug, ""), query={"limit": 2})
        assert [each.external_id for each in zelo.pages(request)] == [f"q{n}" for n in range(5)]
        assert [each.external_id for each in zelo.queries(slug, "q3")] == ["q3"]
        estimate = zelo.estimate(slug, ["test-longer"], pair_budget=4)
        assert (estimate.pairs, estimate.calls) == (4, 4)
        votes = [{"query_id": "q0", "a_id": "d0-0", "b_id": "d0-1", "preference": 0.25, "annotator": "anna"}]
        assert zelo.upsert(slug, "judgments", votes)["created"] == 1
        candidate = Candidate.objects.get(document__external_id="d0-0")
        (vote,) = zelo.comparisons(candidate.pk)
        assert (vote.annotator, vote.document_b, vote.preference) == ("anna", "d0-1", 0.25)


def test_a_person_compares_with_the_client_as_on_the_screen(live_server: Any, key: str) -> None:
    with Zelo(live_server.url, key) as zelo:
        slug = zelo.create_project("Fish", instruction="Prefer facts.").slug
        zelo.import_file(slug, lines(2))
        plan_spot_checks(Project.objects.get(slug=slug), reason="random", pairs=3)
        assert zelo.next_pairs(slug).state == "instruction"
        read = zelo.instruction(slug)
        assert read.instruction == "Prefer facts." and not read.is_read
        assert zelo.confirm(slug, read).is_read
        first = zelo.next_pairs(slug)
        assert first.state == "open" and [each.slot for each in zelo.next_pairs(slug).items] == [
            each.slot for each in first.items
        ]
        again = str(uuid.uuid4())
        answers = [zelo.answer(slug, first.items[0].slot, "tie", seconds=2.5, key=again) for _ in range(2)]
        assert answers[0] == answers[1] and Judgment.objects.get().preference == 0.5
        with pytest.raises(Problem, match="expected one of") as refused:
            zelo.answer(slug, first.items[1].slot, "maybe")
        assert refused.value.status == 422
        with pytest.raises(Problem) as refused:
            zelo.answer(slug, 2**40, "tie")
        assert refused.value.status == 404


def test_refusals_are_problems_with_the_servers_sentence(live_server: Any, key: str) -> None:
    with Zelo(live_server.url, key) as zelo:
        slug = zelo.create_project("Fish").slug
        with pytest.raises(Problem, match="no judge is named 'none'") as refused:
            zelo.run(slug, ["none"])
        assert refused.value.status == 422
        with pytest.raises(Problem) as refused:
            zelo.upsert(slug, "queries", [{"id": "q1", "text": "x"}, {"id": "q2"}])
        assert [each["line"] for each in refused.value.errors] == [2]
        zelo.import_file(slug, lines())
        run = zelo.run(slug, ["test-longer"])
        Client().post(f"{live_server.url}/api/v1/runs/{run.run_id}/cancel", headers={"Authorization": f"Bearer {key}"})
        with pytest.raises(Failed, match="cancelled"):
            zelo.wait(run)
        with pytest.raises(Problem, match="scopes"):
            zelo.rerank("fish/first", "who", ["a", "b"])
    with Zelo(live_server.url, "zelo_wrong") as zelo, pytest.raises(Problem, match="401"):
        zelo.rerankers("fish")
    with Zelo("http://127.0.0.1:9", key) as zelo, pytest.raises(Unreachable, match="check the address"):
        zelo.rerankers("fish")


def test_the_asynchronous_client_has_the_same_methods_and_answers(live_server: Any, key: str) -> None:
    public = {name for name in vars(Zelo) if not name.startswith("_")}
    assert public == {name for name in vars(AsyncZelo) if not name.startswith("_")}

    async def begin() -> Any:
        async with AsyncZelo(live_server.url, key) as zelo:
            project = await zelo.create_project("Fish")
            await zelo.import_file(project.slug, lines(1))
            return project, await zelo.run(project.slug, ["test-longer"], seed=1)

    async def finish(slug: str, run: Any) -> Any:
        async with AsyncZelo(live_server.url, key) as zelo:
            return await zelo.wait(run), await zelo.scores(slug)

    project, run = asyncio.run(begin())
    work_until_over(Run.objects.get(pk=run.run_id))
    run, scores = asyncio.run(finish(project.slug, run))
    assert run.state == "finished" and scores[0].scores[0].document == "d0-3"


def test_the_client_imports_httpx_and_pydantic_alone() -> None:
    import ast

    import zelo_client

    allowed = {"httpx", "pydantic", "zelo_client"}
    for path in Path(zelo_client.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            import sys

            assert {name.partition(".")[0] for name in names} <= allowed | sys.stdlib_module_names, path
