"""Every page and every operation of the REST interface, asked by everybody: who may do what.

A new address fails here until it stands in the table: decide who it is for, and say so in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import reverse

from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE, ROLES, Roles, World, make_world

pytestmark = pytest.mark.django_db


class For:
    """Whom an address is for; the others are refused, and who is no member finds nothing."""

    ALL = ROLES
    SIGNED_IN = ("owner", "annotator", "viewer", "stranger")
    STARTERS = ("owner",)  # staff, and owners of any project
    STAFF: Roles = ()
    MEMBERS = ("owner", "annotator", "viewer")
    PEOPLE_WHO_COMPARE = ("owner", "annotator")
    READERS = ("owner", "viewer")
    OWNERS = ("owner",)
    NOBODY_ELSE: Roles = ()  # the walk's key belongs to nobody in it
    KEYS: Roles = ()  # programs with a key of their own; a browser's session opens nothing


R = {"GET": For.READERS}
O = {"GET": For.OWNERS, "POST": For.OWNERS}  # noqa: E741
READ_AND_CHANGE = {"GET": For.READERS, "POST": For.OWNERS}

PAGES: dict[str, dict[str, Roles]] = {
    "projects": {"GET": For.SIGNED_IN},
    "sign-in": {"GET": For.ALL},
    "enter": {"GET": For.ALL},
    "sign-out": {"POST": For.SIGNED_IN},
    "sessions": {"POST": For.SIGNED_IN},
    "second-factor": {"GET": For.SIGNED_IN, "POST": For.SIGNED_IN},
    "profile": {"GET": For.SIGNED_IN, "POST": For.SIGNED_IN},
    "set-language": {"POST": For.ALL},
    "new-project": {"GET": For.STARTERS, "POST": For.STARTERS},
    "preview-import": {"POST": For.STARTERS},
    "jobs": {"GET": For.SIGNED_IN},
    "jobs-live": {"GET": For.SIGNED_IN},
    "docs": {"GET": For.SIGNED_IN},
    "doc": {"GET": For.SIGNED_IN},
    "doc-image": {"GET": For.SIGNED_IN},
    "find": {"GET": For.SIGNED_IN},
    "doctor": {"GET": For.STAFF},
    "plugins": {"GET": For.STAFF},
    "limits": {"GET": For.STAFF, "POST": For.STAFF},
    "endpoints": {"GET": For.STAFF},  # superusers, as all pages of endpoints
    "new-endpoint": {"GET": For.STAFF, "POST": For.STAFF},
    "endpoint": {"GET": For.STAFF, "POST": For.STAFF},
    "test-endpoint": {"POST": For.STAFF},
    "move-endpoint": {"POST": For.STAFF},
    "endpoint-models": {"GET": For.OWNERS},
    "project": {"GET": For.MEMBERS},  # annotators are led to the comparison screen
    "project-live": R,
    "export-archive": {"POST": For.OWNERS},
    "import-archive": {"GET": For.STARTERS, "POST": For.STARTERS},
    "delete-project": O,
    "delete": O,
    "archived": {"GET": For.SIGNED_IN},
    "restore-project": {"POST": For.OWNERS},
    "purge-project": O,
    "delete-account": {"GET": ("viewer",), "POST": ("viewer",)},  # one's own; superusers any
    "project-story": R,
    "project-figures": R,
    "settings": O,
    "import": O,
    "webhooks": O,
    "webhook": O,
    "move-webhook": {"POST": For.OWNERS},
    "send-delivery": {"POST": For.OWNERS},
    "imports": R,
    "left-out": R,
    "exports": R,
    "download": R,
    "candidates": READ_AND_CHANGE,
    "new-run": O,
    "estimate": {"POST": For.OWNERS},
    "move-run": {"POST": For.OWNERS},
    "budget": O,
    "charts": R,
    "chart": R,
    "chart-file": R,
    "queries": R,
    "query-views": {"POST": For.READERS},
    "bulk-queries": O,
    "query": R,
    "query-ranking": R,
    "matrix": R,
    "graph": R,
    "where-next": R,
    "queue-next": O,
    "ask-conflicts": O,
    "pair": R,
    "ask-pair": {"POST": For.OWNERS},
    "compare": {"GET": For.PEOPLE_WHO_COMPARE},
    "instruction": {"GET": For.PEOPLE_WHO_COMPARE, "POST": For.PEOPLE_WHO_COMPARE},
    "my-answers": {"GET": For.PEOPLE_WHO_COMPARE},
    "scorecard": READ_AND_CHANGE,
    "agreement": R,
    "scale": READ_AND_CHANGE,
    "probes": READ_AND_CHANGE,
    "recordings": READ_AND_CHANGE,
    "teachings": READ_AND_CHANGE,
    "teaching": R,
    "cancel-teaching": {"POST": For.OWNERS},
    "distill": READ_AND_CHANGE,
    "recipe": READ_AND_CHANGE,
    "refine": READ_AND_CHANGE,
    "move-refinement": {"POST": For.OWNERS},
    "move-recipe": {"POST": For.OWNERS},
    "move-distillation": {"POST": For.OWNERS},
    "trials": READ_AND_CHANGE,
    "trial": R,
    "new-trial": {"POST": For.OWNERS},
    "failures": READ_AND_CHANGE,
    "cancel-batch": {"POST": For.OWNERS},
    "snapshots": READ_AND_CHANGE,
    "training": READ_AND_CHANGE,
    "training-run": R,
    "training-live": R,
    "move-training": {"POST": For.OWNERS},
    "proof": READ_AND_CHANGE,
    "moved": R,
    "report": R,
    "rerankers": R,
    "deployments": READ_AND_CHANGE,
    "deployment": READ_AND_CHANGE,
    "move-deployment": {"POST": For.OWNERS},
    "try-reranker": {"GET": For.READERS, "POST": For.READERS},
    "rerank-models": {"GET": For.KEYS},
    "rerank-embeddings": {"POST": For.KEYS},
    "rerank-embed": {"POST": For.KEYS},
    "rerank-named": {"POST": For.KEYS},
    "rerank-v1": {"POST": For.KEYS},
    "rerank-v2": {"POST": For.KEYS},
    "rerank-tei": {"POST": For.KEYS},
    "rerank-llama-v1": {"POST": For.KEYS},
    "rerank-llama": {"POST": For.KEYS},
    "rerank-score-v1": {"POST": For.KEYS},
    "rerank-score": {"POST": For.KEYS},
    "rerank-info": {"GET": For.KEYS},
    "health": {"GET": For.ALL},  # 503: no ranking server runs here
    "icon": {"GET": For.ALL},
    "healthz": {"GET": For.ALL},
    "readyz": {"GET": For.ALL},
    "metrics": {"GET": For.STAFF},
    # The admin: superusers alone.
    "admin:index": {"GET": For.STAFF},
    "admin:storage": {"GET": For.STAFF},
    "admin:plugins": {"GET": For.STAFF},
    "admin:jsi18n": {"GET": For.STAFF},
    "admin:auth_user_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:labeling_membership_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:labeling_accesslink_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:labeling_apitoken_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:workers_run_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:workers_judgingtask_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:workers_endpointdefinition_changelist": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:workers_job_changelist": {"GET": For.STAFF},
    "admin:workers_worker_changelist": {"GET": For.STAFF},
    "admin:workers_endpointstate_changelist": {"GET": For.STAFF},
    "admin:labeling_auditentry_changelist": {"GET": For.STAFF},
    "admin:labeling_membership_change": {"GET": For.STAFF},
    "admin:labeling_accesslink_change": {"GET": For.STAFF},
    "admin:labeling_apitoken_change": {"GET": For.STAFF},
    "admin:workers_run_change": {"GET": For.STAFF},
    "admin:workers_judgingtask_change": {"GET": For.STAFF},
    "admin:workers_endpointdefinition_change": {"GET": For.STAFF},
    "admin:workers_job_change": {"GET": For.STAFF},
    "admin:workers_worker_change": {"GET": For.STAFF},
    "admin:workers_endpointstate_change": {"GET": For.STAFF},
    "admin:labeling_auditentry_change": {"GET": For.STAFF},
    "admin:auth_user_add": {"GET": For.STAFF, "POST": For.STAFF},
    "admin:auth_user_change": {"GET": For.STAFF, "POST": For.STAFF},
    "unknown-address": {"GET": For.ALL},
    "unknown-operation": {"GET": For.ALL},
    "audit": {"GET": For.OWNERS},
    "server-audit": {"GET": For.STAFF},
    "people": READ_AND_CHANGE,
    "plan-preview": {"GET": For.OWNERS},
    "people-agreement": R,
    "disagreements": R,
    "mark-gold": {"POST": For.OWNERS},
    "tokens": {"POST": For.SIGNED_IN},
    "adjudicate": READ_AND_CHANGE,
    "compare-next": {"POST": For.PEOPLE_WHO_COMPARE},
    "compare-answer": {"POST": For.PEOPLE_WHO_COMPARE},
    "compare-undo": {"POST": For.PEOPLE_WHO_COMPARE},
    "compare-skip": {"POST": For.PEOPLE_WHO_COMPARE},
    "compare-heartbeat": {"POST": For.PEOPLE_WHO_COMPARE},
}

# What a form has to name before its page looks at it; words in braces are filled in.
FORMS = {
    "scorecard": {"judge": "{annotator_id}", "action": "pause"},
    "probes": {"judge": "{annotator_id}"},
    "recordings": {"action": "upload"},
    "teachings": {"judge": "{annotator_id}"},
    "distill": {"judge": "{annotator_id}"},
    "recipe": {"judge": "{annotator_id}"},
    "trials": {"judge": "{annotator_id}"},
    "proof": {"action": "outside"},
    "bulk-queries": {"action": "exclude", "query": "{query_id}"},
    "training": {"snapshot": "{snapshot_id}"},
}

# They read in a snapshot of their own, which no test's transaction may surround.
COMMITTED = {"agreement", "report", "GET /projects/{slug}/agreement", "GET /projects/{slug}/report"}

# Whoever may ask does so for a judge, a verdict or an assignment that is not there.
OF_NOTHING = {
    "POST /projects/{slug}/probes",
    "DELETE /projects/{slug}/pairs/{pair_id}/verdict",
    "POST /projects/{slug}/assignments/{slot}/skip",
}

KEY = "6f0c1f0a-7b6e-4a53-9f3e-2f6b8a0f6c11"

# The operations of the REST interface, with a body that gets past its schema.
OPERATIONS: dict[str, tuple[Roles, Any]] = {
    "GET /projects": (For.SIGNED_IN, None),
    "POST /projects": (For.STARTERS, {"name": "another"}),
    "GET /projects/{slug}": (For.MEMBERS, None),
    "PATCH /projects/{slug}": (For.OWNERS, {"name": "renamed"}),
    "POST /projects/{slug}/imports": (For.OWNERS, "file"),
    "POST /projects/{slug}/imports/preview": (For.OWNERS, "file"),
    "GET /projects/{slug}/imports": (For.READERS, None),
    "GET /projects/{slug}/imports/{import_id}/left-out": (For.READERS, None),
    "GET /projects/{slug}/raters": (For.READERS, None),
    "GET /projects/{slug}/queries": (For.READERS, None),
    "POST /projects/{slug}/pairs/{pair_id}/ask": (For.OWNERS, {"whom": "person"}),
    "POST /projects/{slug}/queries/{change}": (For.OWNERS, {"queries": [1]}),
    "GET /projects/{slug}/judgments": (For.READERS, None),
    "GET /plugins": (For.SIGNED_IN, None),
    "GET /queries/{query_id}/scores": (For.READERS, None),
    "GET /projects/{slug}/calibration": (For.READERS, None),
    "GET /projects/{slug}/agreement": (For.READERS, None),
    "GET /projects/{slug}/exports/{exporter}": (For.READERS, None),
    "POST /projects/{slug}/runs": (For.OWNERS, {"judges": [{"plugin": "no such judge"}]}),
    "GET /projects/{slug}/runs": (For.READERS, None),
    "POST /projects/{slug}/calibrations": (For.OWNERS, {}),
    "POST /projects/{slug}/candidates": (For.OWNERS, {"retriever": "no such retriever"}),
    "GET /jobs/{job_id}": (For.READERS, None),
    "GET /runs/{run_id}": (For.READERS, None),
    "POST /projects/{slug}/rerankers/{reranker_id}/refinements": (For.OWNERS, {}),
    "GET /projects/{slug}/refinements": (For.READERS, None),
    "GET /refinements/{refinement_id}": (For.READERS, None),
    "POST /refinements/{refinement_id}/{move}": (For.OWNERS, None),
    "POST /projects/{slug}/recipes": (For.OWNERS, {"judges": [{"plugin": "no such judge"}]}),
    "GET /projects/{slug}/recipes": (For.READERS, None),
    "GET /recipes/{recipe_id}": (For.READERS, None),
    "POST /recipes/{recipe_id}/{move}": (For.OWNERS, None),
    "POST /projects/{slug}/distillations": (For.OWNERS, {"judges": [{"plugin": "no such judge"}]}),
    "GET /projects/{slug}/distillations": (For.READERS, None),
    "GET /distillations/{distillation_id}": (For.READERS, None),
    "POST /distillations/{distillation_id}/{move}": (For.OWNERS, None),
    "PATCH /runs/{run_id}": (For.OWNERS, {"call_budget": 5}),
    "GET /projects/{slug}/caps": (For.READERS, None),
    "PATCH /projects/{slug}/caps": (For.OWNERS, {"calls": 5}),
    "POST /runs/{run_id}/{action}": (For.OWNERS, None),
    "POST /runs/{run_id}/failures/retry": (For.OWNERS, None),
    "GET /server": (For.SIGNED_IN, None),
    "GET /projects/{slug}/batches": (For.READERS, None),
    "POST /projects/{slug}/batches/{batch_id}/cancel": (For.OWNERS, None),
    "GET /projects/{slug}/failures": (For.READERS, None),
    "POST /projects/{slug}/failures/retry": (For.OWNERS, None),
    "GET /projects/{slug}/judges/scorecards": (For.READERS, None),
    "POST /projects/{slug}/judges/{annotator_id}/pause": (For.OWNERS, {}),
    "GET /projects/{slug}/cycles": (For.READERS, None),
    "POST /projects/{slug}/judges/{annotator_id}/resume": (For.OWNERS, None),
    "POST /projects/{slug}/judges/{annotator_id}/retry": (For.OWNERS, None),
    "POST /projects/{slug}/judges/{annotator_id}/trials": (For.OWNERS, None),
    "GET /projects/{slug}/trials/{trial_id}": (For.READERS, None),
    "POST /projects/{slug}/judges/{annotator_id}/teachings": (For.OWNERS, {}),
    "GET /projects/{slug}/teachings/{teaching_id}": (For.READERS, None),
    "POST /projects/{slug}/teachings/{teaching_id}/cancel": (For.OWNERS, None),
    "GET /projects/{slug}/failed-calls": (For.READERS, None),
    "POST /projects/{slug}/snapshots": (For.OWNERS, {"name": " "}),
    "GET /projects/{slug}/snapshots": (For.READERS, None),
    "GET /projects/{slug}/report": (For.READERS, None),
    "GET /projects/{slug}/judges/replacement": (For.READERS, None),
    "GET /snapshots/{snapshot_id}": (For.READERS, None),
    "GET /snapshots/{snapshot_id}/rows": (For.READERS, None),
    "POST /projects/{slug}/trainings": (For.OWNERS, {"snapshot_id": 0}),
    "GET /projects/{slug}/trainings": (For.READERS, None),
    "GET /trainings/{training_id}": (For.READERS, None),
    "POST /trainings/{training_id}/cancel": (For.OWNERS, None),
    "POST /trainings/{training_id}/resume": (For.OWNERS, None),
    "POST /trainings/{training_id}/publish": (For.OWNERS, None),
    "POST /projects/{slug}/evaluations": (For.OWNERS, {"snapshot": 0}),
    "POST /projects/{slug}/entries/outside": (For.OWNERS, {"endpoint": "none"}),
    "POST /projects/{slug}/entries/run": (For.OWNERS, "file"),
    "GET /projects/{slug}/leaderboard": (For.READERS, None),
    "GET /projects/{slug}/leaderboard/orders": (For.READERS, None),
    "GET /projects/{slug}/leaderboard/moved": (For.READERS, None),
    "GET /projects/{slug}/rerankers": (For.READERS, None),
    "GET /projects/{slug}/audit": (For.OWNERS, None),
    "GET /projects/{slug}/members": (For.READERS, None),
    "PATCH /projects/{slug}/members/{user_id}": (For.OWNERS, {}),
    "DELETE /projects/{slug}/members/{user_id}": (For.OWNERS, None),
    "GET /projects/{slug}/invitations": (For.OWNERS, None),
    "POST /projects/{slug}/invitations": (For.OWNERS, {"role": "viewer"}),
    "DELETE /projects/{slug}/invitations/{link_id}": (For.OWNERS, None),
    "GET /projects/{slug}/rules": (For.READERS, None),
    "PATCH /projects/{slug}/rules": (For.OWNERS, {}),
    "GET /projects/{slug}/spot-checks": (For.READERS, None),
    "POST /projects/{slug}/spot-checks": (For.OWNERS, {"reason": "random"}),
    "POST /projects/{slug}/spot-checks/preview": (For.OWNERS, {"reason": "random"}),
    "DELETE /projects/{slug}/spot-checks/{plan_id}": (For.OWNERS, None),
    "GET /projects/{slug}/people/agreement": (For.READERS, None),
    "GET /projects/{slug}/disagreements": (For.READERS, None),
    "PUT /projects/{slug}/pairs/{pair_id}/verdict": (For.OWNERS, {"answer": "1"}),
    "DELETE /projects/{slug}/pairs/{pair_id}/verdict": (For.OWNERS, None),
    "POST /projects/{slug}/recordings": (For.OWNERS, "file"),
    "GET /projects/{slug}/probes": (For.READERS, None),
    "POST /projects/{slug}/probes": (For.OWNERS, {"annotator_id": 0}),
    "POST /projects/{slug}/{kind}/bulk": (For.OWNERS, None),
    "GET /projects/{slug}/documents": (For.READERS, None),
    "GET /projects/{slug}/candidates": (For.READERS, None),
    "GET /candidates/{candidate_id}/comparisons": (For.READERS, None),
    "GET /queries/{query_id}": (For.READERS, None),
    "GET /documents/{document_id}": (For.READERS, None),
    "GET /candidates/{candidate_id}": (For.READERS, None),
    "GET /projects/{slug}/jobs": (For.READERS, None),
    "GET /projects/{slug}/trials": (For.READERS, None),
    "POST /projects/{slug}/trials": (For.OWNERS, {"plugin": "no such judge"}),
    "GET /projects/{slug}/teachings": (For.READERS, None),
    "GET /projects/{slug}/runs/presets": (For.READERS, None),
    "POST /projects/{slug}/runs/estimate": (For.OWNERS, {"judges": [{"plugin": "no such judge"}]}),
    "GET /users": (For.STAFF, None),
    "POST /users": (For.STAFF, {"username": "new"}),
    "GET /users/{user_id}": (For.STAFF, None),
    "PATCH /users/{user_id}": (For.STAFF, {}),
    "POST /users/{user_id}/reset": (For.STAFF, {}),
    "GET /projects/{slug}/deployments": (For.READERS, None),
    "POST /projects/{slug}/deployments": (For.OWNERS, {"name": "other", "reranker_id": 1}),
    "GET /projects/{slug}/deployments/{deployment_id}": (For.READERS, None),
    "PATCH /projects/{slug}/deployments/{deployment_id}": (For.OWNERS, {}),
    "DELETE /projects/{slug}/deployments/{deployment_id}": (For.OWNERS, None),
    "POST /projects/{slug}/deployments/{deployment_id}/deploy": (For.OWNERS, {"reranker_id": 1}),
    "POST /projects/{slug}/deployments/{deployment_id}/rollback": (For.OWNERS, None),
    "GET /projects/{slug}/deployments/{deployment_id}/shadow": (For.READERS, None),
    "GET /projects/{slug}/deployments/{deployment_id}/requests": (For.OWNERS, None),
    "DELETE /projects/{slug}/deployments/{deployment_id}/requests": (For.OWNERS, None),
    "POST /projects/{slug}/deployments/{deployment_id}/import": (For.OWNERS, {}),
    "DELETE /users/{user_id}/second-factor": (For.STAFF, None),
    "GET /projects/{slug}/webhooks": (For.OWNERS, None),
    "POST /projects/{slug}/webhooks": (For.OWNERS, {"url": "http://none.example", "events": ["run.finished"]}),
    "GET /projects/{slug}/webhooks/{webhook_id}": (For.OWNERS, None),
    "PATCH /projects/{slug}/webhooks/{webhook_id}": (For.OWNERS, {}),
    "DELETE /projects/{slug}/webhooks/{webhook_id}": (For.OWNERS, None),
    "POST /projects/{slug}/webhooks/{webhook_id}/secret": (For.OWNERS, None),
    "POST /projects/{slug}/webhooks/{webhook_id}/test": (For.OWNERS, None),
    "GET /projects/{slug}/webhooks/{webhook_id}/deliveries": (For.OWNERS, None),
    "POST /projects/{slug}/webhooks/{webhook_id}/deliveries/{delivery_id}/send": (For.OWNERS, None),
    "GET /projects/{slug}/instruction": (For.PEOPLE_WHO_COMPARE, None),
    "POST /projects/{slug}/instruction": (For.PEOPLE_WHO_COMPARE, {"seen": "x"}),
    "POST /projects/{slug}/assignments": (For.PEOPLE_WHO_COMPARE, None),
    "POST /projects/{slug}/assignments/leases": (For.PEOPLE_WHO_COMPARE, {"slots": []}),
    "POST /projects/{slug}/assignments/{slot}/answer": (For.PEOPLE_WHO_COMPARE, {"answer": "none", "key": KEY}),
    "POST /projects/{slug}/assignments/{slot}/skip": (For.PEOPLE_WHO_COMPARE, {"key": KEY}),
    "POST /projects/{slug}/assignments/{slot}/undo": (For.PEOPLE_WHO_COMPARE, {"key": KEY}),
    "PUT /projects/{slug}/pairs/{pair_id}/gold": (For.OWNERS, {"answer": "tie"}),
    "DELETE /projects/{slug}/pairs/{pair_id}/gold": (For.NOBODY_ELSE, None),
    "GET /keys": (For.SIGNED_IN, None),
    "POST /keys": (For.SIGNED_IN, {"name": "new"}),
    "DELETE /keys/{key_id}": (For.NOBODY_ELSE, None),
    "GET /limits": (For.STAFF, None),
    "PUT /limits": (For.STAFF, {"calls": 5}),
    "DELETE /limits/{limit_id}": (For.STAFF, None),
    "GET /endpoints/{name}/projects": (For.STAFF, None),
    "PUT /endpoints/{name}/projects": (For.STAFF, {"projects": None}),
    "GET /endpoints": (For.STAFF, None),
    "POST /endpoints": (For.STAFF, {"name": "new", "base_url": "http://127.0.0.1:9/v1"}),
    "PATCH /endpoints/{name}": (For.STAFF, {}),
    "POST /endpoints/{name}/test": (For.STAFF, {}),
    "POST /endpoints/{name}/retire": (For.STAFF, None),
    "POST /endpoints/{name}/restore": (For.STAFF, None),
    "DELETE /queries/{query_id}": (For.OWNERS, None),
    "DELETE /documents/{document_id}": (For.OWNERS, None),
    "DELETE /candidates/{candidate_id}": (For.OWNERS, None),
    "DELETE /annotators/{annotator_id}/judgments": (For.OWNERS, None),
    "DELETE /runs/{run_id}": (For.OWNERS, None),
    "DELETE /snapshots/{snapshot_id}": (For.OWNERS, None),
    "DELETE /rerankers/{reranker_id}": (For.OWNERS, None),
    "POST /annotators/{annotator_id}/retire": (For.OWNERS, None),
    "POST /annotators/{annotator_id}/restore": (For.OWNERS, None),
    "GET /deletions/{what}/{target_id}": (For.OWNERS, None),
    "GET /projects/{slug}/deletion": (For.OWNERS, None),
    "DELETE /projects/{slug}": (For.OWNERS, None),
    "GET /archived-projects": (For.SIGNED_IN, None),
    "POST /archived-projects/{archived}/restore": (For.OWNERS, None),
    "DELETE /archived-projects/{archived}": (For.OWNERS, None),
    "GET /projects/{slug}/archive": (For.OWNERS, None),
    "POST /archives": (For.STARTERS, "file"),
    "GET /users/{user_id}/deletion": (("viewer",), None),
    "DELETE /users/{user_id}": (("viewer",), None),
}


# Addresses whose last part is another word than `cancel`.
MOVES = {"move-webhook": {"move": "test"}, "move-deployment": {"move": "rollback"}}


@pytest.fixture
def world() -> World:
    return make_world()


def test_every_page_stands_in_the_table() -> None:
    assert set(EVERY_PAGE) == set(PAGES), "say in PAGES whom a new address is for"


def test_every_operation_stands_in_the_table() -> None:
    assert set(EVERY_OPERATION) == set(OPERATIONS), "say in OPERATIONS whom a new operation is for"


def outcomes(world: World, send: Callable[[Client], Any]) -> dict[str, str]:
    """What everybody got: let in, refused, not found, or sent to sign in. Owners come last: they change things."""
    return {role: _outcome(send(world.client(role))) for role in reversed(ROLES)}


def _outcome(answer: Any) -> str:
    if answer.status_code >= 500:
        return f"error {answer.status_code}"
    if answer.status_code == 401 or (answer.status_code == 302 and answer.url.startswith(f"{reverse('sign-in')}?")):
        return "signs in"
    return {403: "refused", 404: "not found"}.get(answer.status_code, "let in")


def check(found: dict[str, str], whom: Roles, *, of_a_project: bool) -> None:
    """Members outside `whom` may be refused or find nothing; who is no member must find nothing."""
    for role, outcome in found.items():
        if role in whom:
            assert outcome == "let in", f"{role}: {outcome}"
        elif role == "anonymous":
            assert outcome in {"signs in"}, f"{role}: {outcome}"
        elif role == "stranger" and of_a_project:
            assert outcome == "not found", f"{role}: {outcome}"
        else:
            assert outcome in {"refused", "not found"}, f"{role}: {outcome}"


def ask_for_page(name: str, method: str, world: World) -> None:
    named = EVERY_PAGE[name]
    known = {**world.known, **MOVES.get(name, {})}
    address = reverse(name, kwargs={key: known[key] for key in named})
    form = {field: value.format(**world.known) for field, value in FORMS.get(name, {}).items()}
    found = outcomes(world, lambda client: client.post(address, form) if method == "POST" else client.get(address))
    if name in {"sign-in", "enter", "icon", "healthz", "readyz"}:
        assert set(found.values()) == {"let in"}
    elif name in {"health", "unknown-address", "unknown-operation"}:
        assert set(found.values()) == {"error 503" if name == "health" else "not found"}
    elif name.startswith("rerank-"):
        assert set(found.values()) == {"signs in"}
    else:
        check(found, PAGES[name][method], of_a_project="slug" in named)


def ask_for_operation(operation: str, world: World) -> None:
    whom, body = OPERATIONS[operation]
    method, _, path = operation.partition(" ")
    address = "/api/v1" + path.format(**world.known)

    def send(client: Client) -> Any:
        if body == "file":
            return client.post(address, {"file": BytesIO(b"{}")})
        return client.generic(method, address, "" if body is None else json.dumps(body), "application/json")

    found = outcomes(world, send)
    if operation in OF_NOTHING:
        assert {found.pop(role) for role in whom} == {"not found"}
    check(
        found,
        whom,
        of_a_project=not {"{name}", "{key_id}", "{user_id}", "{limit_id}"} & set(re.findall(r"{\w+}", path))
        and "{" in path,
    )


def wrong(world: World, cases: Iterable[tuple[str, ...]], ask: Callable[..., None]) -> list[str]:
    """The cases whose outcome is another than the table's. All meet the same world: the changes of each are undone."""
    found = []
    for case in cases:
        try:
            with transaction.atomic():
                ask(*case, world)
                transaction.set_rollback(True)
        except AssertionError as error:
            found.append(f"{' '.join(reversed(case))}: {error}")
    return found


def test_a_page_is_for_whom_the_table_says(world: World) -> None:
    cases = [(name, method) for name, table in PAGES.items() for method in table if name not in COMMITTED]
    assert wrong(world, cases, ask_for_page) == []


def test_an_operation_is_for_whom_the_table_says(world: World) -> None:
    cases = [(operation,) for operation in OPERATIONS if operation not in COMMITTED]
    assert wrong(world, cases, ask_for_operation) == []


@pytest.mark.django_db(transaction=True)
def test_what_reads_in_a_snapshot_of_its_own_is_for_whom_the_table_says(world: World) -> None:
    for each in sorted(COMMITTED & PAGES.keys()):
        for method in PAGES[each]:
            ask_for_page(each, method, world)
    for each in sorted(COMMITTED & OPERATIONS.keys()):
        ask_for_operation(each, world)
