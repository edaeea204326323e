"""Every address that changes something writes its audit entry, by page and by REST, and the commands leave the same.

A new address fails here until it stands in a table: say which entries it leaves, or why it leaves none.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from labeling.access.accounts import deactivate_account, set_superuser
from labeling.models import AuditEntry, Membership, Project
from tests.factories.world.changes import (
    DATA,
    a_code,
    a_failed_question,
    a_gold_plan,
    a_gold_verdict,
    a_held_back_student,
    a_judge_at_work,
    a_judge_to_teach,
    a_key,
    a_password,
    a_paused_judge,
    a_paused_person,
    a_paused_run,
    a_retired_endpoint,
    a_retired_judge,
    a_run_file,
    a_run_to_delete,
    a_second_factor,
    a_sign_in_link,
    a_stopped_training,
    a_student_to_refine,
    a_superuser,
    a_verdict,
    an_account,
    an_archive,
    an_exported_project,
    an_open_distillation,
    an_open_recipe,
    an_open_refinement,
    an_open_teaching,
    gold,
    grades_before,
    new_data,
    new_grades,
    no_job,
    nobody_asked,
    recorded_answers,
    rows_to_learn_from,
    scores,
    the_project,
)
from tests.factories.world.deployments import make_logged_request
from tests.factories.world.site import EVERY_OPERATION, EVERY_PAGE, World, make_world
from trainer.models import Deployment
from workers.models import EndpointDefinition, JudgingTask
from zelo_site.pages.people.people import ACTIONS as ACTIONS_ON_PEOPLE
from zelo_site.templatetags.audit import ACTION_LABELS

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]

HOOK = "https://hooks.example.org/other"
OUTSIDE = json.dumps([{"name": "theirs", "url": "http://127.0.0.1:9/rerank", "model": "x"}])


# --- the tables --------------------------------------------------------------------------


@dataclass(frozen=True)
class Writes:
    """A request and the entries that it must leave. `address`: a page's name, or an operation of the REST interface.

    `sent` are fields of the form or of the JSON body; "{...}" names something of the world, a function makes a file.
    `by` is who asks, and whom the entries must name; None: a visitor who is not signed in.
    """

    address: str
    entries: tuple[str, ...]
    sent: Any = None
    arrange: Callable[[World], None] = lambda world: None
    kwargs: Any = None
    by: str | None = "owner"
    is_committed: bool = False

    def __str__(self) -> str:
        said = (self.sent or {}).get("action", "") if isinstance(self.sent, dict) else ""
        return " ".join(filter(None, [self.address, str(said), *map(str, (self.kwargs or {}).values()), *self.entries]))


NEW_PASSWORD = {"new_password1": "quite long enough 7", "new_password2": "quite long enough 7"}
SETTINGS = {"name": "renamed", "instruction": "Be strict.", "rater": "thurstone", "cap-calls": "500"}
RULES = {
    "gold_every": "20", "gold_feedback": "hidden", "gold_answers": "5", "gold_accuracy": "70", "gold_tolerance": "0.25",
    "lease_s": "300",
}  # fmt: skip
JUDGES = {"judge": "test-longer"}
SHARES = {"variant_share": "0", "shadow_share": "0", "log_share": "0", "log_days": "30"}
RUN = {"judges": [{"plugin": "test-longer"}]}

USERS = "admin:auth_user_changelist"
MEMBERSHIPS = "admin:labeling_membership_changelist"
RUNS = "admin:workers_run_changelist"
ENDPOINTS = "admin:workers_endpointdefinition_changelist"
NAMES = {"full_name": "Emmy", "email": "emmy@example.org", "_save": "Save"}


def chosen(action: str, row: Any) -> dict[str, Any]:
    """What a list of the admin sends for an action on one row, its question answered."""
    return {"action": action, "_selected_action": row, "index": "0", "confirmed": "yes"}


def the_membership(world: World) -> str:
    return str(Membership.objects.get(user=world.users["viewer"]).pk)


def the_dead_letter(world: World) -> str:
    return str(JudgingTask.objects.get(state="dead").pk)


def the_endpoint(world: World) -> str:
    return str(EndpointDefinition.objects.get(name="stored").pk)


def a_logged_request(world: World) -> None:
    documents = [{"text": "goldfish in a pond", "place": 1, "score": 0.9}]
    make_logged_request(Deployment.objects.get(), query="what do goldfish eat", documents=documents)


def a_key_and_superuser(world: World) -> None:
    a_superuser(world)
    a_key(world)


def a_dead_letter_and_superuser(world: World) -> None:
    a_superuser(world)
    a_failed_question(world)


def a_paused_run_and_superuser(world: World) -> None:
    a_superuser(world)
    a_paused_run(world)


def a_deactivated_viewer(world: World) -> None:
    a_superuser(world)
    deactivate_account(world.users["viewer"])


def another_superuser(world: World) -> None:
    a_superuser(world)
    set_superuser(world.users["viewer"], True)


ADMIN = [
    Writes("admin:auth_user_add", ("account.created", "account.link_made"), {"username": "emmy", **NAMES}, a_superuser),
    Writes("admin:auth_user_change", ("account.changed",), {"username": "emmy", **NAMES}, a_superuser),
    Writes(USERS, ("account.deactivated",), chosen("deactivate", "{user_id}"), a_superuser),
    Writes(USERS, ("account.activated",), chosen("activate", "{user_id}"), a_deactivated_viewer),
    Writes(USERS, ("account.reset", "account.link_made"), chosen("reset", "{user_id}"), a_superuser),
    Writes(USERS, ("account.link_made",), chosen("sign_in_link", "{user_id}"), a_superuser),
    Writes(USERS, ("account.superuser",), chosen("grant", "{user_id}"), a_superuser),
    Writes(USERS, ("account.superuser_ended",), chosen("withdraw", "{user_id}"), another_superuser),
    Writes(MEMBERSHIPS, ("member.role",), chosen("make_owner", the_membership), a_superuser),
    Writes(MEMBERSHIPS, ("member.role",), chosen("make_annotator", the_membership), a_superuser),
    Writes(MEMBERSHIPS, (), chosen("make_viewer", the_membership), a_superuser),
    Writes(MEMBERSHIPS, ("member.removed",), chosen("remove", the_membership), a_superuser),
    Writes(
        "admin:labeling_accesslink_changelist",
        ("member.invitation_revoked",),
        chosen("revoke", "{link_id}"),
        a_superuser,
    ),
    Writes("admin:labeling_apitoken_changelist", ("key.revoked",), chosen("revoke", "{key_id}"), a_key_and_superuser),
    Writes(RUNS, ("run.paused",), chosen("pause", "{run_id}"), a_superuser),
    Writes(RUNS, ("run.resumed",), chosen("resume", "{run_id}"), a_paused_run_and_superuser),
    Writes(RUNS, ("run.cancelled",), chosen("cancel", "{run_id}"), a_superuser),
    Writes(
        "admin:workers_judgingtask_changelist",
        ("tasks.requeued",),
        chosen("retry", the_dead_letter),
        a_dead_letter_and_superuser,
    ),
    Writes(ENDPOINTS, ("endpoint.retired",), chosen("retire", the_endpoint), a_superuser),
    Writes(ENDPOINTS, ("endpoint.restored",), chosen("restore", the_endpoint), a_retired_endpoint),
]

PAGES = [
    *ADMIN,
    Writes(
        "sign-in", ("account.signed_in",), {"username": "owner", "password": "long and secret"}, a_password, by=None
    ),
    Writes("enter", ("account.link_used", "account.signed_in"), {}, a_sign_in_link, by=None),
    Writes("enter", ("member.joined", "account.signed_in"), {"name": "Emmy"}, by=None),
    Writes("enter", ("member.joined",), {}, by="stranger"),
    Writes("profile", ("account.password_set",), NEW_PASSWORD),
    Writes("sessions", ("account.session_ended",), {"action": "others"}),
    Writes("profile", ("account.changed",), {"action": "names", "username": "emmy", "full_name": "", "email": ""}),
    Writes("tokens", ("key.made",), {"name": "new", "scope": "read"}),
    Writes("tokens", ("key.revoked",), {"action": "revoke", "token": "{key_id}"}, a_key),
    Writes("new-project", ("project.created", "data.imported"), {"name": "another", "text": DATA}),
    Writes("settings", ("project.changed", "project.caps"), SETTINGS),
    Writes("webhooks", ("webhook.added",), {"url": HOOK, "events": "run.finished"}),
    Writes("webhook", ("webhook.changed",), {"url": HOOK, "events": "training.finished", "is_active": "on"}),
    Writes("move-webhook", ("webhook.tested",), kwargs={"move": "test"}),
    Writes("move-webhook", ("webhook.secret_replaced",), kwargs={"move": "secret"}),
    Writes("move-webhook", ("webhook.deleted",), kwargs={"move": "delete"}),
    Writes("import", ("data.imported",), {"file": new_data}),
    Writes("import", ("grades.replaced",), {"grades": new_grades}, grades_before),
    Writes("download", ("judgments.exported",), kwargs={"exporter": "judgments-csv"}),
    Writes("candidates", ("candidates.ordered",), {}, no_job),
    Writes("new-run", ("run.started",), JUDGES),
    Writes("ask-pair", ("spot_checks.planned",), {"whom": "person"}, nobody_asked),
    Writes("ask-pair", ("run.started",), {"whom": "judges"}, a_judge_at_work),
    Writes("bulk-queries", ("query.excluded",), {"action": "exclude", "query": "{query_id}"}),
    Writes("bulk-queries", ("query.deleted",), {"action": "delete", "query": "{query_id}"}),
    Writes("queue-next", ("run.started",), {}, scores),
    Writes("ask-conflicts", ("run.started",), {}, scores),
    Writes("move-run", ("run.paused",), kwargs={"action": "pause"}),
    Writes("move-run", ("run.resumed",), {}, a_paused_run, {"action": "resume"}),
    Writes("move-run", ("run.cancelled",), kwargs={"action": "cancel"}),
    Writes("move-run", ("tasks.requeued",), {}, a_failed_question, {"action": "retry"}),
    Writes("budget", ("run.budget",), {"call_budget": "7"}),
    Writes("cancel-batch", ("batch.cancelled",)),
    Writes("failures", ("tasks.requeued",), {}, a_failed_question),
    Writes("scorecard", ("judge.paused",), {"judge": "{annotator_id}", "action": "pause"}),
    Writes("scorecard", ("judge.resumed",), {"judge": "{annotator_id}", "action": "resume"}, a_paused_judge),
    Writes("scorecard", ("judge.resumed",), {"judge": "{annotator_id}", "action": "retry"}, a_paused_judge),
    Writes("trials", ("trial.ordered",), {"judge": "{annotator_id}"}, a_judge_at_work),
    Writes(
        "teachings", ("teaching.ordered",), {"judge": "{annotator_id}", "examples": "4", "pairs": "6"}, a_judge_to_teach
    ),
    Writes("cancel-teaching", ("teaching.cancelled",), {}, an_open_teaching),
    Writes("new-trial", ("trial.ordered",), {"try": "test-longer"}),
    Writes("scale", ("calibration.ordered",), {}, scores),
    Writes("recordings", ("recording.uploaded",), {"action": "upload", "file": recorded_answers}),
    Writes("probes", ("probe.ordered",), {"judge": "{annotator_id}", "payload": "neutral"}, scores),
    Writes("distill", ("run.started", "distillation.ordered"), {"judge": "{annotator_id}"}),
    Writes("refine", ("refinement.ordered",), {"judge": "{annotator_id}"}, a_student_to_refine),
    Writes("move-refinement", ("refinement.cancelled",), {}, an_open_refinement, {"move": "cancel"}),
    Writes("move-refinement", ("refinement.resumed",), {}, kwargs={"move": "resume"}),
    Writes("recipe", ("recipe.ordered",), {"judge": "{annotator_id}", "do": "start"}),
    Writes("move-recipe", ("recipe.cancelled",), {}, an_open_recipe, {"move": "cancel"}),
    Writes("move-recipe", ("recipe.resumed",), {}, kwargs={"move": "resume"}),
    Writes("move-distillation", ("distillation.cancelled",), {}, an_open_distillation, {"move": "cancel"}),
    Writes("move-distillation", ("run.started", "distillation.resumed"), {}, kwargs={"move": "resume"}),
    Writes("snapshots", ("snapshot.frozen",), {"name": "Winter"}, scores, is_committed=True),
    Writes("training", ("training.ordered",), {"snapshot": "{snapshot_id}"}, rows_to_learn_from),
    Writes("move-training", ("training.cancelled",), kwargs={"move": "cancel"}),
    Writes("move-training", ("training.resumed",), {}, a_stopped_training, {"move": "resume"}),
    Writes("second-factor", ("account.second_factor_on", "account.session_ended"), {"action": "on", "code": a_code}),
    Writes(USERS, ("account.second_factor_off",), chosen("reset_second_factor", "{user_id}"), a_second_factor),
    Writes("limits", ("limit.set",), {"action": "set", "period": "day", "calls": "5"}, a_superuser),
    Writes("limits", ("limit.removed",), {"action": "remove", "limit": "{limit_id}"}, a_superuser),
    Writes("limits", ("endpoint.projects",), {"action": "projects", "name": "stored", "who": "some"}, a_superuser),
    Writes("new-endpoint", ("endpoint.added",), {"name": "new", "base_url": "http://127.0.0.1:9/v1"}, a_superuser),
    Writes(
        "endpoint", ("endpoint.changed",), {"base_url": "http://127.0.0.1:8/v1", "key": "k-1234567890"}, a_superuser
    ),
    Writes("test-endpoint", ("endpoint.tested",), {}, a_superuser),
    Writes("move-endpoint", ("endpoint.retired",), {}, a_superuser, {"move": "retire"}),
    Writes("move-endpoint", ("endpoint.restored",), {}, a_retired_endpoint, {"move": "restore"}),
    Writes("deployments", ("deployment.created",), {"name": "shop", "version": "{version_id}"}),
    Writes("deployment", ("deployment.changed",), {**SHARES, "log_share": "10"}),
    Writes("deployment", (), SHARES),
    Writes("move-deployment", ("deployment.deployed",), {"version": "{reranker_id}"}, kwargs={"move": "deploy"}),
    Writes("move-deployment", ("deployment.rolled_back",), kwargs={"move": "rollback"}),
    Writes("move-deployment", ("data.imported",), {}, a_logged_request, {"move": "import"}),
    Writes("move-deployment", ("deployment.log_cleared",), kwargs={"move": "clear"}),
    Writes("move-deployment", ("deployment.deleted",), kwargs={"move": "delete"}),
    Writes("move-training", ("reranker.published_anyway",), {}, a_held_back_student, {"move": "publish"}),
    Writes("proof", ("reranker.entered",), {"action": "outside", "endpoint": "theirs"}),
    Writes("proof", ("reranker.entered",), {"action": "run_file", "run": a_run_file}),
    Writes("proof", ("evaluation.ordered",), {"action": "evaluate", "snapshot": "{snapshot_id}"}),
    Writes("people", ("member.invited",), {"action": "invite", "role": "viewer"}),
    Writes("people", ("member.invitation_revoked",), {"action": "revoke", "link": "{link_id}"}),
    Writes("people", ("member.invitation_revoked", "member.invited"), {"action": "renew", "link": "{link_id}"}),
    Writes("people", ("account.link_made",), {"action": "sign_in_link", "user": "{user_id}"}),
    Writes("people", ("member.role",), {"action": "role", "user": "{user_id}", "role": "annotator"}),
    Writes("people", ("member.removed",), {"action": "remove", "user": "{user_id}"}),
    Writes("people", ("member.quota",), {"action": "quota", "user": "{user_id}", "quota": "5"}),
    Writes("people", ("member.resumed",), {"action": "resume", "user": "{user_id}"}, a_paused_person),
    Writes("people", ("spot_checks.planned",), {"action": "plan", "reason": "random", "pairs": "1", "overlap": "2"}),
    Writes(
        "people", ("spot_checks.planned", "pair.gold"), {"action": "plan", "reason": "gold", "pairs": "1"}, a_verdict
    ),
    Writes("people", ("spot_checks.withdrawn",), {"action": "withdraw", "plan": "{plan_id}"}),
    Writes(
        "people",
        ("spot_checks.withdrawn", "pair.gold_removed"),
        {"action": "withdraw", "plan": "{plan_id}"},
        a_gold_plan,
    ),
    Writes("people", ("people.rules",), {"action": "rules", **RULES}),
    Writes("adjudicate", ("pair.adjudicated",), {"verdict": "1"}),
    Writes("adjudicate", ("pair.adjudicated", "pair.gold"), {"verdict": "1", "gold": "on"}),
    Writes("adjudicate", ("pair.adjudicated", "pair.gold_removed"), {"verdict": "0"}, gold),
    Writes("adjudicate", ("pair.adjudication_undone",), {"action": "undo"}, a_verdict),
    Writes("adjudicate", ("pair.adjudication_undone", "pair.gold_removed"), {"action": "undo"}, a_gold_verdict),
    Writes("adjudicate", ("pair.gold",), {"action": "gold"}, a_verdict),
    Writes("adjudicate", ("pair.gold_removed",), {"action": "not-gold"}, a_gold_verdict),
    Writes("scorecard", ("judge.retired",), {"judge": "{annotator_id}", "action": "retire"}),
    Writes("scorecard", ("judge.restored",), {"judge": "{annotator_id}", "action": "restore"}, a_retired_judge),
    Writes("delete", ("query.deleted",), {}, kwargs={"what": "query"}),
    Writes("delete", ("run.cancelled", "run.deleted"), {}, a_run_to_delete, {"what": "run"}),
    Writes("delete-project", ("run.paused", "training.cancelled", "project.archived"), {"confirm": "{slug}"}),
    Writes("restore-project", ("project.restored",), {}),
    Writes("purge-project", ("project.purge_ordered",), {"confirm": "{archived}"}),
    Writes("delete-account", ("member.removed", "account.deleted"), {"confirm": "{viewer}"}, an_account, by="viewer"),
    Writes("export-archive", ("project.exported",), {}),
    Writes("import-archive", ("project.created", "project.import_ordered"), {"file": an_archive}, an_exported_project),
    Writes("mark-gold", ("pair.gold",), {"answer": "left_clearly"}),
    Writes("mark-gold", ("pair.gold_removed",), {"answer": ""}, gold),
]

OPERATIONS = [
    Writes("POST /projects", ("project.created",), {"name": "another"}),
    Writes("PATCH /projects/{slug}", ("project.changed",), {"name": "renamed"}),
    Writes("POST /projects/{slug}/imports", ("data.imported",), {"file": new_data}),
    Writes("POST /projects/{slug}/webhooks", ("webhook.added",), {"url": HOOK, "events": ["run.finished"]}),
    Writes("PATCH /projects/{slug}/webhooks/{webhook_id}", ("webhook.changed",), {"is_active": False}),
    Writes("DELETE /projects/{slug}/webhooks/{webhook_id}", ("webhook.deleted",)),
    Writes("POST /projects/{slug}/webhooks/{webhook_id}/secret", ("webhook.secret_replaced",)),
    Writes("POST /projects/{slug}/webhooks/{webhook_id}/test", ("webhook.tested",)),
    Writes("POST /users", ("account.created", "account.link_made"), {"username": "new"}, a_superuser),
    Writes("PATCH /users/{user_id}", ("account.deactivated",), {"is_active": False}, a_superuser),
    Writes("POST /users/{user_id}/reset", ("account.reset", "account.link_made"), {}, a_superuser),
    Writes("POST /projects/{slug}/trials", ("trial.ordered",), {"plugin": "test-longer"}, a_judge_at_work),
    Writes("PUT /projects/{slug}/pairs/{pair_id}/gold", ("pair.gold",), {"answer": "left_clearly"}),
    Writes("DELETE /projects/{slug}/pairs/{pair_id}/gold", ("pair.gold_removed",), None, gold),
    Writes("POST /keys", ("key.made",), {"name": "new"}),
    Writes("DELETE /keys/{key_id}", ("key.revoked",), {}, a_key),
    Writes("POST /projects/{slug}/runs", ("run.started",), RUN),
    Writes("POST /projects/{slug}/calibrations", ("calibration.ordered",), {}, scores),
    Writes("POST /projects/{slug}/candidates", ("candidates.ordered",), {"retriever": "bm25"}, no_job),
    Writes("POST /projects/{slug}/distillations", ("run.started", "distillation.ordered"), RUN),
    Writes("POST /projects/{slug}/rerankers/{reranker_id}/refinements", ("refinement.ordered",), RUN, a_student_to_refine),
    Writes("POST /refinements/{refinement_id}/{move}", ("refinement.cancelled",), None, an_open_refinement, {"move": "cancel"}),
    Writes("POST /refinements/{refinement_id}/{move}", ("refinement.resumed",), kwargs={"move": "resume"}),
    Writes("POST /projects/{slug}/recipes", ("recipe.ordered",), RUN),
    Writes("POST /recipes/{recipe_id}/{move}", ("recipe.cancelled",), None, an_open_recipe, {"move": "cancel"}),
    Writes("POST /recipes/{recipe_id}/{move}", ("recipe.resumed",), kwargs={"move": "resume"}),
    Writes("POST /distillations/{distillation_id}/{move}", ("distillation.cancelled",), None, an_open_distillation, {"move": "cancel"}),
    Writes("POST /distillations/{distillation_id}/{move}", ("run.started", "distillation.resumed"), kwargs={"move": "resume"}),
    Writes("PATCH /runs/{run_id}", ("run.budget",), {"call_budget": 7}),
    Writes("PATCH /projects/{slug}/caps", ("project.caps",), {"calls": 500}),
    Writes("POST /runs/{run_id}/{action}", ("run.paused",), kwargs={"action": "pause"}),
    Writes("POST /runs/{run_id}/{action}", ("run.resumed",), None, a_paused_run, {"action": "resume"}),
    Writes("POST /runs/{run_id}/{action}", ("run.cancelled",), kwargs={"action": "cancel"}),
    Writes("POST /runs/{run_id}/failures/retry", ("tasks.requeued",), None, a_failed_question),
    Writes("POST /projects/{slug}/batches/{batch_id}/cancel", ("batch.cancelled",)),
    Writes("POST /projects/{slug}/failures/retry", ("tasks.requeued",), None, a_failed_question),
    Writes("POST /projects/{slug}/judges/{annotator_id}/pause", ("judge.paused",), {}),
    Writes("POST /projects/{slug}/judges/{annotator_id}/resume", ("judge.resumed",), None, a_paused_judge),
    Writes("POST /projects/{slug}/judges/{annotator_id}/retry", ("judge.resumed",), None, a_paused_judge),
    Writes("POST /projects/{slug}/judges/{annotator_id}/trials", ("trial.ordered",), None, a_judge_at_work),
    Writes("POST /projects/{slug}/judges/{annotator_id}/teachings", ("teaching.ordered",), {}, a_judge_to_teach),
    Writes("POST /projects/{slug}/teachings/{teaching_id}/cancel", ("teaching.cancelled",), None, an_open_teaching),
    Writes("POST /projects/{slug}/snapshots", ("snapshot.frozen",), {"name": "Winter"}, scores, is_committed=True),
    Writes("POST /projects/{slug}/trainings", ("training.ordered",), {"snapshot_id": "{snapshot_id}"}, rows_to_learn_from),
    Writes("POST /trainings/{training_id}/cancel", ("training.cancelled",)),
    Writes("POST /trainings/{training_id}/resume", ("training.resumed",), None, a_stopped_training),
    Writes("POST /projects/{slug}/deployments", ("deployment.created",), {"name": "shop", "reranker_id": "{version_id}"}),
    Writes("PATCH /projects/{slug}/deployments/{deployment_id}", ("deployment.changed",), {"variant_id": "{reranker_id}", "variant_share": 10}),
    Writes("POST /projects/{slug}/deployments/{deployment_id}/deploy", ("deployment.deployed",), {"reranker_id": "{reranker_id}"}),
    Writes("POST /projects/{slug}/deployments/{deployment_id}/rollback", ("deployment.rolled_back",)),
    Writes("POST /projects/{slug}/deployments/{deployment_id}/import", ("data.imported",), {}, a_logged_request),
    Writes("DELETE /projects/{slug}/deployments/{deployment_id}/requests", ("deployment.log_cleared",)),
    Writes("DELETE /projects/{slug}/deployments/{deployment_id}", ("deployment.deleted",)),
    Writes("POST /trainings/{training_id}/publish", ("reranker.published_anyway",), None, a_held_back_student),
    Writes("POST /projects/{slug}/evaluations", ("evaluation.ordered",), {"snapshot": "{snapshot_id}"}),
    Writes("POST /projects/{slug}/entries/outside", ("reranker.entered",), {"endpoint": "theirs"}),
    Writes("POST /projects/{slug}/entries/run", ("reranker.entered",), {"file": a_run_file}),
    Writes("PATCH /projects/{slug}/members/{user_id}", ("member.role", "member.quota"), {"role": "annotator", "quota": 5}),
    Writes("PATCH /projects/{slug}/members/{user_id}", ("member.resumed",), {"paused": False}, a_paused_person),
    Writes("DELETE /projects/{slug}/members/{user_id}", ("member.removed",)),
    Writes("POST /projects/{slug}/invitations", ("member.invited",), {"role": "viewer"}),
    Writes("DELETE /projects/{slug}/invitations/{link_id}", ("member.invitation_revoked",)),
    Writes("PATCH /projects/{slug}/rules", ("people.rules",), {"gold_every": 20}),
    Writes("POST /projects/{slug}/spot-checks", ("spot_checks.planned",), {"reason": "random", "pairs": 1, "overlap": 2}),
    Writes("DELETE /projects/{slug}/spot-checks/{plan_id}", ("spot_checks.withdrawn",)),
    Writes("PUT /projects/{slug}/pairs/{pair_id}/verdict", ("pair.adjudicated",), {"answer": "1"}),
    Writes("PUT /projects/{slug}/pairs/{pair_id}/verdict", ("pair.adjudicated", "pair.gold"), {"answer": "1", "gold": True}),
    Writes("DELETE /projects/{slug}/pairs/{pair_id}/verdict", ("pair.adjudication_undone",), None, a_verdict),
    Writes("POST /projects/{slug}/recordings", ("recording.uploaded",), {"file": recorded_answers}),
    Writes("POST /projects/{slug}/probes", ("probe.ordered",), {"annotator_id": "{annotator_id}"}, scores),
    Writes("DELETE /users/{user_id}/second-factor", ("account.second_factor_off",), None, a_second_factor),
    Writes("PUT /limits", ("limit.set",), {"endpoint": "stored", "calls": 5}, a_superuser),
    Writes("DELETE /limits/{limit_id}", ("limit.removed",), None, a_superuser),
    Writes("PUT /endpoints/{name}/projects", ("endpoint.projects",), {"projects": []}, a_superuser),
    Writes("POST /endpoints", ("endpoint.added",), {"name": "new", "base_url": "http://127.0.0.1:9/v1"}, a_superuser),
    Writes("PATCH /endpoints/{name}", ("endpoint.changed",), {"settings": {"rpm": 7}}, a_superuser),
    Writes("POST /endpoints/{name}/test", ("endpoint.tested",), {}, a_superuser),
    Writes("POST /endpoints/{name}/retire", ("endpoint.retired",), None, a_superuser),
    Writes("POST /endpoints/{name}/restore", ("endpoint.restored",), None, a_retired_endpoint),
    Writes("POST /projects/{slug}/pairs/{pair_id}/ask", ("spot_checks.planned",), {"whom": "person"}, nobody_asked),
    Writes("POST /projects/{slug}/queries/{change}", ("query.excluded",), {"queries": lambda world: [world.known["query_id"]]}, kwargs={"change": "exclude"}),
    Writes("DELETE /queries/{query_id}", ("query.deleted",)),
    Writes("DELETE /documents/{document_id}", ("document.deleted",)),
    Writes("DELETE /candidates/{candidate_id}", ("candidate.deleted",)),
    Writes("DELETE /annotators/{annotator_id}/judgments", ("answers.deleted",)),
    Writes("DELETE /runs/{run_id}", ("run.cancelled", "run.deleted"), None, a_run_to_delete),
    Writes("DELETE /snapshots/{snapshot_id}", ("training.cancelled", "snapshot.deleted")),
    Writes("DELETE /rerankers/{reranker_id}", ("reranker.deleted",)),
    Writes("POST /annotators/{annotator_id}/retire", ("judge.retired",)),
    Writes("POST /annotators/{annotator_id}/restore", ("judge.restored",), None, a_retired_judge),
    Writes("DELETE /projects/{slug}", ("run.paused", "training.cancelled", "project.archived")),
    Writes("POST /archived-projects/{archived}/restore", ("project.restored",)),
    Writes("DELETE /archived-projects/{archived}", ("project.purge_ordered",)),
    Writes("DELETE /users/{user_id}", ("member.removed", "account.deleted"), None, an_account, by="viewer"),
    Writes("POST /archives", ("project.created", "project.import_ordered"), {"file": an_archive}, an_exported_project),
    # Reading all of it at once is recorded as well.
    Writes("GET /projects/{slug}/archive", ("project.exported",)),
    Writes("GET /projects/{slug}/exports/{exporter}", ("scores.exported",)),
    Writes("GET /projects/{slug}/judgments", ("judgments.exported",)),
]  # fmt: skip

EXEMPT = {
    "sign-out": "ends one's own session; the sign-in is recorded",
    "set-language": "the language of one's own pages",
    "query-views": "names of one's own views",
    "preview-import": "reads the file and stores nothing",
    "estimate": "computes and stores nothing",
    "instruction": "one's own confirmation, which the annotator's row keeps",
    "try-reranker": "ranks what was typed and stores nothing",
    "rerank-embeddings": "embeds and stores nothing",
    "rerank-embed": "embeds and stores nothing",
    "rerank-named": "ranks and stores nothing",
    "rerank-v1": "ranks and stores nothing",
    "rerank-v2": "ranks and stores nothing",
    "rerank-tei": "ranks and stores nothing",
    "rerank-llama-v1": "ranks and stores nothing",
    "rerank-llama": "ranks and stores nothing",
    "rerank-score-v1": "scores and stores nothing",
    "rerank-score": "scores and stores nothing",
    "compare-next": "assigns pairs to oneself; the assignment is a row of its own",
    "compare-answer": "one's own judgment, which carries annotator and time and is never overwritten",
    "compare-undo": "supersedes one's own judgment, which stays",
    "compare-skip": "passes one's own assignment on; the past assignment stays",
    "compare-heartbeat": "renews one's own assignments",
    "POST /projects/{slug}/runs/estimate": "computes and stores nothing",
    "POST /projects/{slug}/instruction": "one's own confirmation, which the annotator's row keeps",
    "POST /projects/{slug}/assignments": "assigns pairs to oneself; the assignment is a row of its own",
    "POST /projects/{slug}/assignments/leases": "renews one's own assignments",
    "POST /projects/{slug}/assignments/{slot}/answer": "one's own judgment, which is never overwritten",
    "POST /projects/{slug}/assignments/{slot}/skip": "passes one's own assignment on; the past assignment stays",
    "POST /projects/{slug}/assignments/{slot}/undo": "supersedes one's own judgment, which stays",
    "POST /projects/{slug}/spot-checks/preview": "computes and stores nothing",
    "POST /projects/{slug}/{kind}/bulk": "its body is JSON lines; tests/zelo_site/api/test_texts.py checks its entry",
    "POST /projects/{slug}/imports/preview": "reads the file and stores nothing",
}

READ_ONLY = {
    "docs", "doc", "doc-image", "find",
    "admin:index", "admin:storage", "admin:plugins", "admin:jsi18n", "admin:workers_job_changelist", "admin:workers_worker_changelist",
    "admin:workers_endpointstate_changelist", "admin:labeling_auditentry_changelist", "admin:labeling_membership_change",
    "admin:labeling_accesslink_change", "admin:labeling_apitoken_change", "admin:workers_run_change", "admin:workers_judgingtask_change",
    "admin:workers_endpointdefinition_change", "admin:workers_job_change", "admin:workers_worker_change",
    "admin:workers_endpointstate_change", "admin:labeling_auditentry_change",
    "unknown-operation", "plugins", "projects", "jobs", "jobs-live", "doctor", "endpoints", "endpoint-models", "project", "project-live", "project-figures", "queries", "query", "charts", "chart", "chart-file",
    "query-ranking", "matrix", "graph", "where-next", "pair", "compare", "my-answers", "agreement", "training-run",
    "training-live", "moved", "rerankers", "rerank-models", "rerank-info", "health", "healthz", "readyz", "metrics", "unknown-address", "audit", "server-audit", "plan-preview",
    "archived", "report", "people-agreement", "imports", "left-out", "exports", "disagreements", "teaching", "trial", "project-story",
}  # fmt: skip


# --- the tables are complete -------------------------------------------------------------


def test_every_page_writes_an_entry_is_exempt_or_reads() -> None:
    writing = {each.address for each in PAGES}
    exempt = set(EXEMPT) & set(EVERY_PAGE)
    assert writing | exempt | READ_ONLY == set(EVERY_PAGE), "enter a new address in PAGES, EXEMPT or READ_ONLY"
    assert not writing & exempt and not READ_ONLY & (writing | exempt)


def test_every_operation_that_changes_writes_an_entry_or_is_exempt() -> None:
    writing = {each.address for each in OPERATIONS if not each.address.startswith("GET")}
    exempt = set(EXEMPT) & set(EVERY_OPERATION)
    changing = {operation for operation in EVERY_OPERATION if not operation.startswith("GET")}
    assert writing | exempt == changing, "enter a new operation in OPERATIONS or EXEMPT"
    assert not writing & exempt


def test_every_action_on_people_is_performed() -> None:
    performed = {each.sent["action"] for each in PAGES if each.address == "people"}
    assert performed == set(ACTIONS_ON_PEOPLE)


def test_every_action_in_the_source_has_a_label() -> None:
    root = Path(__file__).parents[2]
    written = {
        action
        for floor in ("labeling", "scoring", "trainer", "workers", "zelo_site")
        for file in (root / floor).rglob("*.py")
        for action in _noted(file)
    }
    assert {"run.started", "member.joined", "pair.gold"} <= written
    assert written <= set(ACTION_LABELS)


def _noted(file: Path) -> Iterator[str]:
    """Actions that a file passes to `note`, or to a helper of its own that does, as literals."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if "note" in getattr(node.func, "attr", getattr(node.func, "id", "")):
            texts = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)]
            yield from (text for text in texts if re.fullmatch(r"[a-z_]+\.[a-z_]+", str(text)))


