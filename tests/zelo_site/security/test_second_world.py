"""Ids of other people's projects, sent by an owner of another project: in the path, the query, the body and the form.

Addresses come from the URL configuration, fields from the OpenAPI document and from the forms that pages show, so a new
one is tried without an entry here. Only a field of a new name must be entered: in ROW_FIELDS, or in NUMBERS.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Membership, Project, Role
from scoring.models import Snapshot
from tests.factories.pages import make_user
from tests.factories.world.second import MARK, NO_ROWS, OTHER_ROWS, TwoWorlds, text_of, undone
from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE
from trainer.models import Reranker, TrainingRun
from workers.deletion.targets import KINDS
from zelo_site.api.root import api

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]

DOCUMENT = json.loads(json.dumps(api.get_openapi_schema()))
SCHEMAS = DOCUMENT["components"]["schemas"]

# Fields of queries, bodies and forms that name a row, and the row of the world that they may name.
ROW_FIELDS = {
    "annotator_id": "annotator_id", "judge": "annotator_id", "run_id": "run_id", "run": "run_id", "query_ids": "query_id",
    "snapshot": "snapshot_id", "snapshot_id": "snapshot_id", "before": "snapshot_id", "rerankers": "reranker_id",
    "reranker": "reranker_id", "against": "reranker_id", "first": "reranker_id", "second": "reranker_id", "slots": "slot",
    "user": "user_id", "link": "link_id", "plan": "plan_id", "token": "key_id", "start": "reranker_id",
    "projects": "slug", "project": "slug", "shadow_id": "reranker_id", "reranker_id": "reranker_id", "variant_id": "reranker_id",
    "variant": "reranker_id", "version": "reranker_id", "shadow": "reranker_id", "as_in_run": "run_id", "query": "query_id",
    "queries": "query_id",
}  # fmt: skip
# Whole numbers that count something or have a unit.
NUMBERS = {
    "limit", "days", "seed", "quota", "examples", "pairs", "overlap", "k", "pairs_per_query", "seen", "pair_budget",
    "call_budget", "token_budget", "cost_budget_micros", "calls", "tokens", "cost_micros", "gold_every", "gold_answers",
    "lease_s", "seconds", "epsilon", "index", "page", "shadow_share", "sample", "most", "log_days",
    "variant_share", "log_share",
}  # fmt: skip

KEY = "6f0c1f0a-7b6e-4a53-9f3e-2f6b8a0f6c11"


@pytest.fixture
def worlds(settings: Settings, tmp_path: Path) -> TwoWorlds:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    return TwoWorlds()


# --- in the path -------------------------------------------------------------------------


def wrong_paths(names: frozenset[str], worlds: TwoWorlds) -> Iterator[tuple[str, dict[str, Any]]]:
    """What an address names, with one of its rows taken from the other world each time."""
    for name in sorted(names & worlds.rows):
        yield name, {**worlds.ours.known, name: worlds.theirs.known[name]}


def kinds_of_targets(names: frozenset[str], known: dict[str, Any], theirs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same for each kind of row that can be deleted, where the address names one."""
    if not {"what", "target_id"} <= names:
        yield known
        return
    ids = {"answers": "annotator_id", "judge": "annotator_id"}
    for kind in KINDS:
        yield {**known, "what": kind, "target_id": theirs[ids.get(kind, f"{kind}_id")]}


def test_every_part_of_an_address_is_a_row_of_both_worlds_or_none(worlds: TwoWorlds) -> None:
    named = {name for names in EVERY_PAGE.values() for name in names}
    named |= {name for path in EVERY_OPERATION.values() for name in re.findall(r"{(\w+)}", path)}
    assert named - worlds.rows - NO_ROWS - OTHER_ROWS - {"slot"} == set(), "give `make_world` a row of the new kind"


def test_an_id_of_others_in_the_path_of_a_page_finds_nothing(worlds: TwoWorlds) -> None:
    client, let_in = worlds.ours.client("owner"), []
    for name, named in EVERY_PAGE.items():
        for wrong, known in wrong_paths(named, worlds):
            for each in kinds_of_targets(named, known, worlds.theirs.known):
                address = reverse(name, kwargs={key: each[key] for key in named})
                for method in ("get", "post"):
                    answer, _ = undone(lambda: getattr(client, method)(address))  # noqa: B023
                    if answer.status_code not in (401, 403, 404, 405) or MARK in text_of(answer):
                        let_in.append(f"{method} {name} with their {wrong}: {answer.status_code}")
    assert let_in == []
    assert worlds.stands_as_before()


