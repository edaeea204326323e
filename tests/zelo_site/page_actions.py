"""The table of pages' actions: which REST operations do the same. `changing_pages` finds the pages in the table of rights' own source."""

from __future__ import annotations

import ast
from pathlib import Path

P = "/projects/{slug}"
OVER_REST: dict[str, tuple[str, ...]] = {
    "ask-conflicts": (f"POST {P}/runs",),
    "tokens": ("POST /keys", "DELETE /keys/{key_id}"),
    "new-project": ("POST /projects", f"POST {P}/imports"),
    "preview-import": (f"POST {P}/imports/preview",),
    "settings": (f"PATCH {P}", f"PATCH {P}/caps"),
    "webhooks": (f"POST {P}/webhooks",),
    "webhook": (f"PATCH {P}/webhooks/{{webhook_id}}",),
    "send-delivery": (f"POST {P}/webhooks/{{webhook_id}}/deliveries/{{delivery_id}}/send",),
    "move-webhook": (
        f"POST {P}/webhooks/{{webhook_id}}/test",
        f"POST {P}/webhooks/{{webhook_id}}/secret",
        f"DELETE {P}/webhooks/{{webhook_id}}",
    ),
    "estimate": (f"POST {P}/runs/estimate",),
    "new-trial": (f"POST {P}/trials",),
    "instruction": (f"POST {P}/instruction",),
    "mark-gold": (f"PUT {P}/pairs/{{pair_id}}/gold", f"DELETE {P}/pairs/{{pair_id}}/gold"),
    "compare-next": (f"POST {P}/assignments",),
    "compare-answer": (f"POST {P}/assignments/{{slot}}/answer",),
    "compare-undo": (f"POST {P}/assignments/{{slot}}/undo",),
    "compare-skip": (f"POST {P}/assignments/{{slot}}/skip",),
    "compare-heartbeat": (f"POST {P}/assignments/leases",),
    "import": (f"POST {P}/imports", f"POST {P}/{{kind}}/bulk"),
    "candidates": (f"POST {P}/candidates",),
    "new-run": (f"POST {P}/runs", f"POST {P}/spot-checks"),
    "queue-next": (f"POST {P}/runs",),
    "ask-pair": (f"POST {P}/pairs/{{pair_id}}/ask",),
    "bulk-queries": (f"POST {P}/runs", f"POST {P}/queries/{{change}}", "DELETE /queries/{query_id}"),
    "move-run": ("POST /runs/{run_id}/{action}", "POST /runs/{run_id}/failures/retry"),
    "budget": ("PATCH /runs/{run_id}",),
    "cancel-batch": (f"POST {P}/batches/{{batch_id}}/cancel",),
    "failures": (f"POST {P}/failures/retry",),
    "scorecard": (
        f"POST {P}/judges/{{annotator_id}}/pause",
        f"POST {P}/judges/{{annotator_id}}/resume",
        "POST /annotators/{annotator_id}/retire",
        "POST /annotators/{annotator_id}/restore",
    ),
    "trials": (f"POST {P}/judges/{{annotator_id}}/trials",),
    "teachings": (f"POST {P}/judges/{{annotator_id}}/teachings",),
    "cancel-teaching": (f"POST {P}/teachings/{{teaching_id}}/cancel",),
    "scale": (f"POST {P}/calibrations",),
    "recordings": (f"POST {P}/recordings",),
    "probes": (f"POST {P}/probes",),
    "distill": (f"POST {P}/distillations",),
    "refine": (f"POST {P}/rerankers/{{reranker_id}}/refinements",),
    "deployments": (f"POST {P}/deployments",),
    "deployment": (f"PATCH {P}/deployments/{{deployment_id}}",),
    "move-deployment": (
        f"POST {P}/deployments/{{deployment_id}}/deploy",
        f"POST {P}/deployments/{{deployment_id}}/rollback",
        f"POST {P}/deployments/{{deployment_id}}/import",
        f"DELETE {P}/deployments/{{deployment_id}}/requests",
        f"DELETE {P}/deployments/{{deployment_id}}",
    ),
    "move-refinement": ("POST /refinements/{refinement_id}/{move}",),
    "recipe": (f"POST {P}/recipes",),
    "move-recipe": ("POST /recipes/{recipe_id}/{move}",),
    "move-distillation": ("POST /distillations/{distillation_id}/{move}",),
    "snapshots": (f"POST {P}/snapshots",),
    "training": (f"POST {P}/trainings",),
    "move-training": tuple(f"POST /trainings/{{training_id}}/{move}" for move in ("cancel", "resume", "publish")),
    "limits": ("PUT /limits", "DELETE /limits/{limit_id}", "PUT /endpoints/{name}/projects"),
    "new-endpoint": ("POST /endpoints",),
    "endpoint": ("PATCH /endpoints/{name}",),
    "test-endpoint": ("POST /endpoints/{name}/test",),
    "move-endpoint": ("POST /endpoints/{name}/retire", "POST /endpoints/{name}/restore"),
    "proof": (f"POST {P}/evaluations", f"POST {P}/entries/outside", f"POST {P}/entries/run"),
    "people": (f"POST {P}/spot-checks", f"POST {P}/invitations", f"PATCH {P}/members/{{user_id}}", f"PATCH {P}/rules"),
    "export-archive": (f"GET {P}/archive",),
    "import-archive": ("POST /archives",),
    "delete-project": (f"DELETE {P}",),
    "delete": (
        "DELETE /queries/{query_id}",
        "DELETE /documents/{document_id}",
        "DELETE /candidates/{candidate_id}",
        "DELETE /annotators/{annotator_id}/judgments",
        "DELETE /runs/{run_id}",
        "DELETE /snapshots/{snapshot_id}",
        "DELETE /rerankers/{reranker_id}",
    ),
    "restore-project": ("POST /archived-projects/{archived}/restore",),
    "admin:labeling_membership_changelist": (f"PATCH {P}/members/{{user_id}}", f"DELETE {P}/members/{{user_id}}"),
    "admin:labeling_accesslink_changelist": (f"DELETE {P}/invitations/{{link_id}}",),
    "admin:workers_run_changelist": ("POST /runs/{run_id}/{action}",),
    "admin:workers_judgingtask_changelist": (f"POST {P}/failures/retry",),
    "admin:workers_endpointdefinition_changelist": ("POST /endpoints/{name}/retire", "POST /endpoints/{name}/restore"),
    "admin:auth_user_changelist": ("GET /users", "PATCH /users/{user_id}"),
    "admin:auth_user_add": ("POST /users",),
    "admin:auth_user_change": ("PATCH /users/{user_id}",),
    "purge-project": ("DELETE /archived-projects/{archived}",),
    "delete-account": ("DELETE /users/{user_id}",),
    "adjudicate": (f"PUT {P}/pairs/{{pair_id}}/verdict", f"DELETE {P}/pairs/{{pair_id}}/verdict"),
}
RANKING = "an interface for programs itself, outside /api/v1"
WITHOUT: dict[str, str] = {
    "admin:labeling_apitoken_changelist": "no operation: a program revokes its own user's keys alone",
    "second-factor": "a session of a browser has one; DELETE /users/{user_id}/second-factor resets it",
    "sign-out": "ends a browser's session; a program revokes its key",
    "sessions": "no operation yet: a program with a key has no session",
    "profile": "a password belongs to a person and is changed in a session",
    "set-language": "the language of a browser's pages",
    "query-views": "names of addresses of the site's own list",
    "try-reranker": "POST /v1/rerank does the same for programs",
    **dict.fromkeys(
        ("rerank-embeddings", "rerank-embed", "rerank-named", "rerank-v1", "rerank-v2", "rerank-tei", "rerank-llama-v1", "rerank-llama", "rerank-score-v1",
         "rerank-score"), RANKING,
    ),
}  # fmt: skip


def changing_pages() -> set[str]:
    """Names of all pages that the table of rights lists with POST, which a test there keeps complete."""
    tree = ast.parse((Path(__file__).parent / "test_rights.py").read_text(encoding="utf-8"))
    tables = {
        node.target.id if isinstance(node, ast.AnnAssign) else node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign | ast.Assign)
        and isinstance(node.target if isinstance(node, ast.AnnAssign) else node.targets[0], ast.Name)
    }
    pages = tables["PAGES"]
    assert isinstance(pages, ast.Dict)
    found = set()
    for key, value in zip(pages.keys, pages.values, strict=True):
        table = tables[value.id] if isinstance(value, ast.Name) else value
        assert isinstance(key, ast.Constant) and isinstance(table, ast.Dict)
        if "POST" in {each.value for each in table.keys if isinstance(each, ast.Constant)}:
            found.add(str(key.value))
    return found
