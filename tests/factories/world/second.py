"""Two worlds in one database: ours, and that of strangers, whose ids a request of ours may name and must not reach.

`unlike` and `stands_as_before` show whether a request has disclosed or changed anything of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.apps import apps
from django.db import connection, models, transaction

from labeling.access.api_keys import make_token
from labeling.models import ApiToken
from tests.factories.world.site import make_world

# Their users and texts begin with this.
MARK = "zqtheirs-"
APPS = ("labeling", "scoring", "trainer", "workers")
# Parts of addresses that name no row, or a row of the whole server.
NO_ROWS = frozenset(
    {
        "move",
        "kind",
        "action",
        "what",
        "exporter",
        "name",
        "doc",
        "image",
        "model_name",
        "address",
        "chart",
        "suffix",
        "change",
    }
)
# The admin's row, which the admin opens to superusers alone; the token of a link, which anybody may hold.
OTHER_ROWS = frozenset({"object_id", "token"})


class Undone(Exception):
    """Ends the transaction of a request."""


class TwoWorlds:
    """`ours` and `theirs`; `rows` are the names of what differs between the two, so that an address can be wrong in each."""

    def __init__(self) -> None:
        self.theirs = make_world(MARK)
        self.last = {model: _last(model) for model in _models()}
        self.ours = make_world()
        for world in (self.theirs, self.ours):
            make_token(world.users["owner"], name="own")
            world.known["key_id"] = ApiToken.objects.get(user=world.users["owner"]).pk
        shared = NO_ROWS | OTHER_ROWS
        self.rows = {name for name in self.ours.known if self.ours.known[name] != self.theirs.known[name]} - shared
        self.before = self._state()

    def stands_as_before(self) -> bool:
        """Whether their rows are unchanged, and no new row refers to one of theirs."""
        return self._state() == self.before

    def _state(self) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(self._questions()))
            return sorted(cursor.fetchall(), key=str)

    def _questions(self) -> list[str]:
        """For each table: a hash of their rows, and how many rows there are that refer to one of theirs."""
        questions = []
        for model, last in self.last.items():
            table, key = model._meta.db_table, model._meta.pk.column
            targets = [
                (field.column, self.last[field.related_model])
                for field in model._meta.concrete_fields
                if field.is_relation and field.related_model in self.last
            ]
            referring = " + ".join(f"count(*) FILTER (WHERE {column} <= {most})" for column, most in targets) or "0"
            rows = f"md5(coalesce(string_agg(r::text, '|' ORDER BY {key}) FILTER (WHERE {key} <= {last}), ''))"
            questions.append(f"SELECT '{table}', {rows}, {referring} FROM {table} r")
        return questions


def _models() -> list[type[models.Model]]:
    """Every table of ours with a number as its key, tables between two others included."""
    found = [model for app in APPS for model in apps.get_app_config(app).get_models(include_auto_created=True)]
    return [model for model in found if isinstance(_key(model), models.IntegerField)]


def _key(model: type[models.Model]) -> models.Field[Any, Any]:
    key: Any = model._meta.pk
    return key.target_field if key.is_relation else key


def _last(model: type[models.Model]) -> int:
    return model._base_manager.order_by("-pk").values_list("pk", flat=True).first() or 0


def undone(send: Callable[[], Any], look: Callable[[], bool] = lambda: True) -> tuple[Any, bool]:
    """The answer of a request, whose changes are rolled back, and what `look` saw before they were, unless it was refused."""
    try:
        with transaction.atomic():
            answer = send()
            if answer.streaming:
                answer.zelo_text = b"".join(answer.streaming_content)
            seen = answer.status_code >= 400 or look()
            raise Undone
    except Undone:
        return answer, seen


def text_of(answer: Any) -> str:
    """The whole answer with its headers, as text."""
    content = getattr(answer, "zelo_text", None)
    body = (answer.content if content is None else content).decode("utf-8", "replace")
    return f"{answer.headers} {body}"
