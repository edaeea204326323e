"""Command-line judge arguments: `plugin`, `plugin:{"option": ...}`, or a JSON file as in the REST API.

`manage.py run` and `manage.py calibrate` use it; `labeling.access.annotators.get_judge` creates the annotators.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
from django.core.management.base import CommandError

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Project
from labeling.plugins import UnknownPlugin, get_plugin, problem_of
from workers.endpoints.registry import (
    OF_ENVIRONMENT,
    PRICE_VARIABLES,
    EndpointsInvalid,
    UnknownEndpoint,
    get_endpoint,
)

EXAMPLE = """[{"plugin": "bm25", "options": {"k1": 0.9}}]"""


class NamedJudge(pydantic.BaseModel):
    """One judge, as in the REST API."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    plugin: str
    options: dict[str, Any] = {}
    name: str = pydantic.Field(default="", max_length=200)


def add_judge_arguments(parser: ArgumentParser, *, otherwise: str) -> None:
    """Add `--judges` and `--judges-file`; `otherwise` names the default judges in the help."""
    parser.add_argument(
        "--judges", nargs="+", default=[], help=f"plugin, or plugin:{{JSON of its options}} (default: {otherwise})"
    )
    parser.add_argument("--judges-file", type=Path, help=f"JSON list of judges, for example {EXAMPLE}")


def read_judges(options: dict[str, Any], *, default: Sequence[str] = ()) -> list[NamedJudge]:
    """Return the validated judges of `--judges` and `--judges-file`; stores nothing. Raises CommandError."""
    judges = [_argument(text) for text in options["judges"]]
    if options["judges_file"] is not None:
        judges += _file(options["judges_file"])
    judges = judges or [NamedJudge(plugin=name) for name in default]
    for judge in judges:
        _check(judge)
    return judges


def make_judges(project: Project, judges: Sequence[NamedJudge]) -> list[Annotator]:
    """Return the project's annotators for these judges, created on first use. Unnamed judges of one plugin are named by model."""
    unnamed = Counter(judge.plugin for judge in judges if not judge.name)

    def name_of(judge: NamedJudge) -> str:
        return judge.name or (str(judge.options.get("model", ""))[:200] if unnamed[judge.plugin] > 1 else "")

    return [get_judge(project, judge.plugin, judge.options, name=name_of(judge)) for judge in judges]


def check_prices(judges: Sequence[NamedJudge], dollars: float | None) -> None:
    """Raise CommandError where a budget in dollars could limit no judge, because no endpoint of theirs has a price.

    The endpoint of the environment needs prices in any case: without them nobody said that it is free.
    """
    named = {str(judge.options["endpoint"]) for judge in judges if judge.options.get("endpoint")}
    free = [name for name in sorted(named) if _is_free(name)]
    if dollars is None or not free or (len(free) < len(named) and OF_ENVIRONMENT not in free):
        return
    name = OF_ENVIRONMENT if OF_ENVIRONMENT in free else free[0]
    prices = " and ".join(PRICE_VARIABLES.values() if name == OF_ENVIRONMENT else PRICE_VARIABLES)
    raise CommandError(
        f"--dollars {dollars:g} limits nothing: the endpoint {name!r} has no prices. Set {prices} "
        "(dollars per million tokens), or pass --calls or --tokens instead"
    )


def _is_free(endpoint: str) -> bool:
    """Whether a defined endpoint has no prices; of an unknown one the run says that it is unknown."""
    try:
        found = get_endpoint(endpoint)
    except (UnknownEndpoint, EndpointsInvalid):
        return False
    return not (found.input_price or found.output_price)


def _argument(text: str) -> NamedJudge:
    plugin, colon, written = text.partition(":")
    if not colon:
        return NamedJudge(plugin=plugin)
    try:
        values = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--judges {plugin}: {written!r} is not JSON ({error}); pass {plugin}:{{...}}") from error
    if not isinstance(values, dict):
        raise CommandError(f"--judges {plugin}: {written!r} is not a JSON object of options; pass {plugin}:{{...}}")
    return NamedJudge(plugin=plugin, options=values)


def _file(path: Path) -> list[NamedJudge]:
    try:
        return pydantic.TypeAdapter(list[NamedJudge]).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CommandError(f"--judges-file {path} cannot be read ({error.strerror}); check the path") from error
    except pydantic.ValidationError as error:
        raise CommandError(f"--judges-file {path}: {problem_of(error)}; write a list such as {EXAMPLE}") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--judges-file {path} is not JSON ({error}); write a list such as {EXAMPLE}") from error


def _check(judge: NamedJudge) -> None:
    try:
        get_plugin("judge", judge.plugin).Options.model_validate(judge.options)
    except UnknownPlugin as error:
        raise CommandError(str(error)) from error
    except pydantic.ValidationError as error:
        raise CommandError(f"judge {judge.plugin}: {problem_of(error)}") from error
