"""What a row of the tables of audit entries is, and what several of its rows send."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labeling.access.accounts import deactivate_account, set_superuser
from labeling.models import Membership
from tests.factories.world.changes import (
    a_failed_question,
    a_key,
    a_paused_run,
    a_superuser,
)
from tests.factories.world.deployments import make_logged_request
from tests.factories.world.site import World
from trainer.models import Deployment
from workers.models import EndpointDefinition, JudgingTask

HOOK = "https://hooks.example.org/other"
OUTSIDE = json.dumps([{"name": "theirs", "url": "http://127.0.0.1:9/rerank", "model": "x"}])


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
