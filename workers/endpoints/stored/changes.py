"""Changes the stored endpoints: add, change, retire, bring back, encrypt again. Page, REST and command call these.

A key is accepted and never returned. It is bound to the server it was entered for: a new host needs the key again, so that
nobody can send a stored key elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pydantic
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator
from workers.endpoints.registry import EndpointsInvalid, load_endpoints
from workers.endpoints.stored.encryption import SecretsUnreadable, decrypt, encrypt
from workers.endpoints.stored.rows import (
    NOT_STORED,
    SECRET_FIELDS,
    StoredEndpoint,
    bound_to,
    encryption_secrets,
    forget_stored,
    origin_of,
)
from workers.models import EndpointDefinition, ProviderBatch, Run

# Fields that a request may set, beside the name and what is secret.
SETTINGS = tuple(name for name in StoredEndpoint.model_fields if name not in {*NOT_STORED, *SECRET_FIELDS})
LONGEST_KEY, SHOWN_FROM, SHOWN = 4096, 12, 4


class EndpointRefused(ValueError):
    """The change was not made; `field` names the wrong value, "" where it is about the whole endpoint."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def find_definition(name: str) -> EndpointDefinition:
    """The row of that name. Raises EndpointRefused, which says where another one is defined."""
    row = EndpointDefinition.objects.filter(name=name).first() if "\x00" not in name else None
    if row is None:
        if name in environment_names():
            raise EndpointRefused(f"endpoint {name!r} is defined by ZELO_ENDPOINTS; change it there")
        raise EndpointRefused(f"no stored endpoint is named {name!r}")
    return row


def environment_names() -> set[str]:
    """The names that ZELO_ENDPOINTS defines; empty if it is not valid, which the doctor reports."""
    try:
        return set(load_endpoints(os.environ))
    except EndpointsInvalid:
        return set()


def add_endpoint(name: str, values: Mapping[str, Any], *, key: str = "", by: Any = None) -> EndpointDefinition:
    """Store a new endpoint. `values`: base_url, settings, secret fields. Raises EndpointRefused or EncryptionUnavailable."""
    if name in environment_names():
        raise EndpointRefused(f"ZELO_ENDPOINTS defines {name!r} already; choose another name", "name")
    endpoint = _checked(name, values)
    row = EndpointDefinition(name=endpoint.name, base_url=endpoint.base_url, settings=_settings(endpoint, values))
    _set_secrets(row, {"key": _checked_key(key), **_secret_values(endpoint, values)}, is_new_key=True)
    try:
        with transaction.atomic():
            row.save()
            audit.note("endpoint.added", project=None, actor=by, subject=row.name, **_shown(row))
    except IntegrityError:
        raise EndpointRefused(
            f"an endpoint named {name!r} exists already; change it, bring it back, or choose another name", "name"
        ) from None
    _announce()
    row.refresh_from_db()
    return row


def change_endpoint(
    name: str, values: Mapping[str, Any], *, key: str | None = None, by: Any = None
) -> EndpointDefinition:
    """Change what `values` names. `key`: a new one; "" removes it; None keeps it, which only the same host may.

    Raises EndpointRefused or EncryptionUnavailable.
    """
    find_definition(name)
    with transaction.atomic():
        row = EndpointDefinition.objects.select_for_update().get(name=name)
        before = _shown(row)
        merged = {**row.settings, "base_url": row.base_url, **values}
        endpoint = _checked(name, merged)
        given = _secret_values(endpoint, values) | ({} if key is None else {"key": _checked_key(key)})
        secrets = {**_kept_secrets(row, endpoint, given), **given}
        if endpoint.base_url != row.base_url:
            _check_no_batch(name)
        row.base_url, row.settings = endpoint.base_url, _settings(endpoint, merged)
        if given:
            _set_secrets(row, secrets, is_new_key=key is not None)
        row.changed_at = Now()
        row.save()
        row.refresh_from_db()
        changed = audit.changes(before, _shown(row))
        changed |= {field: "replaced" for field, value in given.items() if value and field not in changed}
        if changed:
            audit.note("endpoint.changed", project=None, actor=by, subject=row.name, **changed)
    _announce()
    return row


