"""`manage.py endpoints ACTION`: list, add, change, test, retire, restore, rotate. Keys come from a file, a variable or stdin."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers.endpoints.registry import EndpointsInvalid
from workers.endpoints.stored.changes import (
    EndpointRefused,
    add_endpoint,
    change_endpoint,
    encrypt_again,
    record_test,
    restore_endpoint,
    retire_endpoint,
)
from workers.endpoints.stored.encryption import EncryptionUnavailable
from workers.judges.openai.http.connection_test import ConnectionTest, Step, try_endpoint
from workers.monitoring.endpoint_list import EndpointRow, find_row, list_endpoints
from workers.webhooks.changes import encrypt_webhooks_again


class Command(BaseCommand):
    help = "Manage the endpoints of language models; the server must be running. Changes need no restart."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        actions.add_parser("list", help="all endpoints with origin, state, judges, prices and limits")
        for name, text in (("add", "store a new endpoint"), ("change", "change a stored endpoint")):
            command = actions.add_parser(name, help=text)
            command.add_argument("name")
            command.add_argument("--base-url", required=name == "add", help="address before /chat/completions")
            command.add_argument("--options", default="{}", help='JSON, for example {"rpm": 500, "input_price": 0.4}')
            source = command.add_mutually_exclusive_group()
            source.add_argument("--key-file", type=Path, help="file with the key")
            source.add_argument("--key-env", metavar="VARIABLE", help="environment variable with the key")
            source.add_argument("--key-stdin", action="store_true", help="read the key from standard input")
            if name == "change":
                source.add_argument("--remove-key", action="store_true")
        test = actions.add_parser("test", help="read the list of models, and ask one model for one word")
        test.add_argument("name")
        test.add_argument("--model", default="", help="model for a chat completion")
        actions.add_parser("retire", help="stop new runs from using it").add_argument("name")
        actions.add_parser("restore", help="bring a retired endpoint back").add_argument("name")
        actions.add_parser("rotate", help="encrypt all keys under the first secret of ZELO_ENDPOINTS_KEY")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write(getattr(self, f"_{options['action']}")(options))
        except (EndpointRefused, EncryptionUnavailable, EndpointsInvalid) as error:
            field = getattr(error, "field", "")
            raise CommandError(f"{field}: {error}" if field else str(error)) from error

    def _list(self, options: dict[str, Any]) -> str:
        return "\n".join(_line(row) for row in list_endpoints()) or "no endpoints; add one with `endpoints add`"

    def _add(self, options: dict[str, Any]) -> str:
        values = {**_values(options["options"]), "base_url": options["base_url"]}
        row = add_endpoint(options["name"], values, key=_key(options) or "")
        return f"added {row.name}; test it with `manage.py endpoints test {row.name}`"

    def _change(self, options: dict[str, Any]) -> str:
        values = _values(options["options"])
        if options["base_url"] is not None:
            values["base_url"] = options["base_url"]
        key = "" if options["remove_key"] else _key(options)
        return f"changed {change_endpoint(options['name'], values, key=key).name}"

    def _test(self, options: dict[str, Any]) -> str:
        row = find_row(options["name"])
        if row is None or row.endpoint is None:
            reason = f"is not valid: {row.problem}" if row else "does not exist; `endpoints list` shows all"
            raise CommandError(f"endpoint {options['name']!r} {reason}")
        result = try_endpoint(row.endpoint, model=options["model"])
        record_test(row.name, passed=result.passed, summary=result.summary)
        if not result.passed:
            raise CommandError(_report(result))
        return _report(result)

    def _retire(self, options: dict[str, Any]) -> str:
        return f"retired {retire_endpoint(options['name']).name}"

    def _restore(self, options: dict[str, Any]) -> str:
        return f"{restore_endpoint(options['name']).name} is in use again"

    def _rotate(self, options: dict[str, Any]) -> str:
        done, unreadable = encrypt_again()
        webhooks, unreadable_webhooks = encrypt_webhooks_again()
        done, unreadable = done + webhooks, unreadable + unreadable_webhooks
        if unreadable:
            raise CommandError(
                f"encrypted {done} again; cannot read the keys of {', '.join(unreadable)}: add the old secret to "
                "ZELO_ENDPOINTS_KEY, or enter these keys again"
            )
        return (
            f"encrypted {done} again; secrets other than the first of ZELO_ENDPOINTS_KEY are no longer needed for them"
        )


def _values(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--options is not JSON ({error}); pass a JSON object") from error
    if not isinstance(values, dict):
        raise CommandError('--options is not a JSON object; pass one such as {"rpm": 500}')
    return values


def _key(options: dict[str, Any]) -> str | None:
    """The key from the named source, None where none is named. No message shows it."""
    if options["key_file"] is not None:
        try:
            found = options["key_file"].read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise CommandError(f"--key-file {options['key_file']} cannot be read: {reason}") from None
    elif options["key_env"]:
        found = os.environ.get(options["key_env"], "")
    elif options["key_stdin"]:
        found = sys.stdin.readline()
    else:
        return None
    if not found.strip():
        raise CommandError("the named source holds no key; put it there, or leave the option out")
    return str(found).strip()


def _line(row: EndpointRow) -> str:
    key = "from the environment" if row.has_key and not row.is_stored else "none"
    if row.is_stored and row.key_set_at is not None:
        key = f"set {row.key_set_at:%Y-%m-%d}" + (f", ends in …{row.key_ending}" if row.key_ending else "")
    parts = [row.name, row.origin, row.state, row.base_url, f"key {key}", f"judges {len(row.judges)}"]
    if row.endpoint is not None:
        parts.append(f"${row.endpoint.input_price:g}/${row.endpoint.output_price:g} per million tokens")
        parts.append(f"{row.endpoint.max_concurrency} calls at once")
    return "  ".join([*parts, row.problem]).rstrip()


def _report(result: ConnectionTest) -> str:
    lines = []
    if result.listing is not None:
        lines.append(_step("models", result.listing, f"{len(result.models)}: {', '.join(result.models[:12])}"))
    if result.chat is not None:
        lines.append(_step(result.model, result.chat, repr(result.chat.reply)))
    return "\n".join(lines)


def _step(name: str, step: Step, shown: str) -> str:
    if step.kind is None:
        return f"{name}: {shown} ({step.seconds:.2f} s)"
    return f"{name}: {step.message} ({step.seconds:.2f} s)"