def test_an_id_of_others_in_the_path_of_an_operation_finds_nothing(worlds: TwoWorlds) -> None:
    client, let_in = worlds.ours.client("owner"), []
    for operation, path in EVERY_OPERATION.items():
        method, named = operation.partition(" ")[0], frozenset(re.findall(r"{(\w+)}", path))
        for wrong, known in wrong_paths(named, worlds):
            for each in kinds_of_targets(named, known, worlds.theirs.known):
                answer, _ = undone(lambda: send(client, method, path, path.format(**each)))  # noqa: B023
                if answer.status_code not in (403, 404) or MARK in text_of(answer):
                    let_in.append(f"{operation} with their {wrong}: {answer.status_code} {text_of(answer)[:200]}")
    assert let_in == []
    assert worlds.stands_as_before()


def send(client: Client, method: str, path: str, address: str, body: Any = None) -> Any:
    """A request with the document's example as its body, unless one is given."""
    content = DOCUMENT["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        return client.post(address, {"file": BytesIO(b"{}")})
    if body is None and "application/json" in content:
        body = content["application/json"]["example"]
    if isinstance(body, dict) and "{slot}" in path:
        body = {**body, "key": KEY}
    return client.generic(method, address, "" if body is None else json.dumps(body), "application/json")


# --- in the query and the body -----------------------------------------------------------


def number_fields(schema: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """Names of the fields of a schema that take whole numbers, those of its parts included."""
    schema = SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for name, field in schema.get("properties", {}).items():
        if takes_numbers(field):
            yield name
        for part in (field, field.get("items", {}), *field.get("anyOf", [])):
            if depth < 4:
                yield from number_fields(part, depth + 1)


def takes_numbers(field: dict[str, Any]) -> bool:
    parts = [field, field.get("items", {}), *field.get("anyOf", [])]
    parts += [part.get("items", {}) for part in field.get("anyOf", [])]
    return any(part.get("type") == "integer" for part in parts)


def wrong_queries(operation: dict[str, Any], worlds: TwoWorlds) -> Iterator[str]:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query" and parameter["name"] in ROW_FIELDS:
            theirs = worlds.theirs.known[ROW_FIELDS[parameter["name"]]]
            named = {parameter["name"]: theirs}
            if parameter["name"] in ("first", "second"):
                named = {"first": worlds.ours.known["reranker_id"], "second": worlds.ours.known["reranker_id"], **named}
            yield urlencode(named)


def wrong_bodies(operation: dict[str, Any], worlds: TwoWorlds) -> Iterator[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    schema = SCHEMAS[content["schema"]["$ref"].rpartition("/")[2]]
    for name, field in schema.get("properties", {}).items():
        if name not in ROW_FIELDS:
            continue
        theirs = worlds.theirs.known[ROW_FIELDS[name]]
        is_list = any(part.get("type") == "array" for part in (field, *field.get("anyOf", [])))
        body = copy.deepcopy(content["example"])
        if "judges" in body:
            body["judges"] = [{"plugin": "test-longer"}]
        yield {**body, name: [theirs] if is_list else theirs}


def test_every_number_of_the_document_is_a_row_or_a_count() -> None:
    found = set()
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            found |= {
                each["name"]
                for each in operation.get("parameters", [])
                if each["in"] == "query" and takes_numbers(each["schema"])
            }
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found |= set(number_fields(content["schema"]))
    assert found - set(ROW_FIELDS) - NUMBERS == set(), "enter a new field in ROW_FIELDS or NUMBERS"


@pytest.mark.django_db(transaction=True)  # the report reads in a snapshot of its own
def test_ids_of_others_in_the_query_and_the_body_reach_nothing(worlds: TwoWorlds) -> None:
    client, tried, let_in = worlds.ours.client("owner"), 0, []
    for operation, path in EVERY_OPERATION.items():
        method, address = operation.partition(" ")[0], path.format(**worlds.ours.known)
        described = DOCUMENT["paths"][path][method.lower()]
        requests: list[tuple[str, Any]] = [(f"{address}?{query}", None) for query in wrong_queries(described, worlds)]
        requests += [(address, body) for body in wrong_bodies(described, worlds)]
        for where, body in requests:
            tried += 1

            def ask() -> Any:
                return send(client, method, path, where, body)  # noqa: B023

            if path.endswith("/report"):
                answer, unchanged = ask(), True
            else:
                answer, unchanged = undone(ask, worlds.stands_as_before)
            if answer.status_code >= 500 or MARK in text_of(answer) or not unchanged:
                let_in.append(
                    f"{operation} {where.partition('?')[2]} {body}: {answer.status_code} {text_of(answer)[:300]}"
                )
    assert let_in == []
    assert tried > 20


# --- in forms ----------------------------------------------------------------------------


class Fields(HTMLParser):
    """The names of the fields of all forms of a page whose values are whole numbers, and the values of its buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, set[str]] = {}
        self.actions: set[tuple[str, str]] = set()
        self.select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "select":
            self.select = given.get("name", "")
        name = self.select if tag == "option" else given.get("name", "")
        value = given.get("value", "")
        if name in ("action", "do") and value:
            self.actions.add((name, value))
        chooses = tag == "option" or (
            tag in ("input", "button") and given.get("type") in ("hidden", "checkbox", "radio")
        )
        if name and chooses and value.isdecimal():
            self.numbers.setdefault(name, set()).add(value)


def test_ids_of_others_in_forms_reach_nothing(worlds: TwoWorlds) -> None:
    """Every form of a project's pages with every field that names a row, for each of its buttons."""
    client, let_in, unknown = worlds.ours.client("owner"), [], set()
    rows = {name: worlds.theirs.known[row] for name, row in ROW_FIELDS.items() if row not in ("slug", "slot")}
    ids = {str(value) for world in (worlds.ours, worlds.theirs) for value in world.known.values()}
    for name, named in EVERY_PAGE.items():
        if "slug" not in named or name in ("agreement", "report"):
            continue
        address = reverse(name, kwargs={key: worlds.ours.known[key] for key in named})
        page, _ = undone(lambda: client.get(address))  # noqa: B023
        fields = Fields()
        if page.status_code == 200 and "text/html" in page["Content-Type"]:
            fields.feed(text_of(page))
        unknown |= {
            f"{name}: {field}"
            for field, values in fields.numbers.items()
            if field not in ROW_FIELDS and field not in NUMBERS and values & ids - {"0", "1", "2", "3", "4", "5"}
        }
        for button in [None, *sorted(fields.actions)]:
            form = {**rows, **({} if button is None else {button[0]: button[1]}), "role": "viewer", "quota": "5"}
            answer, unchanged = undone(lambda: client.post(address, form), worlds.stands_as_before)  # noqa: B023
            if answer.status_code >= 500 or MARK in text_of(answer) or not unchanged:
                let_in.append(f"{name} {button}: {answer.status_code}, their rows unchanged: {unchanged}")
    assert let_in == []
    assert unknown == set(), "enter a new field in ROW_FIELDS or NUMBERS"


# --- what was made from both -------------------------------------------------------------


def test_lineage_of_both_projects_is_shown_only_to_readers_of_both(worlds: TwoWorlds) -> None:
    """A snapshot that joins a project of strangers with ours, and a reranker of ours that was trained on it."""
    ours, theirs = (Project.objects.get(slug=world.known["slug"]) for world in (worlds.ours, worlds.theirs))
    judges = [{"annotator": 1, "person": False, "name": f"{MARK}judge", "options": {}}]
    sources = [
        {"slug": each.slug, "name": each.name, "judgments": 5, "judges": judges, "fit": {"rater": "thurstone"}}
        for each in (ours, theirs)
    ]
    joint = Snapshot.objects.create(
        name="joint", location="snapshots/joint", checksum="1" * 64, rows=1,
        manifest={"projects": sources, "domains": [{"project": theirs.name, "domain": MARK, "split": "train"}]},
    )  # fmt: skip
    joint.projects.set([ours, theirs])
    training = TrainingRun.objects.create(project=ours, snapshot=joint, trainer="pointwise")
    Reranker.objects.filter(pk=worlds.ours.known["reranker_id"]).update(
        training_run=training,
        manifest={"card": {"lineage": {"projects": [ours.slug, theirs.slug], "judges": [f"{MARK}judge"]}}},
    )
    known = {**worlds.ours.known, "snapshot_id": joint.pk, "training_id": training.pk}
    both = make_user("reader of both")
    for project in (ours, theirs):
        Membership.objects.create(project=project, user=both, role=Role.VIEWER)
    leaks = [name for name, text in read_all(worlds.ours.client("owner"), known) if MARK in text]
    assert leaks == []
    page = worlds.ours.client("owner").get(f"/p/{ours.slug}/delete/snapshot/{joint.pk}/")
    assert page.status_code == 404
    client = Client()
    client.force_login(both)
    assert MARK in dict(read_all(client, known))["GET /projects/{slug}/rerankers"]


def read_all(client: Client, known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every page and operation of the project that is read, but for those in a snapshot of their own."""
    for name, named in EVERY_PAGE.items():
        if "slug" in named and name not in ("agreement", "report"):
            address = reverse(name, kwargs={key: known[key] for key in named})
            yield name, text_of(undone(lambda: client.get(address))[0])  # noqa: B023
    for operation, path in EVERY_OPERATION.items():
        if operation.startswith("GET") and "{" in path and not path.endswith(("/agreement", "/report", "/archive")):
            yield operation, text_of(undone(lambda: client.get(path.format(**known)))[0])  # noqa: B023