def _kept_secrets(row: EndpointDefinition, endpoint: StoredEndpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """The stored secrets that the change keeps. Raises EndpointRefused if they are for another host or unreadable."""
    stored = ["key"] * (row.key_set_at is not None) + [field for field in SECRET_FIELDS if row.secret_names.get(field)]
    kept = [field for field in stored if field not in given]
    if not kept:
        return {}
    if origin_of(endpoint.base_url) != origin_of(row.base_url):
        raise EndpointRefused(
            f"the stored {' and '.join(kept)} belong to {origin_of(row.base_url)} and are not sent to another host; "
            f"enter them again for {origin_of(endpoint.base_url)}, or remove them",
            kept[0],
        )
    if not given:
        return {}  # nothing is encrypted again
    try:
        values = decrypt(row.secrets, bound_to=bound_to(row.name, row.base_url), secrets=encryption_secrets())
    except SecretsUnreadable as error:
        raise EndpointRefused(
            f"the stored {' and '.join(kept)} cannot be read ({error}); enter them again, or remove them", kept[0]
        ) from None
    return {field: values[field] for field in kept}


def _check_no_batch(name: str) -> None:
    """Raise EndpointRefused while questions of this endpoint are out in a batch, which only its address can return."""
    if out := ProviderBatch.objects.filter(endpoint=name, state__in=ProviderBatch.OUT).count():
        raise EndpointRefused(
            f"endpoint {name!r} has {out} batches out; wait for them, or cancel them on the page Jobs"
        )


def retire_endpoint(name: str, *, by: Any = None) -> EndpointDefinition:
    """No further runs with this endpoint. Raises EndpointRefused while a run that has not ended uses it."""
    find_definition(name)
    with transaction.atomic():
        row = EndpointDefinition.objects.select_for_update().get(name=name)
        if runs := active_runs(name):
            shown = ", ".join(f"run {run.pk} of {run.project.name} ({run.state})" for run in runs[:5])
            more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
            raise EndpointRefused(f"endpoint {name!r} is used by {shown}{more}; finish or cancel them first")
        _check_no_batch(name)
        if row.retired_at is None:
            row.retired_at = Now()
            row.save(update_fields=["retired_at"])
            row.refresh_from_db()
            audit.note("endpoint.retired", project=None, actor=by, subject=name)
    _announce()
    return row


def restore_endpoint(name: str, *, by: Any = None) -> EndpointDefinition:
    """Bring a retired endpoint back. Raises EndpointRefused."""
    find_definition(name)
    with transaction.atomic():
        row = EndpointDefinition.objects.select_for_update().get(name=name)
        if row.retired_at is not None:
            row.retired_at = None
            row.save(update_fields=["retired_at"])
            audit.note("endpoint.restored", project=None, actor=by, subject=name)
    _announce()
    return row


def record_test(name: str, *, passed: bool, summary: str, by: Any = None) -> None:
    """Record a test call, which the provider may charge for. `summary` holds no secret."""
    audit.note("endpoint.tested", project=None, actor=by, subject=name, result="passed" if passed else summary[:200])


def encrypt_again(*, by: Any = None) -> tuple[int, list[str]]:
    """Encrypt all keys under the first secret: (how many, the names of those that cannot be read). Raises
    EncryptionUnavailable.
    """
    done, unreadable = 0, []
    with transaction.atomic():
        for row in EndpointDefinition.objects.select_for_update().exclude(secrets="").order_by("pk"):
            place = bound_to(row.name, row.base_url)
            try:
                values = decrypt(row.secrets, bound_to=place, secrets=encryption_secrets())
            except SecretsUnreadable:
                unreadable.append(row.name)
                continue
            row.secrets = encrypt(values, bound_to=place, secrets=encryption_secrets())
            row.save(update_fields=["secrets"])
            done += 1
        if done:
            audit.note("endpoint.keys_rotated", project=None, actor=by, subject="", keys=done)
    _announce()
    return done, unreadable


def active_runs(name: str) -> list[Run]:
    """The runs that have not ended and have a judge at this endpoint, oldest first."""
    states = [*Run.ACTIVE, Run.State.PAUSED]
    judges = Annotator.objects.judges().filter(options__endpoint=name)
    runs = Run.objects.filter(state__in=states, judges__in=judges).select_related("project")
    return list(runs.distinct().order_by("pk"))


def _checked(name: str, values: Mapping[str, Any]) -> StoredEndpoint:
    if unknown := sorted(set(values) - {"base_url", *SETTINGS, *SECRET_FIELDS}):
        known = ", ".join(["base_url", *SETTINGS, *SECRET_FIELDS])
        raise EndpointRefused(f"a stored endpoint has no {', '.join(unknown)}; use: {known}")
    for secret in SECRET_FIELDS:
        _check_literal(secret, values.get(secret) or {})
    try:
        return StoredEndpoint(**{**values, "name": name})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        message = first["msg"].removeprefix("Value error, ")
        raise EndpointRefused(message, field) from None


def _check_literal(field: str, values: Any) -> None:
    if not isinstance(values, Mapping) or not all(isinstance(each, str) for each in values.values()):
        raise EndpointRefused("expected names with texts; a stored endpoint reads no variables and files", field)


def _settings(endpoint: StoredEndpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings as plain values, so that later defaults apply to what was left out."""
    return endpoint.model_dump(mode="json", include=set(SETTINGS) & set(given))


def _secret_values(endpoint: StoredEndpoint, given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The given values of secret fields, with the parameters that were at the end of base_url."""
    found: dict[str, dict[str, str]] = {field: dict(given[field] or {}) for field in SECRET_FIELDS if field in given}
    written = given.get("base_url")
    if isinstance(written, str) and "?" in written:
        found["query"] = {**dict(parse_qsl(urlsplit(written).query)), **found.get("query", {})}
    return found


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointRefused("the key holds characters that no key has; copy it again", "key")
    if len(key) > LONGEST_KEY:
        raise EndpointRefused(f"the key has {len(key)} characters; at most {LONGEST_KEY} are possible", "key")
    return key


def _set_secrets(row: EndpointDefinition, values: Mapping[str, Any], *, is_new_key: bool) -> None:
    """Encrypt the values that are not empty into the row. Raises EncryptionUnavailable."""
    values = {field: value for field, value in values.items() if value}
    place = bound_to(row.name, row.base_url)
    row.secrets = encrypt(values, bound_to=place, secrets=encryption_secrets()) if values else ""
    row.secret_names = {field: sorted(values[field]) for field in SECRET_FIELDS if field in values}
    if is_new_key:
        key = values.get("key", "")
        row.key_ending = key[-SHOWN:] if len(key) >= SHOWN_FROM else ""
        row.key_set_at = Now() if key else None


def _shown(row: EndpointDefinition) -> dict[str, Any]:
    """An endpoint's fields for the audit log, without secrets."""
    names = {field: ", ".join(names) for field, names in row.secret_names.items()}
    return {"base_url": row.base_url, **row.settings, **names, "key": "set" if row.key_set_at else "none"}


def _announce() -> None:
    """This process sees the change at once, others within seconds."""
    forget_stored()
    transaction.on_commit(forget_stored)
