"""Commands with options that cannot be: one clear line each, before anything starts; and judges with options."""

from __future__ import annotations

import io
import json
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import CommandError

from labeling.models import Project
from labeling.plugins import problem_of
from scoring.models import Snapshot
from tests.factories.pages import make_project
from trainer.models import Reranker
from trainer.serving.registry import TRAINED
from trainer.training.embedding.options import EmbeddingOptions
from zelo_site.cli.judge_arguments import NamedJudge, make_judges, read_judges
from zelo_site.cli.lookup import find_snapshot


def read(*judges: str, file: Path | None = None) -> list[NamedJudge]:
    return read_judges({"judges": list(judges), "judges_file": file}, default=["bm25"])


@pytest.mark.parametrize("command", ["up", "demo"])
@pytest.mark.parametrize("port", [99999, -1, 0])
def test_port_that_is_none_is_named(command: str, port: int) -> None:
    with pytest.raises(CommandError, match=f"--port is {port}; pass a number from 1 to 65535"):
        call_command(command, port=port)


def test_no_action_has_an_option_that_django_reads_first() -> None:
    """`manage.py` takes --settings and --pythonpath out of the whole command line, also behind an action."""
    apps = {"labeling", "workers", "scoring", "trainer", "zelo_site", "zelo_site.cli", "zelo_site.demo"}
    ours = {name: app for name, app in get_commands().items() if app in apps}
    assert {"endpoints", "archive", "try_judge"} <= set(ours)
    taken = [
        f"{name} {action}"
        for name, app in ours.items()
        for action, parser in _actions(load_command_class(app, name).create_parser("manage.py", name))
        if {"--settings", "--pythonpath"} & set(parser._option_string_actions)
    ]
    assert not taken


def _actions(parser: ArgumentParser) -> Iterator[tuple[str, ArgumentParser]]:
    for group in parser._actions:
        if isinstance(group, _SubParsersAction):
            yield from group.choices.items()


@pytest.mark.parametrize("top", [-1, 0])
def test_scores_of_less_than_one_document_are_refused(top: int) -> None:
    with pytest.raises(CommandError, match=f"--top is {top}"):
        call_command("scores", "project", "query", top=top)


def test_judges_come_with_options_from_arguments_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "judges.json"
    file.write_text(json.dumps([{"plugin": "bm25", "options": {"k1": 2.0}, "name": "sharp"}]))
    assert read('bm25:{"k1": 1.5}', "embedding", file=file) == [
        NamedJudge(plugin="bm25", options={"k1": 1.5}),
        NamedJudge(plugin="embedding"),
        NamedJudge(plugin="bm25", options={"k1": 2.0}, name="sharp"),
    ]
    assert read() == [NamedJudge(plugin="bm25")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nobody", "nobody"),
        ("bm25:{", "not JSON"),
        ("bm25:[1]", "not a JSON object"),
        ('bm25:{"colour": 1}', "judge bm25: colour"),
        ('openai-http:{"endpoint": "x"}', "judge openai-http: model"),
    ],
)
def test_bad_judge_is_named_with_its_option(text: str, named: str) -> None:
    with pytest.raises(CommandError, match=named):
        read(text)


@pytest.mark.parametrize("content", ["", "{}", '[{"plugin": 7}]', '[{"plugin": "bm25", "option": {}}]', None])
def test_bad_file_of_judges_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "judges.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CommandError, match="--judges-file"):
        read(file=file)


@pytest.mark.django_db
def test_judge_of_a_command_has_its_options_and_name() -> None:
    made = make_judges(make_project(), [NamedJudge(plugin="bm25", options={"k1": 2.0}, name="sharp")])
    assert [(each.name, each.options["k1"]) for each in made] == [("sharp", 2.0)]


@pytest.mark.django_db
def test_unnamed_judges_of_one_plugin_are_told_apart_by_their_model() -> None:
    judge = 'openai-http:{"endpoint": "any", "model": "%s"}'
    named = make_judges(make_project(), read(judge % "org/small", judge % "large", "bm25"))
    assert [each.name for each in named] == ["org/small", "large", "BM25"]


@pytest.mark.django_db
def test_a_row_is_chosen_by_number_and_otherwise_by_name() -> None:
    project = make_project()
    first, named, other = (
        Snapshot.objects.create(name=name, location="", checksum="", rows=1) for name in ("spring", "2026", "²")
    )
    for each in (first, named, other):
        each.projects.add(project)
    wanted = {"2026": named, "²": other, "spring": first, str(first.pk): first}
    assert {text: find_snapshot(project, text) for text in wanted} == wanted
    assert find_snapshot(project, None) == other
    for text in ("9" * 30, "\x00", "autumn"):
        with pytest.raises(CommandError, match=r"has no snapshot .*; available: "):
            find_snapshot(project, text)


def configured(project: Project, **options: Any) -> str:
    out = io.StringIO()
    call_command("configure", project.slug, stdout=out, **options)
    return out.getvalue()


@pytest.mark.django_db
def test_project_is_configured_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project()
    said = configured(project, rater="bradley-terry", rater_options='{"prior_precision": 0.5}')
    project.refresh_from_db()
    assert (project.rater, project.rater_options["prior_precision"]) == ("bradley-terry", 0.5)
    assert "bradley-terry" in said


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["{", "[]", '{"prior_precision": -1}', '{"colour": 1}'])
def test_bad_options_of_a_rater_change_nothing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    project = make_project()
    with pytest.raises(CommandError):
        configured(project, rater_options=text)
    project.refresh_from_db()
    assert project.rater_options == {}


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["snapshot", "--options", '{"test_share": 1.8}'], "test_share: Input should be less than or equal to 1"),
        (["export", "--format", "trec-run", "--options", '{"tag": 3}'], "tag: Input should be a valid string"),
        (["snapshot", "--options", "[1]"], "--options '[1]' is not a JSON object; pass one such as {\"k1\": 1.2}"),
    ],
)
def test_wrong_options_are_named_without_the_words_of_a_library(arguments: list[str], said: str) -> None:
    project = make_project()
    with pytest.raises(CommandError) as raised:
        call_command(arguments[0], project.slug, *arguments[1:], stdout=io.StringIO())
    assert str(raised.value) == said


@pytest.mark.django_db
@pytest.mark.parametrize("command", ["snapshot", "export", "recipe", "distill", "refine"])
@pytest.mark.parametrize(
    ("text", "said"), [("[1]", "not a JSON object"), ("{", "not JSON"), ('{"colour": 1}', "colour: no option has this")]
)
def test_bad_options_of_a_command_are_one_line(command: str, text: str, said: str) -> None:
    project = make_project()
    student = Reranker.objects.create(project=project, name="student", kind=TRAINED, checksum="c", location="l")
    with pytest.raises(CommandError, match=said) as caught:
        call_command(command, project.slug, *([student.name] if command == "refine" else []), options=text)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", '"x"', "3", "{"])
def test_options_of_a_training_are_read_before_anything_starts(text: str) -> None:
    with pytest.raises(CommandError, match="--options"):
        call_command("train", "project", options=text)


def test_a_value_that_does_not_fit_is_named_with_its_option() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        EmbeddingOptions.model_validate({"rank": 0, "embedding_sizes": "x", "colour": 1})
    assert problem_of(caught.value) == (
        "rank: Input should be greater than or equal to 1; embedding_sizes: embedding sizes are 'x'; expected whole numbers "
        "with commas, such as 256, 128, 64; colour: no option has this name"
    )