@pytest.mark.parametrize("floor", ["zelo_site/pages", "zelo_site/api", "zelo_site/management", "labeling/management"])
def test_no_page_endpoint_or_command_writes_an_entry_itself(floor: str) -> None:
    root = Path(__file__).parents[2]
    writers = [
        str(file)
        for file in (root / floor).rglob("*.py")
        if re.search(r"labeling\.audit|import audit\b|AuditEntry\.objects\.(bulk_)?create", file.read_text())
    ]
    assert writers == []


# --- and true ----------------------------------------------------------------------------


@pytest.fixture
def world(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    monkeypatch.setenv("ZELO_RERANKERS", OUTSIDE)
    settings.ZELO_WEBHOOK_HOSTS = ["hooks.example.org"]
    return make_world()


def case(each: Writes) -> Any:
    marks = [pytest.mark.django_db(transaction=True)] if each.is_committed else []
    return pytest.param(each, marks=marks, id=str(each))


@pytest.mark.parametrize("writes", [case(each) for each in [*PAGES, *OPERATIONS]])
def test_it_leaves_exactly_its_entries(writes: Writes, world: World) -> None:
    writes.arrange(world)
    world.known.update(writes.kwargs or {})
    client = world.client(writes.by or "anonymous")
    latest = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
    answer = _ask(client, writes, world)
    assert answer.status_code < 400, answer.content.decode()[:500]
    if answer.streaming:
        b"".join(answer.streaming_content)
    entries = list(AuditEntry.objects.filter(id__gt=latest).order_by("id"))
    assert tuple(entry.action for entry in entries) == writes.entries
    assert set(writes.entries) <= set(ACTION_LABELS)
    for entry in entries:
        assert entry.subject or entry.project_id
        assert entry.actor_name
        if writes.by is not None and "account.deleted" not in writes.entries:  # an account that is gone leaves its name
            assert entry.actor == world.users[writes.by]


def _ask(client: Any, writes: Writes, world: World) -> HttpResponse:
    is_page = writes.address in EVERY_PAGE
    sent = {name: _value(value, world, as_text=is_page) for name, value in (writes.sent or {}).items()}
    if is_page:
        address = reverse(writes.address, kwargs={key: world.known[key] for key in EVERY_PAGE[writes.address]})
        return client.post(address, sent)
    method, _, path = writes.address.partition(" ")
    address = "/api/v1" + path.format(**world.known)
    if any(hasattr(value, "read") for value in sent.values()):
        return client.post(address, sent)
    return client.generic(method, address, "" if writes.sent is None else json.dumps(sent), "application/json")


def _value(value: Any, world: World, *, as_text: bool) -> Any:
    if callable(value):
        return value(world)
    if isinstance(value, str) and re.fullmatch(r"\{\w+\}", value):
        known = world.known[value[1:-1]]
        return str(known) if as_text else known
    return value


@pytest.mark.parametrize("name", sorted(READ_ONLY - {"agreement", "report"}))
def test_a_page_that_only_reads_stores_nothing_of_a_post(name: str, world: World) -> None:
    address = reverse(name, kwargs={key: world.known[key] for key in EVERY_PAGE[name]})
    client = world.client("owner")
    client.get(address)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        client.post(address)
    changes = [each["sql"] for each in queries if re.match(r"\s*(INSERT|UPDATE|DELETE)\b", each["sql"])]
    assert [sql for sql in changes if "django_session" not in sql] == []


# --- page, REST and command leave the same entry -----------------------------------------


def _latest(action: str) -> tuple[str, dict[str, Any]]:
    entry = AuditEntry.objects.filter(action=action).order_by("-id").first()
    assert entry is not None
    return entry.subject, entry.details


@pytest.mark.django_db(transaction=True)
def test_page_rest_and_command_leave_the_same_entry(world: World) -> None:
    project, client = the_project(world), world.client("owner")
    found = []
    for change in (
        lambda: client.post(reverse("settings", args=[project.slug]), {**SETTINGS, "instruction": ""}),
        lambda: client.patch(f"/api/v1/projects/{project.slug}", '{"name": "renamed"}', "application/json"),
        lambda: call_command("configure", project.slug, name="renamed", stdout=io.StringIO()),
    ):
        Project.objects.filter(pk=project.pk).update(name="before", instruction="")
        change()
        found.append(_latest("project.changed"))
    assert found == [(project.slug, {"name": "before → renamed"})] * 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("command", "arguments", "action"),
    [
        ("project", ["Another"], "project.created"),
        ("token", ["owner"], "key.made"),
        ("link", ["owner"], "account.link_made"),
        ("spot_checks", ["{slug}", "--reason", "random", "--pairs", "1", "--overlap", "2"], "spot_checks.planned"),
        ("configure", ["{slug}", "--calls", "500"], "project.caps"),
        ("limits", ["set", "--calls", "500"], "limit.set"),
        ("limits", ["projects", "stored", "--only", "{slug}"], "endpoint.projects"),
        ("delete", ["query", "{slug}", "{query_id}", "--yes"], "query.deleted"),
        ("delete", ["restore", "{archived}"], "project.restored"),
        ("delete", ["purge", "{archived}", "--yes"], "project.purge_ordered"),
        ("retire", ["{slug}", "{annotator_id}"], "judge.retired"),
        ("archive", ["export", "{slug}", "{folder}/out.zelo.gz"], "project.exported"),
        ("batches", ["{slug}", "--cancel", "{batch_id}"], "batch.cancelled"),
        ("export", ["{slug}", "--to", "{folder}/out.jsonl"], "scores.exported"),
        ("export", ["{slug}", "--to", "{folder}/out.jsonl", "--format", "judgments"], "judgments.exported"),
    ],
)
def test_a_command_leaves_the_entry_without_a_name(
    command: str, arguments: list[str], action: str, world: World, tmp_path: Path
) -> None:
    known = {**world.known, "folder": tmp_path}
    latest = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
    call_command(command, *(each.format(**known) for each in arguments), stdout=io.StringIO())
    entries = AuditEntry.objects.filter(id__gt=latest)
    assert [(entry.action, entry.actor_name) for entry in entries] == [(action, "")]
